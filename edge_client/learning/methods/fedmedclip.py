"""FedMedCLIP: a shared feature adaptation module (FAM) and a private MLP that teach each other.

Source: Wu and Chaddad, "Federated CLIP for Resource-Efficient Heterogeneous Medical Image Classification"
(AAAI 2026, arXiv:2511.07929). Two departures from its published code, where that defeats its own formulas:
thresholds receive a gradient (see `masked_linear`), and entropies are those of the predicted probabilities
(the code takes the logarithm of a second softmax).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, layer_norm, log_softmax, normalize, relu, softmax

from fedmedclip.edge_client.heads.ensemble import ENTROPY_FLOOR
from fedmedclip.edge_client.learning.methods.layers import BatchNorm
from fedmedclip.edge_client.learning.methods.losses import classification_loss, image_text_loss
from fedmedclip.edge_client.learning.methods.masked_linear import MaskedLinear
from fedmedclip.edge_client.learning.methods.method import Batch, Method
from fedmedclip.edge_client.learning.settings import TrainingSettings


class FeatureAdaptationModule(nn.Module):
    """The shared head: attention over the D features of each embedding.

    a = softmax(second(relu(normalise(first(e))))), adapted = a * e at unit length; (B, D) to (B, D).
    """

    def __init__(self, embedding_size: int) -> None:
        super().__init__()
        self.first = MaskedLinear(embedding_size, embedding_size)
        self.second = MaskedLinear(embedding_size, embedding_size)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the adapted unit features (B, D); `embeddings` (B, D) stay as they are."""
        hidden = self.first(embeddings)
        hidden = relu(layer_norm(hidden, hidden.shape[1:]))
        attention = softmax(self.second(hidden), dim=1)
        return normalize(attention * embeddings, dim=1)


class PrivateMlp(nn.Module):
    """The private head: three times masked linear, batch norm, ReLU, then masked linear to the classes."""

    def __init__(self, embedding_size: int, classes: int) -> None:
        super().__init__()
        self.linear1 = MaskedLinear(embedding_size, embedding_size)
        self.norm1 = BatchNorm(embedding_size)
        self.linear2 = MaskedLinear(embedding_size, embedding_size)
        self.norm2 = BatchNorm(embedding_size)
        self.linear3 = MaskedLinear(embedding_size, embedding_size)
        self.norm3 = BatchNorm(embedding_size)
        self.classifier = MaskedLinear(embedding_size, classes)

    def forward(self, adapted: Tensor) -> Tensor:
        """Return logits (B, C) of adapted unit features (B, D)."""
        hidden = relu(self.norm1(self.linear1(adapted)))
        hidden = relu(self.norm2(self.linear2(hidden)))
        hidden = relu(self.norm3(self.linear3(hidden)))
        logits: Tensor = self.classifier(hidden)
        return logits


def loss(
    shared: nn.Module, private: nn.Module, batch: Batch, settings: TrainingSettings
) -> dict[str, Tensor]:
    """Return the three terms of the loss, each a scalar, already weighted: their sum is minimised."""
    adapted = shared(batch.embeddings)
    logits = private(adapted)
    cosines = adapted @ batch.class_embeddings.T
    distillation = class_wise_distillation(
        cosines, logits, batch.logit_scale, settings.distillation_temperature, settings.adaptive_distillation
    )
    weights, gamma = batch.weights, settings.focal_gamma
    classification = classification_loss(logits, batch.labels, weights, gamma)
    return {
        "image_text": image_text_loss(cosines, batch.labels, batch.logit_scale, weights, gamma),
        "classification": settings.classification_weight * classification,
        "distillation": settings.distillation_weight * distillation,
    }


def class_wise_distillation(
    cosines: Tensor, logits: Tensor, logit_scale: float, temperature: float, adaptive: bool
) -> Tensor:
    """Kullback-Leibler divergence both ways between the two heads, column by column.

    For each class, the FAM's cosines (B, C) and the MLP's logits (B, C) become distributions over the batch
    (softmax over B at `temperature`); the divergences are averaged over the classes. The FAM learns from the
    MLP with weight alpha, the MLP from the FAM with 1 - alpha: alpha is 0.5, or when `adaptive` the batch
    mean of the ensemble's weight, (1/H_mlp) / (1/H_mlp + 1/H_fam), which carries no gradient.
    """
    fam = log_softmax(cosines / temperature, dim=0)
    mlp = log_softmax(logits / temperature, dim=0)
    fam_from_mlp = kl_div(fam, mlp, reduction="sum", log_target=True) / cosines.shape[1]
    mlp_from_fam = kl_div(mlp, fam, reduction="sum", log_target=True) / cosines.shape[1]
    alpha = _mlp_confidence(cosines, logits, logit_scale) if adaptive else 0.5
    return alpha * fam_from_mlp + (1 - alpha) * mlp_from_fam


@torch.no_grad()
def _mlp_confidence(cosines: Tensor, logits: Tensor, logit_scale: float) -> Tensor:
    fam_entropy = _entropy(logit_scale * cosines)
    mlp_entropy = _entropy(logits)
    return (fam_entropy / (fam_entropy + mlp_entropy)).mean()


def _entropy(logits: Tensor) -> Tensor:
    log_probabilities = log_softmax(logits, dim=1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=1) + ENTROPY_FLOOR


METHOD = Method("fedmedclip", lambda size, classes: FeatureAdaptationModule(size), PrivateMlp, loss, True)
