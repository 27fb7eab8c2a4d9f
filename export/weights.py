"""What is wrong with a model's weights, said of the weights: which tensors, by name."""

import re
from collections.abc import Sequence
from typing import Any

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.visible import visible

_MOST_NAMED = 4
_LONGEST_NAME = 120
_LISTED = re.compile(r"(Missing|Unexpected) key\(s\) in state_dict: (.*)")
_SHAPES = re.compile(
    r"size mismatch for (.+?): copying a param with shape torch\.Size\((.*?)\) from checkpoint, "
    r"the shape in current model is torch\.Size\((.*?)\)"
)


def misfit(text: str) -> str | None:
    """Return what `load_state_dict` says, in one line with the tensors' names; None of another text."""
    parts: list[str] = []
    for kind, names in _LISTED.findall(text):
        found = re.findall(r'"([^"]*)"', names)
        which = "it lacks" if kind == "Missing" else "it has, and the model has not,"
        parts.append(f"{which} {_named(found)}")
    shapes = _SHAPES.findall(text)
    if shapes:
        parts.append(
            "other shapes than the model: "
            + _named([f"{name} ({in_file}, the model's {wanted})" for name, in_file, wanted in shapes])
        )
    return "; ".join(parts) or None


def require_finite(network: Any, shown_name: str) -> None:
    """Raise InvalidInputError that names the weights of an open_clip module which are NaN or infinite."""
    import torch

    damaged = [
        name
        for name, weight in network.named_parameters()
        if weight.is_floating_point() and not torch.isfinite(weight).all()
    ]
    # A mask of attention is infinite on purpose.
    damaged += [
        name for name, kept in network.named_buffers() if kept.is_floating_point() and torch.isnan(kept).any()
    ]
    if damaged:
        raise InvalidInputError(
            f"the weights of {shown_name} are damaged: NaN or infinite values in {_named(damaged)}; "
            "get the file again, or train with a lower learning rate"
        )


def _named(names: Sequence[str]) -> str:
    shown = [visible(name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}...") for name in names]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(shown[:_MOST_NAMED]) + more
