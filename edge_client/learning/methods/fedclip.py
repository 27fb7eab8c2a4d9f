"""FedCLIP: a shared attention head of two linear layers with tanh between them.

Source: Lu et al., "FedCLIP: Fast Generalization and Personalization for CLIP in Federated Learning" (IEEE
Data Engineering Bulletin 2023, arXiv:2302.13485).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softmax

from fedmedclip.edge_client.learning.methods.layers import no_private_head
from fedmedclip.edge_client.learning.methods.losses import image_text_loss
from fedmedclip.edge_client.learning.methods.method import Batch, Method
from fedmedclip.edge_client.learning.settings import TrainingSettings


class TanhAttention(nn.Module):
    """a = softmax(second(tanh(first(e)))), adapted = a * e at unit length; (B, D) to (B, D)."""

    def __init__(self, embedding_size: int) -> None:
        super().__init__()
        self.first = nn.Linear(embedding_size, embedding_size)
        self.second = nn.Linear(embedding_size, embedding_size)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the adapted unit features (B, D)."""
        attention = softmax(self.second(torch.tanh(self.first(embeddings))), dim=1)
        return normalize(attention * embeddings, dim=1)


def loss(
    shared: nn.Module, private: nn.Module, batch: Batch, settings: TrainingSettings
) -> dict[str, Tensor]:
    """Return the contrastive term; the same for every head whose classes are told by cosines."""
    cosines = shared(batch.embeddings) @ batch.class_embeddings.T
    image_text = image_text_loss(
        cosines, batch.labels, batch.logit_scale, batch.weights, settings.focal_gamma
    )
    return {"image_text": image_text}


METHOD = Method("fedclip", lambda size, classes: TanhAttention(size), no_private_head, loss)
