"""Brokers and `fedmedclip` commands as processes, for the demo, the benchmarks and the tests."""
