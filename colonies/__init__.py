"""Colonies: processes, workers and a signed ledger on NATS JetStream."""
