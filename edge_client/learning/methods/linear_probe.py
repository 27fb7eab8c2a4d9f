"""A federated linear probe: one linear layer on the embeddings, without the classes' text embeddings."""

from torch import Tensor, nn

from fedmedclip.edge_client.learning.methods.layers import no_private_head
from fedmedclip.edge_client.learning.methods.losses import classification_loss
from fedmedclip.edge_client.learning.methods.method import Batch, Method
from fedmedclip.edge_client.learning.settings import TrainingSettings


class LinearProbe(nn.Module):
    """Embeddings (B, D) to scores (B, C), which the logit scale multiplies as it does cosines."""

    def __init__(self, embedding_size: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(embedding_size, classes)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the scores."""
        scores: Tensor = self.classifier(embeddings)
        return scores


def loss(
    shared: nn.Module, private: nn.Module, batch: Batch, settings: TrainingSettings
) -> dict[str, Tensor]:
    """Return the cross entropy over the classes."""
    logits = batch.logit_scale * shared(batch.embeddings)
    return {"classification": classification_loss(logits, batch.labels, batch.weights, settings.focal_gamma)}


METHOD = Method("linear-probe", LinearProbe, no_private_head, loss)
