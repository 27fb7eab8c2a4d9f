"""What a site must know of a method to classify with its heads: private arrays, forward passes, and the vote.

A forward pass is written once. It asks for layers by name, and `Layers` are numpy's in inference
(`edge_client.heads.layers`) and torch's in training (`edge_client.learning.layers`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.ensemble import ENTROPY, EnsembleRule
from fedmedclip.edge_client.heads.layers import are_unit_rows, unit_rows
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.methods import Arrays, Method, method_named

Rows = Any
"""float32 rows, an array of numpy or a tensor of torch."""
Head = Mapping[str, Rows]
"""A head's arrays by name."""


class Layers(Protocol):
    """What heads are made of. A layer with arrays of its own finds them in `head`, as `name.weight` etc.

    The arrays of `linear`, `masked_linear` and `batch_norm` are those of `protocol.heads.layers`; the other
    layers have none. All take rows (N, inputs); `softmax` and `layer_norm` act on each row.
    """

    def linear(self, head: Any, name: str, x: Any, /) -> Any: ...
    def masked_linear(self, head: Any, name: str, x: Any, /) -> Any: ...
    def batch_norm(self, head: Any, name: str, x: Any, /) -> Any: ...
    def layer_norm(self, x: Any, /) -> Any: ...
    def relu(self, x: Any, /) -> Any: ...
    def leaky_relu(self, x: Any, /) -> Any: ...
    def tanh(self, x: Any, /) -> Any: ...
    def softmax(self, x: Any, /) -> Any: ...
    def unit_rows(self, x: Any, /) -> Any: ...


SharedPass = Callable[[Layers, Head, Rows, Rows, float], tuple[Rows, Rows]]
"""(layers, shared head, embeddings (N, D), class embeddings (C, D), logit scale)
to features and logits (N, C)."""
PrivatePass = Callable[[Layers, Head, Rows], Rows]
"""(layers, private head, features of the shared pass) to logits (N, C)."""


@dataclass(frozen=True, kw_only=True)
class SiteMethod(Method):
    """A method as sites know it; how it trains is in the classes of `edge_client.learning.method`.

    `private_arrays(D, C)` are what a site keeps between rounds, None when there is nothing; they may serve
    training only, such as FAA-CLIP's discriminator. With a `private_pass` the private head classifies, and
    the heads vote by `ensemble`. `adapts`: training uses a reference set of the domain to adapt to.
    `own_length`: embeddings that a bundle leaves at the model's own length reach the heads like that, as in
    the papers; otherwise they are scaled to unit length first.
    """

    shared_pass: SharedPass
    private_arrays: Arrays | None = None
    private_pass: PrivatePass | None = None
    ensemble: EnsembleRule = ENTROPY
    adapts: bool = False
    own_length: bool = False

    def taken(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return embeddings float32 (N, D) as the heads take them; unit rows keep their bits."""
        return embeddings if self.own_length or are_unit_rows(embeddings) else unit_rows(embeddings)


def site_method(name: str) -> SiteMethod:
    """Return a method; InvalidInputError when there is none, or it says too little for a site."""
    method = method_named(name)
    if not isinstance(method, SiteMethod):
        raise InvalidInputError(
            f"method {name!r} says what the aggregator must know, but not how a site trains and classifies; "
            "its author must make it a TrainedMethod, ClosedFormMethod or StatisticsMethod"
        )
    return method


def by_cosines(adapt: Callable[[Layers, Head, Rows], Rows]) -> SharedPass:
    """Return the pass of a shared head whose classes are told by cosines.

    `adapt(layers, shared head, embeddings)` gives adapted unit features (N, D); class c has the logit
    logit scale * feature . class embedding c.
    """

    def shared_pass(
        layers: Layers, shared: Head, embeddings: Rows, class_embeddings: Rows, logit_scale: float
    ) -> tuple[Rows, Rows]:
        features = adapt(layers, shared, embeddings)
        return features, logit_scale * (features @ class_embeddings.T)

    return shared_pass
