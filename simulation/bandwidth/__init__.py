"""The bandwidth benchmark: accuracy against bytes, in one process, with the production code."""
