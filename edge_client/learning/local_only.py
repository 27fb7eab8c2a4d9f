"""The baseline of a site that federates nothing: FedMedCLIP's two heads, trained on its own images alone."""

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.learning.private_state import head_of, initial_private_state
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.learning.training import TrainedHeads, train_round
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.protocol.heads.shared_heads import initial_shared_head
from fedmedclip.protocol.seeds import derive_seed

METHOD = "fedmedclip"


def train_alone(
    embeddings: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    class_embeddings: npt.NDArray[np.float32],
    logit_scale: float,
    settings: TrainingSettings,
    *,
    rounds: int,
    seed: int,
    site: str,
) -> tuple[NamedArrays, NamedArrays]:
    """Return shared and private head after as many rounds as a federation would have, from the same start.

    Arguments as of `train_round`; predict with the method `METHOD`. It draws what the site would draw in a
    federation of that seed.
    """
    classes, size = class_embeddings.shape
    heads = TrainedHeads(
        initial_shared_head(METHOD, size, seed),
        initial_private_state(METHOD, size, classes, settings, seed, site),
        0.0,
        {},
    )
    for number in range(1, rounds + 1):
        heads = train_round(
            METHOD,
            heads.shared,
            heads.private,
            embeddings,
            labels,
            class_embeddings,
            logit_scale,
            settings,
            round_number=number,
            seed=derive_seed(seed, site=site, round_number=number, purpose="training"),
        )
    return heads.shared, head_of(heads.private)
