"""The core and its shells on a fake ledger in virtual time: see docs/simulator.md."""
