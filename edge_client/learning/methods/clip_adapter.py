"""CLIP-Adapter, federated: a narrow residual head whose output is blended into the embedding.

Source: Gao et al., "CLIP-Adapter: Better Vision-Language Models with Feature Adapters" (IJCV 2024,
arXiv:2110.04544): its visual adapter with residual ratio 0.2 and the classes' text embeddings as classifier.
Departure: its linear layers have biases here.
"""

from torch import Tensor, nn
from torch.nn.functional import normalize, relu

from fedmedclip.edge_client.heads.forward_passes import ADAPTER_SHARE
from fedmedclip.edge_client.learning.methods.layers import no_private_head
from fedmedclip.edge_client.learning.methods.losses import classification_loss
from fedmedclip.edge_client.learning.methods.method import Batch, Method
from fedmedclip.edge_client.learning.settings import TrainingSettings


class ResidualAdapter(nn.Module):
    """0.2 * relu(up(relu(down(e)))) + 0.8 * e at unit length; (B, D) to (B, D)."""

    def __init__(self, embedding_size: int) -> None:
        super().__init__()
        narrow = max(1, embedding_size // 4)
        self.down = nn.Linear(embedding_size, narrow)
        self.up = nn.Linear(narrow, embedding_size)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the adapted unit features (B, D)."""
        adapted = relu(self.up(relu(self.down(embeddings))))
        return normalize(ADAPTER_SHARE * adapted + (1 - ADAPTER_SHARE) * embeddings, dim=1)


def loss(
    shared: nn.Module, private: nn.Module, batch: Batch, settings: TrainingSettings
) -> dict[str, Tensor]:
    """Return the cross entropy over the classes at the bundle's logit scale."""
    logits = batch.logit_scale * (shared(batch.embeddings) @ batch.class_embeddings.T)
    return {"classification": classification_loss(logits, batch.labels, batch.weights, settings.focal_gamma)}


METHOD = Method("clip-adapter", lambda size, classes: ResidualAdapter(size), no_private_head, loss)
