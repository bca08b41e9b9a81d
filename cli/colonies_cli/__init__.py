"""The command `colonies`."""
