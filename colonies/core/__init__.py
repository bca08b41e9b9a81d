"""The pure heart: specs, events, `decide` and `evolve`. No I/O, no clock, no randomness."""
