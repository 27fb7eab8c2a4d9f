"""Exact privacy: how much noise a statement needs, what it costs, and what has been spent."""
