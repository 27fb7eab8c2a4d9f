"""FedMedCLIP: a shared feature adaptation module (FAM) and a private MLP that teach each other.

Source: Wu and Chaddad, "Federated CLIP for Resource-Efficient Heterogeneous Medical Image Classification"
(AAAI 2026, arXiv:2511.07929), and its published code (github.com/AIPMLab/FedMedCLIP, commit df4bf02).
Departures where that code defeats the paper's formulas: thresholds receive a gradient (see `masked_linear`)
and are sent, and entropies are those of the predicted probabilities (the code takes the logarithm of a
second softmax). Running statistics of the MLP are settled at the end of a round. Adaptive distillation is
the paper's; the code that was run weighs both directions 0.5, which is `adaptive_distillation = false`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedmedclip.edge_client.heads.ensemble import ENTROPY_FLOOR
from fedmedclip.edge_client.heads.method import Head, Layers, Rows, by_cosines
from fedmedclip.edge_client.learning.method import Batch, Tensors, Terms, TrainedMethod
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification
from fedmedclip.protocol.heads.layers import batch_norm_tensors, masked_linear_tensors

if TYPE_CHECKING:
    from torch import Tensor


def shared_arrays(size: int, classes: int) -> HeadSpecification:
    """FAM: two masked linear layers of D to D. The normalisation between them has no parameters."""
    return HeadSpecification(
        masked_linear_tensors("first", size, size) + masked_linear_tensors("second", size, size)
    )


def private_arrays(size: int, classes: int) -> HeadSpecification:
    """MLP: three times masked linear and batch norm, then masked linear to the classes."""
    tensors: list[TensorSpecification] = []
    for layer in ("1", "2", "3"):
        tensors += masked_linear_tensors(f"linear{layer}", size, size)
        tensors += batch_norm_tensors(f"norm{layer}", size)
    return HeadSpecification((*tensors, *masked_linear_tensors("classifier", classes, size)))


def adapt(layers: Layers, shared: Head, embeddings: Rows) -> Rows:
    """FAM: a = softmax(second(relu(normalise(first(e))))), adapted = a * e at unit length, as e (N, D)."""
    hidden = layers.relu(layers.layer_norm(layers.masked_linear(shared, "first", embeddings)))
    attention = layers.softmax(layers.masked_linear(shared, "second", hidden))
    return layers.unit_rows(attention * embeddings)


def classify(layers: Layers, private: Head, adapted: Rows) -> Rows:
    """MLP: adapted unit features (N, D) to logits (N, C)."""
    hidden = adapted
    for layer in ("1", "2", "3"):
        hidden = layers.masked_linear(private, f"linear{layer}", hidden)
        hidden = layers.relu(layers.batch_norm(private, f"norm{layer}", hidden))
    return layers.masked_linear(private, "classifier", hidden)


def loss(
    layers: Layers, shared: Tensors, private: Tensors, batch: Batch, settings: TrainingSettings
) -> Terms:
    """Return the three terms of the loss, each a scalar, already weighted: their sum is minimised."""
    from fedmedclip.edge_client.learning.losses import classification_loss, image_text_loss

    adapted = adapt(layers, shared, batch.embeddings)
    logits = classify(layers, private, adapted)
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
    from torch.nn.functional import kl_div

    fam = (cosines / temperature).log_softmax(dim=0)
    mlp = (logits / temperature).log_softmax(dim=0)
    fam_from_mlp = kl_div(fam, mlp, reduction="sum", log_target=True) / cosines.shape[1]
    mlp_from_fam = kl_div(mlp, fam, reduction="sum", log_target=True) / cosines.shape[1]
    alpha = _mlp_confidence(cosines.detach(), logits.detach(), logit_scale) if adaptive else 0.5
    return alpha * fam_from_mlp + (1 - alpha) * mlp_from_fam


def _mlp_confidence(cosines: Tensor, logits: Tensor, logit_scale: float) -> Tensor:
    fam_entropy = _entropy(logit_scale * cosines)
    mlp_entropy = _entropy(logits)
    return (fam_entropy / (fam_entropy + mlp_entropy)).mean()


def _entropy(logits: Tensor) -> Tensor:
    log_probabilities = logits.log_softmax(dim=1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=1) + ENTROPY_FLOOR


METHOD = TrainedMethod(
    name="fedmedclip",
    shared_arrays=shared_arrays,
    private_arrays=private_arrays,
    shared_pass=by_cosines(adapt),
    private_pass=classify,
    loss=loss,
    own_length=True,
)
