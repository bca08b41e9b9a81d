"""Views derived from the ledger: projectors, their tables and their queries."""
