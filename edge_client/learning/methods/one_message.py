"""One message: statistics that a site owes its federation once, and answers that each site fits to itself.

Shared, pooled exactly by a weighted mean: what the images of each class have in common, and how they vary
within it (`edge_client.heads.gaussians`); and what Gaussians of it and zero-shot are worth, on folds of each
site's own images (`edge_client.learning.own_folds`). One round is enough: later ones carry what a codec left
out, and new images. Under `[privacy]` it is one release (`edge_client.learning.private_message`).

Private, made anew from every version and the site's own images, labelled or not:
`edge_client.learning.own_head`.

The numbers of the modules named are conventions tried on the hospitals of the brain MRI and of the phantoms,
each left out in turn.
"""

from collections.abc import Mapping

import numpy as np

from fedmedclip.edge_client.heads.ensemble import EnsembleRule
from fedmedclip.edge_client.heads.gaussians import Floats, gaussians_of
from fedmedclip.edge_client.heads.method import Layers
from fedmedclip.edge_client.heads.scanner_offset import unadapted
from fedmedclip.edge_client.heads.whitening import statistics
from fedmedclip.edge_client.learning.evidence import marks_array, marks_of
from fedmedclip.edge_client.learning.method import StatisticsMethod
from fedmedclip.edge_client.learning.own_folds import evidence_array, evidence_of, mixing_by
from fedmedclip.edge_client.learning.own_head import ALONE, adapt, private_arrays, private_pass
from fedmedclip.edge_client.learning.own_images import OwnImages
from fedmedclip.edge_client.learning.private_message import private_statistics
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays, TensorSpecification


def shared_arrays(size: int, classes: int) -> HeadSpecification:
    """Sufficient statistics of the sites' embeddings, as means per image, and evidence on them."""
    return HeadSpecification(
        (
            TensorSpecification("class_shares", (classes,)),
            TensorSpecification("spread", (1,)),
            marks_array(),
            evidence_array(),
            TensorSpecification("class_sums", (classes, size)),
            TensorSpecification("scatter", (size, size), symmetric=True),
        )
    )


def shared_pass(
    layers: Layers, shared: Mapping[str, Floats], embeddings: Floats, class_embeddings: Floats, scale: float
) -> tuple[Floats, Floats]:
    """Return the embeddings (N, D) as they are, for the private head, and the federation's logits (N, C)."""
    gaussians = gaussians_of(dict(shared))
    mixing = ALONE if gaussians is None else mixing_by(shared, len(class_embeddings))[0]
    head = unadapted(gaussians, mixing, scale * class_embeddings.astype(np.float64))
    directions, weights = (part.astype(np.float32) for part in (head.directions, head.weights))
    logits = embeddings @ directions.T + embeddings @ weights.T + head.biases.astype(np.float32)
    return embeddings, logits


def shared_statistics(
    shared: NamedArrays, images: OwnImages, class_embeddings: Floats, scale: float, seed: int
) -> NamedArrays:
    """Return what a site's labelled images say; where they are too few for evidence, what there is of it."""
    own = images.chosen(images.labelled)
    found = statistics(own.embeddings, own.labels, len(class_embeddings))
    zero_shot = scale * class_embeddings.astype(np.float64)
    evidence = evidence_of(own.embeddings, own.labels, own.groups, zero_shot, seed)
    return found | {
        "marks": marks_of(own.embeddings, own.labels),
        "evidence": shared["evidence"].copy() if evidence is None else evidence,
    }


METHOD = StatisticsMethod(
    name="one-message",
    shared_arrays=shared_arrays,
    private_arrays=private_arrays,
    shared_pass=shared_pass,
    private_pass=private_pass,
    statistics=shared_statistics,
    adapt=adapt,
    private_statistics=private_statistics,
    ensemble=EnsembleRule("calibrated", 1.0),
    needs_classes=True,
    rounds_needed=1,
    usual_codec="moments",
    constants_chosen_on=("brain_tumor", "phantoms"),
)
