"""Rounds, aggregation rules, durable state and the service that coordinates a federation."""
