"""FAA-CLIP: FACMIC's shared head, trained against a discriminator that tells source from target.

Source: Wu et al., "FAA-CLIP: Federated Adversarial Adaptation of CLIP" (IEEE Internet of Things Journal 2025,
arXiv:2503.05776). Departures from its published code: the discriminator stays at the site, where it is kept
between rounds; source and target pass its batch norms as one batch, for each normalised by itself would lose
the very difference that it is to find; the target is a reference set, and without one the adversarial term is
absent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedmedclip.edge_client.heads.method import Layers, by_cosines
from fedmedclip.edge_client.learning.method import Batch, Tensors, Terms, TrainedMethod
from fedmedclip.edge_client.learning.methods.facmic import adapt, shared_arrays
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.heads.head import HeadSpecification
from fedmedclip.protocol.heads.layers import batch_norm_tensors, linear_tensors

if TYPE_CHECKING:
    from torch import Tensor

DISCRIMINATOR_WIDTH = 512


def private_arrays(size: int, classes: int, width: int = DISCRIMINATOR_WIDTH) -> HeadSpecification:
    """Return the domain discriminator: trained at the site, kept between rounds, never used to classify."""
    return HeadSpecification(
        (
            *linear_tensors("linear1", width, size),
            *batch_norm_tensors("norm1", width),
            *linear_tensors("linear2", width, width),
            *batch_norm_tensors("norm2", width),
            *linear_tensors("linear3", 1, width),
        )
    )


def loss(
    layers: Layers, shared: Tensors, private: Tensors, batch: Batch, settings: TrainingSettings
) -> Terms:
    """Return the contrastive term and, where there is a reference set, the adversarial term."""
    import torch

    from fedmedclip.edge_client.learning.losses import image_text_loss

    adapted = adapt(layers, shared, batch.embeddings)
    cosines = adapted @ batch.class_embeddings.T
    terms = {
        "image_text": image_text_loss(
            cosines, batch.labels, batch.logit_scale, batch.weights, settings.focal_gamma
        )
    }
    if batch.target is not None and settings.adaptation_weight > 0:
        features = torch.cat([adapted, adapt(layers, shared, batch.target)])
        logits = discriminate(layers, private, features)
        source, target = logits[: len(adapted)], logits[len(adapted) :]
        terms["adaptation"] = settings.adaptation_weight * adversarial_loss(source, target)
    return terms


def discriminate(layers: Layers, private: Tensors, features: Tensor) -> Tensor:
    """Adapted features (B, D) to the logit (B,) of coming from the source.

    What reaches `features` backwards has its sign reversed.
    """
    from fedmedclip.edge_client.learning.layers import reverse_gradient

    hidden: Tensor = reverse_gradient(features)
    for layer in ("1", "2"):
        hidden = layers.linear(private, f"linear{layer}", hidden)
        hidden = layers.relu(layers.batch_norm(private, f"norm{layer}", hidden))
    hidden = layers.linear(private, "linear3", hidden)
    return hidden.squeeze(1)


def adversarial_loss(source: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy of the discriminator's logits, source 1 and target 0, half each."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    of_source = binary_cross_entropy_with_logits(source, source.new_ones(source.shape))
    of_target = binary_cross_entropy_with_logits(target, target.new_zeros(target.shape))
    return (of_source + of_target) / 2


METHOD = TrainedMethod(
    name="faa-clip",
    shared_arrays=shared_arrays,
    private_arrays=private_arrays,
    shared_pass=by_cosines(adapt),
    loss=loss,
    adapts=True,
)
