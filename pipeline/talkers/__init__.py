"""Model families, behind `pipeline.talker`."""
