"""Batch norm's running statistics at the end of a round."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn


@torch.no_grad()
def settle(
    shared: nn.Module,
    classifier: nn.Module | None,
    embeddings: Tensor,
    common: Mapping[str, npt.NDArray[np.float32]] | None,
) -> None:
    """Set each batch norm's statistics to those of all training embeddings (N, D) under the final weights.

    The usual running average starts at variance 1 and forgets a tenth per batch, while variances here start
    below about 1/(3 D): at a small site it takes several rounds to get there, and until then the private head
    answers with the largest class. One pass over cached embeddings costs less than any of that.

    The shared head's statistics are averaged over the sites, weighted as its weights are. The mean of the
    sites' variances would leave out how far their means lie apart, so each site gives its variance about the
    `common` mean that the round began with (None in the first, when there is none yet): as that mean settles,
    the weighted mean becomes the variance of all sites' images together.
    """
    norms = _norms(shared) | (_norms(classifier) if classifier is not None else {})
    momenta = {norm: norm.momentum for norm in norms}
    for norm in norms:
        norm.momentum = 1.0
    features = shared(embeddings)
    if classifier is not None:
        classifier(features)
    for norm, momentum in momenta.items():
        norm.momentum = momentum
    if common is not None:
        for norm, name in _norms(shared).items():
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_var += (norm.running_mean - torch.tensor(common[f"{name}.running_mean"])) ** 2


def _norms(module: nn.Module) -> dict[nn.BatchNorm1d, str]:
    return {part: name for name, part in module.named_modules() if isinstance(part, nn.BatchNorm1d)}
