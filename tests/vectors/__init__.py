"""Keys, events and verdicts in JSON, for readers in any language; made by `python -m tests.vectors`."""
