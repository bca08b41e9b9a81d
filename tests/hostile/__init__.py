"""What hostile members try, with plain NATS clients and messages made by hand."""
