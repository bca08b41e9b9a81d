"""`python -m tests.simulator`: see docs/simulator.md."""
