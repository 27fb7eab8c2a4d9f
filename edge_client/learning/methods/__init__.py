"""The methods: how heads train locally. One file each; torch is imported only when one is loaded.

A new method is one file here that defines `METHOD`, a line in `_MODULES`, its arrays in
`protocol.heads.shared_heads` and, so that devices without torch can use it, its forward pass in
`edge_client.heads.heads`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fedmedclip.protocol.errors import InvalidInputError

if TYPE_CHECKING:
    from fedmedclip.edge_client.learning.methods.closed_form import ClosedFormMethod
    from fedmedclip.edge_client.learning.methods.method import Method

_MODULES = {
    "clip-adapter": "fedmedclip.edge_client.learning.methods.clip_adapter",
    "faa-clip": "fedmedclip.edge_client.learning.methods.faa_clip",
    "facmic": "fedmedclip.edge_client.learning.methods.facmic",
    "fedclip": "fedmedclip.edge_client.learning.methods.fedclip",
    "fedmedclip": "fedmedclip.edge_client.learning.methods.fedmedclip",
    "linear-probe": "fedmedclip.edge_client.learning.methods.linear_probe",
    "whitened-memory": "fedmedclip.edge_client.learning.methods.whitened_memory",
}

ADAPTING_METHODS = frozenset({"facmic", "faa-clip"})
"""Those that use a reference set of the domain to adapt to."""


def load_method(name: str) -> Method | ClosedFormMethod:
    """Import a method by its name; raises InvalidInputError when there is none, or torch is missing."""
    if name not in _MODULES:
        raise InvalidInputError(f"unknown method {name!r}; known methods: {', '.join(sorted(_MODULES))}")
    try:
        module = import_module(_MODULES[name])
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise InvalidInputError(
            "training needs PyTorch, which is not installed; install fedmedclip-edge[train]"
        ) from error
    method: Method | ClosedFormMethod = module.METHOD
    return method
