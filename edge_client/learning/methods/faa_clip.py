"""FAA-CLIP: FACMIC's shared head, trained against a discriminator that tells source from target.

Source: Wu et al., "FAA-CLIP: Federated Adversarial Adaptation of CLIP" (IEEE Internet of Things Journal
2025, arXiv:2503.05776), and its published code (github.com/AIPMLab/FAA-CLIP, commit 62c07c6). As there, the
discriminator stays at the site and is kept between rounds, its batch norms see source and target one after
the other, each normalised by itself, no gradient passes through the target's features, and the adversarial
term weighs 0.5. Departures are FACMIC's: the target is a reference set in place of the test site's images,
and without one the adversarial term is absent; the head's running statistics are settled at the end of a
round.
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
ADAPTATION_WEIGHT = 0.5
"""Of the adversarial term, unless the settings say another."""


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
    """Return the contrastive term and, where there is a reference set, the adversarial term.

    The target's features are what the discriminator learns from and nothing else: no gradient passes them.
    """
    from fedmedclip.edge_client.learning.losses import image_text_loss

    adapted = adapt(layers, shared, batch.embeddings)
    cosines = adapted @ batch.class_embeddings.T
    terms = {
        "image_text": image_text_loss(
            cosines, batch.labels, batch.logit_scale, batch.weights, settings.focal_gamma
        )
    }
    weight = settings.weight_of_adaptation(ADAPTATION_WEIGHT)
    if batch.target is not None and weight > 0:
        target = adapt(layers, shared, batch.target).detach()
        terms["adaptation"] = weight * adversarial_loss(
            discriminate(layers, private, adapted), discriminate(layers, private, target)
        )
    return terms


def discriminate(layers: Layers, private: Tensors, features: Tensor) -> Tensor:
    """Adapted features (B, D) of one domain to the logit (B,) of coming from the source.

    Batch norms normalise the rows given, so that each domain is normalised by itself. What reaches `features`
    backwards has its sign reversed.
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
    own_length=True,
)
