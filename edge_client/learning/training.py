"""One round of local training: heads in, heads out. It sees embeddings only, never an image or encoder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fedmedclip.edge_client.heads.heads import predict_probabilities
from fedmedclip.edge_client.learning.layers import TorchLayers
from fedmedclip.edge_client.learning.local_steps import class_weights, epochs
from fedmedclip.edge_client.learning.method import (
    Batch,
    ClosedFormMethod,
    StatisticsMethod,
    TrainedMethod,
    trainable_method,
)
from fedmedclip.edge_client.learning.optimizers import memory_of, new_optimizer, restore, weights_of
from fedmedclip.edge_client.learning.own_images import OwnImages
from fedmedclip.edge_client.learning.private_state import (
    head_of,
    head_specification_of,
    private_state_specification,
)
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.learning.settled_norms import settle
from fedmedclip.protocol.errors import HeadError, InvalidInputError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.heads.shared_heads import shared_head_specification

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

_LAYERS = TorchLayers()


@dataclass(frozen=True)
class TrainedHeads:
    """What one round of local training gives; `private` is all that the site keeps for the next.

    `loss` is the mean loss per image over the last epoch, `loss_terms` its named parts.
    """

    shared: NamedArrays
    private: NamedArrays
    loss: float
    loss_terms: dict[str, float]


@dataclass
class _Training:
    """A site's data and heads in the middle of a round; `start` are the shared weights it began with."""

    method: TrainedMethod
    shared: dict[str, torch.Tensor]
    private: dict[str, torch.Tensor]
    embeddings: torch.Tensor
    labels: torch.Tensor
    captions: torch.Tensor
    logit_scale: float
    settings: TrainingSettings
    optimizer: torch.optim.Optimizer
    weights: torch.Tensor | None
    target: torch.Tensor | None
    target_order: np.random.Generator
    start: list[torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.start = [weight.detach().clone() for weight in weights_of(self.shared)]

    def epoch(self, batches: list[npt.NDArray[np.int64]]) -> dict[str, float]:
        """Take one step per batch; return the mean of each term per image."""
        sums: dict[str, float] = {}
        for indices in batches:
            terms = self._step(torch.from_numpy(indices))
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + term * len(indices)
        images = sum(map(len, batches))
        return {name: total / images for name, total in sums.items()}

    def _step(self, indices: torch.Tensor) -> dict[str, float]:
        batch = Batch(
            self.embeddings[indices],
            self.labels[indices],
            self.captions,
            self.logit_scale,
            None if self.weights is None else self.weights[indices],
            self._target(len(indices)),
        )
        terms = self.method.loss(_LAYERS, self.shared, self.private, batch, self.settings)
        if self.settings.proximal_weight > 0:
            terms["proximal"] = self.settings.proximal_weight / 2 * self._squared_distance()
        self.optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        if self.settings.gradient_clip > 0:
            weights = [*weights_of(self.shared), *weights_of(self.private)]
            nn.utils.clip_grad_norm_(weights, self.settings.gradient_clip)
        self.optimizer.step()
        return {name: term.item() for name, term in terms.items()}

    def _target(self, number: int) -> torch.Tensor | None:
        if self.target is None:
            return None
        number = min(number, len(self.target))
        return self.target[self.target_order.choice(len(self.target), number, replace=False)]

    def _squared_distance(self) -> torch.Tensor:
        weights = zip(weights_of(self.shared), self.start, strict=True)
        return torch.stack([(weight - before).pow(2).sum() for weight, before in weights]).sum()


def train_round(
    method: str,
    shared: NamedArrays,
    private: NamedArrays,
    embeddings: Floats,
    labels: Labels,
    class_embeddings: Floats,
    logit_scale: float,
    settings: TrainingSettings,
    *,
    round_number: int,
    seed: int,
    validation: tuple[Floats, Labels] | None = None,
    target: Floats | None = None,
    groups: Labels | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> TrainedHeads:
    """Train both heads on a site's embeddings for the epochs or steps of `settings`.

    `embeddings` float32 (N, D), `labels` int64 (N,) in [0, C), `class_embeddings` float32 (C, D) of unit
    rows, `logit_scale` the bundle's. `round_number` counts from 1 and sets the learning rates; `seed` is
    this site's and round's own and sets the order of the images. `validation` (embeddings, labels) is for
    early stopping, `target` float32 (T, D) what facmic and faa-clip adapt to, `groups` int64 (N,) says which
    images are of one patient or look alike. `private` is the private head; with `keep_optimizer_state` the
    optimiser's memory stands beside it (see `private_state`), otherwise the optimiser starts afresh. The
    given arrays are not changed. Same input, same bits on the same machine, if with as many `threads`: sums
    in another order have other last bits. `progress(done, total)` counts epochs, or the steps where
    `settings` counts those.

    Raises InvalidInputError for data or a round number that cannot be trained on, HeadError for heads that do
    not match the method or when training diverges.
    """
    _check_data(embeddings, labels, class_embeddings)
    if round_number < 1:
        raise InvalidInputError(f"round {round_number} cannot be trained; rounds count from 1")
    found = trainable_method(method)
    embeddings = found.taken(embeddings)
    classes, size = class_embeddings.shape
    shared_specification = shared_head_specification(method, size, classes)
    state_specification = private_state_specification(method, size, classes, settings)
    private_specification = head_specification_of(state_specification)
    if isinstance(found, StatisticsMethod):
        shared_specification.check(shared)
        images = OwnImages.of(embeddings, labels, groups)
        said = found.statistics(shared, images, class_embeddings, logit_scale, seed)
        return TrainedHeads(said, private, 0.0, {})
    if isinstance(found, ClosedFormMethod):
        shared_specification.check(shared)
        fitted_shared, fitted_private, loss = found.fit(
            shared, embeddings, labels, class_embeddings, logit_scale, seed
        )
        return TrainedHeads(fitted_shared, fitted_private, loss, {"left_out": loss})
    with fixed_threads(threads):
        shared_head = tensors_of(shared, shared_specification)
        state_specification.check(private)
        private_head = tensors_of(head_of(private), private_specification)
        optimizer = new_optimizer(shared_head, private_head, settings, round_number)
        if settings.keep_optimizer_state:
            restore(optimizer, shared_head, private_head, private)
        training = _Training(
            found,
            shared_head,
            private_head,
            torch.tensor(embeddings),
            torch.tensor(labels),
            torch.tensor(class_embeddings),
            logit_scale,
            settings,
            optimizer,
            torch.from_numpy(class_weights(labels)) if settings.class_balanced else None,
            None if target is None else torch.tensor(target),
            np.random.Generator(np.random.Philox(key=[seed, 1])),
        )
        common_means = shared if round_number > 1 else None

        def finished(terms: dict[str, float]) -> TrainedHeads:
            settle(found, shared_head, private_head, training.embeddings, training.captions, common_means)
            kept = arrays_of(private_head, private_specification)
            if settings.keep_optimizer_state:
                kept |= memory_of(optimizer, shared_head, private_head)
            return TrainedHeads(
                arrays_of(shared_head, shared_specification),
                kept,
                sum(terms.values()),
                terms,
            )

        def unlikelihood(heads: TrainedHeads, held_out: tuple[Floats, Labels]) -> float:
            probabilities = predict_probabilities(
                method, heads.shared, heads.private, found.taken(held_out[0]), class_embeddings, logit_scale
            ).ensemble
            return float(-np.log(probabilities[np.arange(len(held_out[1])), held_out[1]] + 1e-12).mean())

        order = np.random.Generator(np.random.Philox(seed))
        terms: dict[str, float] = {}
        best: TrainedHeads | None = None
        lowest, epochs_since, done = np.inf, 0, 0
        for batches in epochs(
            order,
            len(labels),
            settings.batch_size,
            settings.local_epochs,
            settings.local_steps,
            settings.drop_last,
        ):
            terms = training.epoch(batches)
            done += len(batches) if settings.local_steps else 1
            if progress:
                progress(done, settings.local_steps or settings.local_epochs)
            if settings.early_stopping_patience == 0 or validation is None or len(validation[1]) == 0:
                continue
            heads = finished(terms)
            loss = unlikelihood(heads, validation)
            if loss < lowest:
                best, lowest, epochs_since = heads, loss, 0
            else:
                epochs_since += 1
            if epochs_since >= settings.early_stopping_patience:
                break
        return best or finished(terms)


def _check_data(embeddings: Floats, labels: npt.NDArray[np.int64], class_embeddings: Floats) -> None:
    if embeddings.ndim != 2 or embeddings.shape[1] != class_embeddings.shape[1]:
        raise InvalidInputError(
            f"embeddings are {embeddings.shape}, expected (images, {class_embeddings.shape[1]}); "
            "were they computed with this bundle?"
        )
    if len(embeddings) < 2 or len(embeddings) != len(labels):
        raise InvalidInputError(
            f"training needs at least 2 labelled images, there are {len(embeddings)} embeddings "
            f"and {len(labels)} labels"
        )
    if labels.min() < 0 or labels.max() >= len(class_embeddings):
        raise InvalidInputError(
            f"labels run from {labels.min()} to {labels.max()}, "
            f"the bundle has {len(class_embeddings)} classes"
        )
    if not np.isfinite(embeddings).all():
        raise InvalidInputError("an embedding has a NaN or infinite value; compute the features again")


def tensors_of(arrays: NamedArrays, specification: HeadSpecification) -> dict[str, torch.Tensor]:
    """Return copies of the arrays, in the specification's order; from_numpy would warn of decoded ones."""
    specification.check(arrays)
    return {
        tensor.name: torch.tensor(arrays[tensor.name]).requires_grad_(not tensor.measured)
        for tensor in specification.tensors
    }


def arrays_of(head: dict[str, torch.Tensor], specification: HeadSpecification) -> NamedArrays:
    """Return copies of the arrays; HeadError when they are not finite."""
    arrays = {name: tensor.detach().numpy().copy() for name, tensor in head.items()}
    try:
        specification.check(arrays)
    except HeadError as error:
        raise HeadError(f"training diverged: {error}; lower the learning rates") from error
    return arrays


@contextmanager
def fixed_threads(threads: int) -> Iterator[None]:
    """Let torch compute with so many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
