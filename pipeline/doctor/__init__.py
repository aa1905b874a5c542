"""The doctor: what a run will need, looked at before it starts, here or on every machine of a cluster."""
