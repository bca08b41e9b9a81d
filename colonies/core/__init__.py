"""The pure heart: specs, events, `judge` and `evolve`. No I/O, no clock, no randomness."""
