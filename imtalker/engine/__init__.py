"""The render path that the pipeline uses."""
