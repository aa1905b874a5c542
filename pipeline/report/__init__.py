"""The report of a run: one HTML page for people, and the same facts for machines."""
