"""Whitened memory as a method: no loss and no gradient, `edge_client.whitened_memory` says how and why."""

from edge_client import whitened_memory
from edge_client.methods.closed_form import ClosedFormMethod

METHOD = ClosedFormMethod("whitened-memory", whitened_memory.fit)
