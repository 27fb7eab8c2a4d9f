"""Aggregation rules: how the updates of a round become one delta. `[federation] rule` names one.

rule.py says what one is, names.py finds it, each other file but arithmetic.py holds one.
"""
