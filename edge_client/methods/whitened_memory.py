"""Whitened memory as a method: no loss and no gradient, `edge_client.whitened_memory` says how and why."""

from fedmedclip.edge_client import whitened_memory
from fedmedclip.edge_client.methods.closed_form import ClosedFormMethod

METHOD = ClosedFormMethod("whitened-memory", whitened_memory.fit)
