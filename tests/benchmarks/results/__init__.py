"""How docs/results are made again, and that they are of today's code."""
