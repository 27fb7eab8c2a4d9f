"""CLIP-Adapter, federated: a narrow residual head whose output is blended into the embedding.

Source: Gao et al., "CLIP-Adapter: Better Vision-Language Models with Feature Adapters" (IJCV 2024,
arXiv:2110.04544): its visual adapter with residual ratio 0.2 and the classes' text embeddings as classifier.
Departure: its linear layers have biases here.
"""

from fedmedclip.edge_client.heads.method import Head, Layers, Rows, by_cosines
from fedmedclip.edge_client.learning.method import Batch, Tensors, Terms, TrainedMethod
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.heads.head import HeadSpecification
from fedmedclip.protocol.heads.layers import linear_tensors

ADAPTER_SHARE = 0.2
"""How much of the feature is the adapter's (alpha of the paper's image branch)."""


def shared_arrays(size: int, classes: int) -> HeadSpecification:
    """Bottleneck: linear D to D/4, (ReLU), linear D/4 to D, (ReLU)."""
    narrow = max(1, size // 4)
    return HeadSpecification(linear_tensors("down", narrow, size) + linear_tensors("up", size, narrow))


def adapt(layers: Layers, shared: Head, embeddings: Rows) -> Rows:
    """0.2 * relu(up(relu(down(e)))) + 0.8 * e at unit length; (N, D) to (N, D)."""
    narrow = layers.relu(layers.linear(shared, "down", embeddings))
    adapted = layers.relu(layers.linear(shared, "up", narrow))
    return layers.unit_rows(ADAPTER_SHARE * adapted + (1 - ADAPTER_SHARE) * embeddings)


def loss(
    layers: Layers, shared: Tensors, private: Tensors, batch: Batch, settings: TrainingSettings
) -> Terms:
    """Return the cross entropy over the classes at the bundle's logit scale."""
    from fedmedclip.edge_client.learning.losses import classification_loss

    logits = batch.logit_scale * (adapt(layers, shared, batch.embeddings) @ batch.class_embeddings.T)
    return {"classification": classification_loss(logits, batch.labels, batch.weights, settings.focal_gamma)}


METHOD = TrainedMethod(
    name="clip-adapter",
    shared_arrays=shared_arrays,
    shared_pass=by_cosines(adapt),
    loss=loss,
    own_length=True,
)
