import pytest
import torch
from torch.nn import MultiheadAttention

from fedmedclip.export.attention import attention_written_out

LENGTH, WIDTH, HEADS = 5, 12, 3


def attention(**options: object) -> MultiheadAttention:
    torch.manual_seed(0)
    return MultiheadAttention(WIDTH, HEADS, batch_first=True, **options).eval()  # type: ignore[arg-type]


def tokens(batch: int = 2, length: int = LENGTH) -> torch.Tensor:
    return torch.randn(batch, length, WIDTH, generator=torch.Generator().manual_seed(batch + length))


CAUSAL = torch.full((LENGTH, LENGTH), float("-inf")).triu(1)


@torch.no_grad()
@pytest.mark.parametrize("mask", [None, CAUSAL], ids=["all", "causal"])
@pytest.mark.parametrize("bias", [True, False])
def test_self_attention_computes_what_pytorch_computes(mask: torch.Tensor | None, bias: bool) -> None:
    module, batch = attention(bias=bias), tokens()
    usual, _ = module(batch, batch, batch, need_weights=False, attn_mask=mask)
    with attention_written_out(module):
        written_out, weights = module(batch, batch, batch, need_weights=False, attn_mask=mask)
    torch.testing.assert_close(written_out, usual, rtol=1e-5, atol=1e-6)
    assert weights is None


@torch.no_grad()
@pytest.mark.parametrize(
    ("options", "call"),
    [
        ({}, {"key": tokens(length=7)}),
        ({}, {"need_weights": True}),
        ({}, {"key_padding_mask": torch.tensor([[False] * 4 + [True]] * 2)}),
        ({}, {"attn_mask": CAUSAL < 0}),
        ({"kdim": 6, "vdim": 6}, {"key": tokens()[..., :6]}),
        ({"add_bias_kv": True}, {}),
        ({"add_zero_attn": True}, {}),
    ],
    ids=["other keys", "weights", "padding", "mask of truths", "other widths", "biases", "zero"],
)
def test_all_other_attention_stays_pytorchs(options: dict[str, object], call: dict[str, object]) -> None:
    module, batch = attention(**options), tokens()
    keys = call.pop("key", batch)
    arguments = {"need_weights": False, **call}
    usual = module(batch, keys, keys, **arguments)
    with attention_written_out(module):
        found = module(batch, keys, keys, **arguments)
    for one, other in zip(found, usual, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)


@torch.no_grad()
def test_a_padding_mask_that_has_no_name_is_no_attention_mask() -> None:
    module, batch = attention(), tokens()
    padding = torch.tensor([[False] * 4 + [True]] * 2)
    usual, _ = module(batch, batch, batch, padding, need_weights=False)
    with attention_written_out(module):
        found, _ = module(batch, batch, batch, padding, need_weights=False)
    assert torch.equal(found, usual)


def test_afterwards_the_module_is_as_before() -> None:
    module = torch.nn.Sequential(attention())
    with attention_written_out(module):
        assert "forward" in vars(module[0])
    assert "forward" not in vars(module[0])


@torch.no_grad()
def test_any_batch_goes_through_a_graph_that_was_traced_with_two() -> None:
    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention()

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            mixed: torch.Tensor = self.attention(batch, batch, batch, need_weights=False)[0]
            return mixed

    tower = Tower()
    with attention_written_out(tower):
        traced = torch.jit.trace(tower, tokens(2))
    torch.testing.assert_close(traced(tokens(7)), tower(tokens(7)), rtol=1e-5, atol=1e-6)
