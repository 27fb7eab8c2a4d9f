"""Whitened memory as a method: closed form; `edge_client.heads.whitened_memory` says how and why."""

from fedmedclip.edge_client.heads import whitened_memory
from fedmedclip.edge_client.learning.methods.closed_form import ClosedFormMethod

METHOD = ClosedFormMethod("whitened-memory", whitened_memory.fit)
