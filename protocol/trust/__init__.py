"""Whose bundles and heads are used here: the keys that this user trusts, and the check against them."""
