"""FedCLIP: a shared attention head of two linear layers with tanh between them.

Source: Lu et al., "FedCLIP: Fast Generalization and Personalization for CLIP in Federated Learning" (IEEE
Data Engineering Bulletin 2023, arXiv:2302.13485), and its published code
(github.com/microsoft/PersonalizedFL, commit 441670e, folder fedclip). No departure: where a last batch has
one image they take no step, and `local_steps.batches` lets it join the one before.
"""

from fedmedclip.edge_client.heads.method import Head, Layers, Rows, by_cosines
from fedmedclip.edge_client.learning.method import Batch, Tensors, Terms, TrainedMethod
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.heads.head import HeadSpecification
from fedmedclip.protocol.heads.layers import linear_tensors


def shared_arrays(size: int, classes: int) -> HeadSpecification:
    """Linear D to D, (tanh), linear D to D, (softmax)."""
    return HeadSpecification(linear_tensors("first", size, size) + linear_tensors("second", size, size))


def adapt(layers: Layers, shared: Head, embeddings: Rows) -> Rows:
    """a = softmax(second(tanh(first(e)))), adapted = a * e at unit length; (N, D) to (N, D)."""
    hidden = layers.tanh(layers.linear(shared, "first", embeddings))
    return layers.unit_rows(layers.softmax(layers.linear(shared, "second", hidden)) * embeddings)


def loss(
    layers: Layers, shared: Tensors, private: Tensors, batch: Batch, settings: TrainingSettings
) -> Terms:
    """Return the contrastive term."""
    from fedmedclip.edge_client.learning.losses import image_text_loss

    cosines = adapt(layers, shared, batch.embeddings) @ batch.class_embeddings.T
    image_text = image_text_loss(
        cosines, batch.labels, batch.logit_scale, batch.weights, settings.focal_gamma
    )
    return {"image_text": image_text}


METHOD = TrainedMethod(
    name="fedclip", shared_arrays=shared_arrays, shared_pass=by_cosines(adapt), loss=loss, own_length=True
)
