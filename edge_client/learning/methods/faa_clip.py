"""FAA-CLIP: FACMIC's shared head, trained against a discriminator that tells source from target.

Source: Wu et al., "FAA-CLIP: Federated Adversarial Adaptation of CLIP" (IEEE Internet of Things Journal 2025,
arXiv:2503.05776). Departures from its published code: the discriminator stays at the site, where it is kept
between rounds; source and target pass its batch norms as one batch, for each normalised by itself would lose
the very difference that it is to find; the target is a reference set, and without one the adversarial term is
absent.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, relu

from fedmedclip.edge_client.heads.private_heads import DISCRIMINATOR_WIDTH
from fedmedclip.edge_client.learning.methods.layers import BatchNorm, NormalisedAttention, ReversedGradient
from fedmedclip.edge_client.learning.methods.losses import image_text_loss
from fedmedclip.edge_client.learning.methods.method import Batch, Method
from fedmedclip.edge_client.learning.settings import TrainingSettings


class Discriminator(nn.Module):
    """Adapted features (B, D) to the logit (B,) of coming from the source."""

    def __init__(self, embedding_size: int, width: int = DISCRIMINATOR_WIDTH) -> None:
        super().__init__()
        self.linear1 = nn.Linear(embedding_size, width)
        self.norm1 = BatchNorm(width)
        self.linear2 = nn.Linear(width, width)
        self.norm2 = BatchNorm(width)
        self.linear3 = nn.Linear(width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits; what reaches `features` backwards has its sign reversed."""
        reversed_: Tensor = ReversedGradient.apply(features)  # type: ignore[no-untyped-call]
        hidden = relu(self.norm1(self.linear1(reversed_)))
        hidden = relu(self.norm2(self.linear2(hidden)))
        logits: Tensor = self.linear3(hidden)
        return logits.squeeze(1)


def loss(
    shared: nn.Module, private: nn.Module, batch: Batch, settings: TrainingSettings
) -> dict[str, Tensor]:
    """Return the contrastive term and, where there is a reference set, the adversarial term."""
    adapted = shared(batch.embeddings)
    cosines = adapted @ batch.class_embeddings.T
    terms = {
        "image_text": image_text_loss(
            cosines, batch.labels, batch.logit_scale, batch.weights, settings.focal_gamma
        )
    }
    if batch.target is not None and settings.adaptation_weight > 0:
        logits = private(torch.cat([adapted, shared(batch.target)]))
        source, target = logits[: len(adapted)], logits[len(adapted) :]
        terms["adaptation"] = settings.adaptation_weight * adversarial_loss(source, target)
    return terms


def adversarial_loss(source: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy of the discriminator's logits, source 1 and target 0, half each."""
    of_source = binary_cross_entropy_with_logits(source, torch.ones_like(source))
    of_target = binary_cross_entropy_with_logits(target, torch.zeros_like(target))
    return (of_source + of_target) / 2


METHOD = Method(
    "faa-clip",
    lambda size, classes: NormalisedAttention(size),
    lambda size, classes: Discriminator(size),
    loss,
)
