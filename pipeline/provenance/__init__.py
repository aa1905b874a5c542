"""Labels and provenance: what a video says about its making, who signed that, and whether it still holds."""
