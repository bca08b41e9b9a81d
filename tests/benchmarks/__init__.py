"""How fast it is: `python -m tests.benchmarks`. Nothing here is timed by the test suite."""
