"""A CLIP's image encoder as a classifier whose classes are the embeddings of their prompts."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fedmedclip.protocol.bundle.bundle import Preprocessing


class ImageClassifier(torch.nn.Module):
    """uint8 images (B, 3, height, width) to unit embeddings (B, D), and to cosines (B, C) with the classes.

    `visual` is open_clip's image tower; `class_embeddings` float32 (C, D) are unit rows and stay as they are.
    """

    def __init__(
        self, visual: torch.nn.Module, preprocessing: Preprocessing, class_embeddings: Tensor
    ) -> None:
        super().__init__()
        # Convolutions of few channels are a fifth faster so on a CPU; the numbers are those of any layout.
        self.visual = visual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        of_channels = (preprocessing.mean, preprocessing.standard_deviation)
        mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in of_channels)
        self.mean: Tensor
        self.deviation: Tensor
        self.class_embeddings: Tensor
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", deviation, persistent=False)
        self.register_buffer("class_embeddings", class_embeddings, persistent=False)

    def embed(self, images: Tensor) -> Tensor:
        """Return unit embeddings float32 (B, D)."""
        pixels = (images.float() / 255 - self.mean) / self.deviation
        return normalize(self.visual(pixels.contiguous(memory_format=torch.channels_last)))

    def cosines(self, embeddings: Tensor) -> Tensor:
        """Return the cosines (B, C) of unit embeddings with the classes."""
        return embeddings @ self.class_embeddings.T

    def forward(self, images: Tensor) -> Tensor:
        """Return cosines (B, C) of images and classes."""
        return self.cosines(self.embed(images))
