"""Batch norm's running statistics at the end of a round."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedmedclip.edge_client.heads.method import SiteMethod
from fedmedclip.edge_client.learning.layers import TorchLayers
from fedmedclip.edge_client.learning.method import Tensors

_MEAN, _VARIANCE = ".running_mean", ".running_var"


@torch.no_grad()
def settle(
    method: SiteMethod,
    shared: Tensors,
    private: Tensors,
    embeddings: Tensor,
    class_embeddings: Tensor,
    common: Mapping[str, npt.NDArray[np.float32]] | None,
) -> None:
    """Set each batch norm's statistics to those of all training embeddings (N, D) under the final weights.

    The usual running average starts at variance 1 and forgets a tenth per batch, while variances here start
    below about 1/(3 D): at a small site it takes several rounds to get there, and until then the private head
    answers with the largest class. One pass over cached embeddings costs less than any of that. A private
    head that does not classify has no such pass, and keeps its running averages.

    The shared head's statistics are averaged over the sites, weighted as its weights are. The mean of the
    sites' variances would leave out how far their means lie apart, so each site gives its variance about the
    `common` mean that the round began with (None in the first, when there is none yet): as that mean settles,
    the weighted mean becomes the variance of all sites' images together.
    """
    layers = TorchLayers(momentum=1.0)
    features, _ = method.shared_pass(layers, shared, embeddings, class_embeddings, 1.0)
    if method.private_pass is not None:
        method.private_pass(layers, private, features)
    if common is not None:
        for mean in (name for name in shared if name.endswith(_MEAN)):
            variance = shared[mean.removesuffix(_MEAN) + _VARIANCE]
            variance += (shared[mean] - torch.tensor(common[mean])) ** 2
