"""What the training loop asks of a method: two modules and a loss."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from fedmedclip.edge_client.learning.settings import TrainingSettings


@dataclass(frozen=True)
class Batch:
    """One batch of image-caption pairs; a caption is the class embedding of its image's label.

    `embeddings` float32 (B, D), `labels` int64 (B,), `class_embeddings` float32 (C, D) of unit rows,
    `logit_scale` the frozen model's own factor on cosines. `weights` (B,) says how much each image counts
    (None: all the same), `target` (B', D) are embeddings of the domain to adapt to, of no class (None: none).
    """

    embeddings: Tensor
    labels: Tensor
    class_embeddings: Tensor
    logit_scale: float
    weights: Tensor | None = None
    target: Tensor | None = None


@dataclass(frozen=True)
class Method:
    """One way to train heads.

    `build_shared_head(D, C)` and `build_private_head(D, C)` return modules whose `state_dict` has exactly the
    names and shapes of the head's specification. `loss(shared, private, batch, settings)` returns named
    scalar terms; their sum is what training minimises. `private_classifies` says whether the private head
    takes the shared head's features to logits; otherwise it serves training only, or has no arrays.
    """

    name: str
    build_shared_head: Callable[[int, int], nn.Module]
    build_private_head: Callable[[int, int], nn.Module]
    loss: Callable[[nn.Module, nn.Module, Batch, TrainingSettings], dict[str, Tensor]]
    private_classifies: bool = False
