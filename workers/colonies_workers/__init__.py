"""Ready-made workers: Unix commands first."""
