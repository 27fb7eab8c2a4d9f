"""PyTorch's multi-head attention, written out for a graph.

`torch.nn.MultiheadAttention` turns its input around (tokens first, then back), computes with sizes that it
asks for while the graph runs, and becomes some 50 nodes a layer. Here it is the formula: 16 nodes, with sizes
that are constants, all but the batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@contextmanager
def attention_written_out(module: "torch.nn.Module") -> Iterator[None]:
    """Let every self-attention inside `module` compute by `_self_attention` for as long as this is open."""
    import torch

    attentions = [part for part in module.modules() if isinstance(part, torch.nn.MultiheadAttention)]
    for attention in attentions:
        attention.forward = _Forward(attention)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for attention in attentions:
            del attention.forward


class _Forward:
    """What replaces one module's `forward`; hands on to it whatever is not plain self-attention."""

    def __init__(self, attention: "torch.nn.MultiheadAttention") -> None:
        self._attention = attention
        self._usual = attention.forward

    def __call__(
        self,
        query: "torch.Tensor",
        key: "torch.Tensor",
        value: "torch.Tensor",
        *more: Any,
        attn_mask: "torch.Tensor | None" = None,
        **options: Any,
    ) -> "tuple[torch.Tensor, torch.Tensor | None]":
        attention = self._attention
        plain = query is key is value and query.dim() == 3 and not more and options == {"need_weights": False}
        plain &= attention.batch_first and attention.in_proj_weight is not None
        plain &= attention.bias_k is None and not attention.add_zero_attn
        plain &= attn_mask is None or (attn_mask.dim() == 2 and attn_mask.is_floating_point())
        if not plain:
            return self._usual(query, key, value, *more, attn_mask=attn_mask, **options)  # type: ignore[misc]
        return _self_attention(attention, query, attn_mask), None


def _self_attention(
    attention: "torch.nn.MultiheadAttention", tokens: "torch.Tensor", mask: "torch.Tensor | None"
) -> "torch.Tensor":
    """softmax(Q K^T / sqrt(d) + mask) V of each head (Vaswani et al. 2017, equation 1), then the projection.

    `tokens` float32 (batch, length, width), `mask` float32 (length, length) to add, or None.
    """
    from torch.nn.functional import linear

    length, width, heads = int(tokens.shape[1]), attention.embed_dim, attention.num_heads
    size = width // heads
    together = linear(tokens, attention.in_proj_weight, attention.in_proj_bias)
    queries, keys, values = (part.reshape(-1, length, heads, size) for part in together.chunk(3, dim=-1))
    scores = (queries * size**-0.5).permute(0, 2, 1, 3) @ keys.permute(0, 2, 3, 1)
    if mask is not None:
        scores = scores + mask
    mixed = scores.softmax(dim=-1) @ values.permute(0, 2, 1, 3)
    projected: torch.Tensor = attention.out_proj(mixed.permute(0, 2, 1, 3).reshape(-1, length, width))
    return projected
