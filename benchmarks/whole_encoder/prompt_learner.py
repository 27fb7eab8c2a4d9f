"""PromptFL (Guo et al. 2023): sites learn the words before the classes' names, and average those.

The context is CoOp's (Zhou et al. 2022, "Learning to prompt for vision-language models"): vectors in the
place of word embeddings, the same for all classes, before the class's name. Encoders stay frozen, so images
are known by their embeddings; only the text tower runs, once for each batch.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from benchmarks.whole_encoder.learner import Arrays, Indices, Kept, Predicted, Turn, copied
from benchmarks.whole_encoder.text_graph import TextGraph
from fedmedclip.edge_client.features.text_encoder import TextEncoder
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.simulation.federation.feature_pool import FeaturePool

CONTEXT_VECTORS = 16
"""Guo et al. 2023 and CoOp's configs/trainers/CoOp/rn50.yaml with NCTX = 16, class-specific context off."""
DEVIATION = 0.02
"""Of the first context: KaiyangZhou/CoOp, trainers/coop.py, `nn.init.normal_(ctx_vectors, std=0.02)`."""
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.002, 0.9, 5e-4
"""SGD: KaiyangZhou/CoOp, configs/trainers/CoOp/rn50.yaml, and the defaults of its library Dassl."""
SETTINGS = (CONTEXT_VECTORS, DEVIATION, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY)
"""All that a result depends on beside data and seed."""
_PLACEHOLDER = "X"
_NAME = "context"


class PromptLearner:
    """Trains the context on the embeddings of a pool, through the text tower of the bundle that made them."""

    def __init__(
        self, bundle: Bundle, pool: FeaturePool, vectors: int = CONTEXT_VECTORS, device: str = "cpu"
    ) -> None:
        self._graph = TextGraph(bundle.text_encoder, device)
        self._tokens = torch.from_numpy(prompt_tokens(bundle, vectors)).to(device)
        self._vectors = vectors
        self._device = device
        self._embeddings = normalize(torch.from_numpy(pool.embeddings))
        tested = pool.global_test
        self._global_test = None if tested is None else normalize(torch.from_numpy(tested.embeddings))
        self._labels = torch.from_numpy(pool.labels)
        self._logit_scale = pool.logit_scale

    def initial(self, seed: int) -> Arrays:
        """Return a context drawn with this seed, float32 (vectors, width)."""
        generator = torch.Generator().manual_seed(derive_seed(seed, purpose="context"))
        drawn = DEVIATION * torch.randn(self._vectors, self._graph.width, generator=generator)
        return {_NAME: drawn.to(self._device)}

    def train(self, shared: Arrays, kept: Kept, turn: Turn) -> tuple[Arrays, Kept]:
        """Return the context after one local epoch of SGD, whose momentum stays at the site."""
        context = torch.nn.Parameter(shared[_NAME].clone())
        optimiser = torch.optim.SGD([context], LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY)
        if kept.optimiser:
            optimiser.load_state_dict(kept.optimiser)
        for rows in turn.batches():
            labels = self._labels[rows].to(self._device)
            cosines = self._embeddings[rows].to(self._device) @ self._classes(context).T
            loss = cross_entropy(self._logit_scale * cosines, labels)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return copied({_NAME: context}), Kept(optimiser.state_dict())

    def predict(self, shared: Arrays, images: Indices | None) -> Predicted:
        """Classify by the cosines with the prompts' embeddings."""
        embeddings = self._global_test if images is None else self._embeddings[torch.from_numpy(images)]
        assert embeddings is not None
        with torch.no_grad():
            found = embeddings.to(self._device) @ self._classes(shared[_NAME]).T
        return found.argmax(dim=1).cpu().numpy()

    def _classes(self, context: Tensor) -> Tensor:
        return self._graph.encode(self._tokens, context)


def prompt_tokens(bundle: Bundle, vectors: int) -> Indices:
    """Return the tokens int64 (C, length) of "X ... X NAME." for each class, with so many X.

    NAME is the class's, underscores as blanks, as CoOp writes it. Raises InvalidInputError where the tokens
    of X are not those after the first, or a name is too long to stand behind them; BundleError without a text
    tower.
    """
    names = [name.replace("_", " ") for name in bundle.manifest.class_names]
    with TextEncoder(bundle, threads=1) as encoder:
        bare = encoder.tokenize([f"{name}." for name in names])
        filled = encoder.tokenize([f"{' '.join([_PLACEHOLDER] * vectors)} {name}." for name in names])
    if (np.ptp(filled[:, 1 : 1 + vectors]) != 0) or (bare[:, 1] == filled[:, 1]).any():
        raise InvalidInputError(
            f"the tokenizer of {bundle.folder} does not make one token of {_PLACEHOLDER!r}; prompts can be "
            "learned with CLIP's own byte pairs"
        )
    for name, with_context, alone in zip(names, filled, bare, strict=True):
        rest = len(alone) - vectors
        if rest < 2 or (with_context[1 + vectors :] != alone[1:rest]).any() or alone[rest:].any():
            raise InvalidInputError(
                f"{vectors} context vectors and the name {name!r} are more than the {len(alone)} tokens that "
                f"the text tower of {bundle.folder} takes; give fewer vectors or shorter names"
            )
    return filled
