"""FACMIC: a shared attention head, drawn towards a target domain by LMMD.

Source: Wu et al., "FACMIC: Federated Adaptative CLIP Model for Medical Image Classification" (MICCAI 2024,
arXiv:2410.14707). Departures from its published code: the number of classes comes from the data; the target
is a reference set of embeddings (`edge_client.features.references`) in place of images of the test site, and
without one the head trains on the contrastive term alone; running statistics are aggregated like weights.
"""

from torch import Tensor, nn
from torch.nn.functional import normalize, softmax

from fedmedclip.edge_client.learning.methods.layers import NormalisedAttention, no_private_head
from fedmedclip.edge_client.learning.methods.losses import image_text_loss, local_maximum_mean_discrepancy
from fedmedclip.edge_client.learning.methods.method import Batch, Method
from fedmedclip.edge_client.learning.settings import TrainingSettings


def loss(
    shared: nn.Module, private: nn.Module, batch: Batch, settings: TrainingSettings
) -> dict[str, Tensor]:
    """Return the contrastive term and, where there is a reference set, the adaptation term.

    Source features are adapted, target features are not; the target's pseudo-probabilities are those of its
    adapted features.
    """
    adapted = shared(batch.embeddings)
    cosines = adapted @ batch.class_embeddings.T
    terms = {
        "image_text": image_text_loss(
            cosines, batch.labels, batch.logit_scale, batch.weights, settings.focal_gamma
        )
    }
    if batch.target is not None and settings.adaptation_weight > 0:
        guessed = softmax(batch.logit_scale * (shared(batch.target) @ batch.class_embeddings.T), dim=1)
        discrepancy = local_maximum_mean_discrepancy(
            adapted, batch.labels, normalize(batch.target, dim=1), guessed
        )
        terms["adaptation"] = settings.adaptation_weight * discrepancy
    return terms


METHOD = Method("facmic", lambda size, classes: NormalisedAttention(size), no_private_head, loss)
"""FACMIC's head has no private part."""
