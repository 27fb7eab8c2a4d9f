"""From embeddings to probabilities, with a bundle and, where there are some, a site's heads."""

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.ensemble import softmax
from fedmedclip.edge_client.heads.heads import Predictions, predict_probabilities
from fedmedclip.edge_client.heads.heads_file import Heads
from fedmedclip.edge_client.heads.layers import unit_rows
from fedmedclip.edge_client.heads.method import site_method
from fedmedclip.protocol.bundle.bundle import Bundle


def predict(heads: Heads, bundle: Bundle, embeddings: npt.NDArray[np.float32]) -> Predictions:
    """Classify embeddings, float32 (N, D) as the bundle's encoder gives them, with a site's heads."""
    # By what the manifest says, not by looking at values: deployment records these steps without any.
    if bundle.manifest.own_length is True and not site_method(heads.method).own_length:
        embeddings = unit_rows(embeddings)
    return predict_probabilities(
        heads.method,
        heads.shared,
        heads.private,
        embeddings,
        bundle.class_embeddings,
        bundle.manifest.logit_scale,
        heads.ensemble,
    )


def answer(
    heads: Heads | None, bundle: Bundle, embeddings: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return what counts as the answer, float32 (N, C), and the private head's share in it, float32 (N,).

    That is the ensemble's; zero-shot's without heads, or where their site found that better.
    """
    if heads is None or heads.zero_shot_answers:
        return zero_shot(bundle, embeddings), np.zeros(len(embeddings), np.float32)
    found = predict(heads, bundle, embeddings)
    return found.ensemble, found.ensemble_weight


def zero_shot(bundle: Bundle, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return CLIP's own probabilities, float32 (N, C), without any head."""
    return softmax(bundle.manifest.logit_scale * (unit_rows(embeddings) @ bundle.class_embeddings.T))
