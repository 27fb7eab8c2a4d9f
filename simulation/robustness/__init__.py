"""The robustness benchmark: what hostile sites do to the honest ones, under each aggregation rule."""
