"""A federated linear probe: one linear layer on the embeddings, without the classes' text embeddings."""

from fedmedclip.edge_client.heads.method import Head, Layers, Rows
from fedmedclip.edge_client.learning.method import Batch, Tensors, Terms, TrainedMethod
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification


def shared_arrays(size: int, classes: int) -> HeadSpecification:
    """One linear layer of D to the classes, from zero: version 0 knows nothing."""
    return HeadSpecification(
        (
            TensorSpecification("classifier.weight", (classes, size)),
            TensorSpecification("classifier.bias", (classes,)),
        )
    )


def shared_pass(
    layers: Layers, shared: Head, embeddings: Rows, class_embeddings: Rows, logit_scale: float
) -> tuple[Rows, Rows]:
    """Embeddings (N, D) to scores (N, C), which the logit scale multiplies as it does cosines."""
    return embeddings, logit_scale * layers.linear(shared, "classifier", embeddings)


def loss(
    layers: Layers, shared: Tensors, private: Tensors, batch: Batch, settings: TrainingSettings
) -> Terms:
    """Return the cross entropy over the classes."""
    from fedmedclip.edge_client.learning.losses import classification_loss

    _, logits = shared_pass(layers, shared, batch.embeddings, batch.class_embeddings, batch.logit_scale)
    return {"classification": classification_loss(logits, batch.labels, batch.weights, settings.focal_gamma)}


METHOD = TrainedMethod(
    name="linear-probe", shared_arrays=shared_arrays, shared_pass=shared_pass, loss=loss, needs_classes=True
)
