"""Federated training of small heads on a frozen CLIP, for hospitals with small machines and thin links."""

__version__ = "0.2.0"
