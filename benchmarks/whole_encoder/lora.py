"""LoRA in an image encoder: low-rank differences of frozen weights (Hu et al. 2022, "LoRA", section 4.1).

A weight W becomes W + scale * B A, with A random and B zero at first, so that training begins at the frozen
encoder. Where:

- ResNet towers: every convolution, in the form of the authors' library (`loralib.Conv2d`: for a kernel of
  k x k A is (r k, in k) and B (out k, r k), and their product is reshaped to the kernel), and the four
  projections of the attention pool;
- ViT towers: the query and value projections of each attention, as the paper's section 4.2 has it.

The differences are parametrisations of the weights, so towers that pass weights to functions (attention does)
need no change, and `merge` leaves a tower of its old form.
"""

import math

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from fedmedclip.protocol.errors import InvalidInputError

ATTENTION_POOL = ("q_proj", "k_proj", "v_proj", "c_proj")


class LowRank(torch.nn.Module):
    """Adds scale * B A to a weight whose rows are outputs: to each of `blocks` of rows alone, or to all."""

    def __init__(self, weight: Tensor, rank: int, scale: float, blocks: tuple[slice, ...] | None = None):
        super().__init__()
        kernel = weight.shape[2] if weight.ndim == 4 else 1
        self.scale = scale
        self.blocks = blocks or (slice(0, weight.shape[0]),)
        inputs = weight.shape[1] * kernel
        self.down = torch.nn.ParameterList()
        self.up = torch.nn.ParameterList()
        for block in self.blocks:
            outputs = (block.stop - block.start) * kernel
            self.down.append(torch.nn.Parameter(torch.zeros(rank * kernel, inputs)))
            self.up.append(torch.nn.Parameter(torch.zeros(outputs, rank * kernel)))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the adapted weight, of the same shape."""
        parts, end = [], 0
        for block, down, up in zip(self.blocks, self.down, self.up, strict=True):
            rows = weight[block]
            parts += [weight[end : block.start], rows + self.scale * (up @ down).view(rows.shape)]
            end = block.stop
        return torch.cat([*parts, weight[end:]])


def adapt(tower: torch.nn.Module, rank: int, scale: float) -> None:
    """Freeze a tower and give its weights low-rank differences, which alone have gradients; `redraw` draws A.

    Raises InvalidInputError for a tower that has no place for them.
    """
    tower.requires_grad_(False)
    places = 0
    for module in list(tower.modules()):
        if isinstance(module, torch.nn.MultiheadAttention) and module.in_proj_weight is not None:
            size = module.embed_dim
            query, value = slice(0, size), slice(2 * size, 3 * size)
            _parametrise(module, "in_proj_weight", rank, scale, (query, value))
        elif isinstance(module, torch.nn.Conv2d) and _is_residual(tower):
            _parametrise(module, "weight", rank, scale)
        elif all(hasattr(module, name) for name in ATTENTION_POOL):
            for name in ATTENTION_POOL:
                _parametrise(getattr(module, name), "weight", rank, scale)
        else:
            continue
        places += 1
    if not places:
        raise InvalidInputError(
            f"the image tower {type(tower).__name__} has neither PyTorch's attention nor CLIP's attention "
            "pool, where LoRA goes; give a CLIP ResNet or ViT of open_clip's own"
        )


def is_difference(name: str) -> bool:
    """Whether an array of an adapted tower's state is an A or a B."""
    return "parametrizations" in name and not {"down", "up"}.isdisjoint(name.split("."))


def redraw(tower: torch.nn.Module, seed: int) -> None:
    """Let all differences begin anew: A drawn as the authors' library draws it, B zero."""
    generator = torch.Generator().manual_seed(seed)
    for module in tower.modules():
        if isinstance(module, LowRank):
            for down, up in zip(module.down, module.up, strict=True):
                drawn = torch.empty(down.shape)
                torch.nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
                down.data.copy_(drawn)
                up.data.zero_()


def merge(tower: torch.nn.Module) -> None:
    """Put the differences into the weights, whose outputs stay the same."""
    for module in list(tower.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def _parametrise(
    module: torch.nn.Module, name: str, rank: int, scale: float, blocks: tuple[slice, ...] | None = None
) -> None:
    difference = LowRank(getattr(module, name).detach(), rank, scale, blocks)
    parametrize.register_parametrization(module, name, difference)


def _is_residual(tower: torch.nn.Module) -> bool:
    """Whether it is a ResNet; a ViT's only convolution cuts patches."""
    return any(all(hasattr(module, name) for name in ATTENTION_POOL) for module in tower.modules())
