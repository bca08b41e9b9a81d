"""The coverage-guided fuzzer: `make fuzz`. What it found is kept as ordinary tests in tests/core."""
