"""A patch-level map: MaskCLIP's value path (Zhou et al. 2022, "Extract Free Dense Labels from CLIP").

The attention that pools a CLIP's features is left out: each place's features go through its projections of
values and outputs alone, and become an embedding of that place, which the head classifies. Here for the
ResNets of CLIP, by PyTorch; the encoder of a bundle gives no such output.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.explanation.maps import MakeMap, Map, enlarged
from fedmedclip.edge_client.heads.layers import unit_rows
from fedmedclip.edge_client.inference.regions import Classify, Pixels, log_probability
from fedmedclip.export.model import LoadedModel

ClassifyEmbeddings = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""Embeddings float32 (N, D) to probabilities float32 (N, C)."""


def value_path(loaded: LoadedModel, classify_embeddings: ClassifyEmbeddings) -> MakeMap:
    """Return what makes the map of the answered class; `classify_embeddings` is the head's."""
    import torch

    visual: Any = loaded.network.visual.eval()
    mean, deviation = (
        torch.tensor(values).reshape(1, 3, 1, 1)
        for values in (loaded.preprocessing.mean, loaded.preprocessing.standard_deviation)
    )

    def make(classify: Classify, pixels: Pixels, number: int) -> Map:
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            features = visual.stem((image - mean) / deviation)
            for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
                features = layer(features)
            pool = visual.attnpool
            places = pool.c_proj(pool.v_proj(features.flatten(2).permute(0, 2, 1)[0]))
        label = int(classify(pixels[None])[0].argmax())
        found = log_probability(classify_embeddings(unit_rows(places.numpy())), label)
        return enlarged(found.reshape(features.shape[2:]), *pixels.shape[:2])

    return make
