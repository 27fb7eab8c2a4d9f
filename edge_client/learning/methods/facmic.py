"""FACMIC: a shared attention head, drawn towards a target domain by LMMD.

Source: Wu et al., "FACMIC: Federated Adaptative CLIP Model for Medical Image Classification" (MICCAI 2024,
arXiv:2410.14707), and its published code (github.com/AIPMLab/FACMIC, commit 514c500). Departures: the target
is a reference set of embeddings (`edge_client.features.references`) in place of images of the test site, and
without one the head trains on the contrastive term alone; running statistics, averaged over the sites in
both, are those of all training images (`learning.settled_norms`) and not moving averages over the batches.
"""

from fedmedclip.edge_client.heads.method import Head, Layers, Rows, by_cosines
from fedmedclip.edge_client.learning.method import Batch, Tensors, Terms, TrainedMethod
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.heads.head import HeadSpecification
from fedmedclip.protocol.heads.layers import batch_norm_tensors, linear_tensors

ADAPTATION_WEIGHT = 1.0
"""Of the adaptation term, unless the settings say another."""


def shared_arrays(size: int, classes: int) -> HeadSpecification:
    """Linear D to D, batch norm, (LeakyReLU), linear D to D, (softmax)."""
    return HeadSpecification(
        linear_tensors("first", size, size)
        + batch_norm_tensors("norm", size)
        + linear_tensors("second", size, size)
    )


def adapt(layers: Layers, shared: Head, embeddings: Rows) -> Rows:
    """a = softmax(second(leaky(norm(first(e))))), adapted = a * e at unit length; (N, D) to (N, D)."""
    hidden = layers.batch_norm(shared, "norm", layers.linear(shared, "first", embeddings))
    attention = layers.softmax(layers.linear(shared, "second", layers.leaky_relu(hidden)))
    return layers.unit_rows(attention * embeddings)


def loss(
    layers: Layers, shared: Tensors, private: Tensors, batch: Batch, settings: TrainingSettings
) -> Terms:
    """Return the contrastive term and, where there is a reference set, the adaptation term.

    Source features are adapted, target features are not; the target's pseudo-probabilities are those of its
    adapted features.
    """
    from fedmedclip.edge_client.learning.losses import image_text_loss, local_maximum_mean_discrepancy

    adapted = adapt(layers, shared, batch.embeddings)
    cosines = adapted @ batch.class_embeddings.T
    terms = {
        "image_text": image_text_loss(
            cosines, batch.labels, batch.logit_scale, batch.weights, settings.focal_gamma
        )
    }
    weight = settings.weight_of_adaptation(ADAPTATION_WEIGHT)
    if batch.target is not None and weight > 0:
        adapted_target = adapt(layers, shared, batch.target)
        guessed = layers.softmax(batch.logit_scale * (adapted_target @ batch.class_embeddings.T))
        discrepancy = local_maximum_mean_discrepancy(
            adapted, batch.labels, layers.unit_rows(batch.target), guessed
        )
        terms["adaptation"] = weight * discrepancy
    return terms


METHOD = TrainedMethod(
    name="facmic",
    shared_arrays=shared_arrays,
    shared_pass=by_cosines(adapt),
    loss=loss,
    adapts=True,
    own_length=True,
)
