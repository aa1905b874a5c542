"""Training of both networks (IMTalker, arXiv 2511.22167, section 4.1, and the published implementation)."""
