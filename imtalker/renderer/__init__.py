"""The renderer: a source picture and motion codes in, frames out (IMTalker, arXiv 2511.22167, section 3.2)."""
