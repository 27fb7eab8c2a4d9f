"""One round of local training: heads in, heads out. It sees embeddings only, never an image or encoder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edge_client.heads import private_head_specification
from edge_client.methods import load_method
from edge_client.methods.method import Batch
from edge_client.training_settings import TrainingSettings
from protocol.errors import HeadError, InvalidInputError
from protocol.head import HeadSpecification, NamedArrays
from protocol.shared_heads import shared_head_specification

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TrainedHeads:
    """What one round of local training gives.

    `loss` is the mean loss per image over the last epoch, `loss_terms` its named parts.
    """

    shared: NamedArrays
    private: NamedArrays
    loss: float
    loss_terms: dict[str, float]


def train_round(
    method: str,
    shared: NamedArrays,
    private: NamedArrays,
    embeddings: Floats,
    labels: npt.NDArray[np.int64],
    class_embeddings: Floats,
    logit_scale: float,
    settings: TrainingSettings,
    *,
    round_number: int,
    seed: int,
) -> TrainedHeads:
    """Train both heads on a site's embeddings for `settings.local_epochs`.

    `embeddings` float32 (N, D), `labels` int64 (N,) in [0, C), `class_embeddings` float32 (C, D) of unit
    rows, `logit_scale` the bundle's. `round_number` counts from 1 and sets the learning rates; `seed` is
    this site's and round's own and sets the order of the images. The optimiser starts afresh each round.
    The given arrays are not changed. Same input, same bits on the same machine.

    Raises InvalidInputError for data or a round number that cannot be trained on, HeadError for heads that do
    not match the method or when training diverges.
    """
    _check_data(embeddings, labels, class_embeddings)
    if round_number < 1:
        raise InvalidInputError(f"round {round_number} cannot be trained; rounds count from 1")
    parts = load_method(method)
    classes, embedding_size = class_embeddings.shape
    shared_specification = shared_head_specification(method, embedding_size)
    private_specification = private_head_specification(method, embedding_size, classes) or HeadSpecification(
        ()
    )
    with _fixed_threads(settings.threads):
        shared_head = _filled(parts.build_shared_head(embedding_size), shared, shared_specification)
        private_head = _filled(
            parts.build_private_head(embedding_size, classes), private, private_specification
        )
        optimizer = _optimizer(shared_head, private_head, settings, round_number)
        captions = torch.tensor(class_embeddings)
        order = np.random.Generator(np.random.Philox(seed))
        for _ in range(settings.local_epochs):
            sums: dict[str, float] = {}
            for indices in _batches(order.permutation(len(labels)), settings.batch_size):
                batch = Batch(
                    torch.from_numpy(embeddings[indices]),
                    torch.from_numpy(labels[indices]),
                    captions,
                    logit_scale,
                )
                terms = parts.loss(shared_head, private_head, batch, settings)
                optimizer.zero_grad()
                torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                for name, term in terms.items():
                    sums[name] = sums.get(name, 0.0) + term.item() * len(indices)
        _settle_batch_norm(shared_head, private_head, embeddings)
        terms_per_image = {name: total / len(labels) for name, total in sums.items()}
        return TrainedHeads(
            _arrays(shared_head, shared_specification),
            _arrays(private_head, private_specification),
            sum(terms_per_image.values()),
            terms_per_image,
        )


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


def _batches(order: npt.NDArray[np.int64], batch_size: int) -> Iterator[npt.NDArray[np.int64]]:
    """Cut `order` into batches; a last single image joins the batch before it.

    Batch norm has no variance over one image, and its image-text loss is 0. Joining uses every image in
    every epoch, where dropping would leave a small site's image out.
    """
    starts = list(range(0, len(order), batch_size))
    if len(starts) > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        yield order[start:end]


def _optimizer(
    shared: nn.Module, private: nn.Module, settings: TrainingSettings, round_number: int
) -> torch.optim.Optimizer:
    decay = settings.learning_rate_decay ** (round_number - 1)
    groups = [
        {"params": list(shared.parameters()), "lr": settings.shared_learning_rate * decay},
        {"params": list(private.parameters()), "lr": settings.private_learning_rate * decay},
    ]
    return torch.optim.AdamW(
        groups,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
    )


@torch.no_grad()
def _settle_batch_norm(shared: nn.Module, private: nn.Module, embeddings: Floats) -> None:
    """Set each batch norm's statistics to those of all training embeddings under the final weights.

    The usual running average starts at variance 1 and forgets a tenth per batch, while variances here start
    below about 1/(3 D): at a small site it takes several rounds to get there, and until then the private head
    answers with the largest class. One pass over cached embeddings costs less than any of that.
    """
    norms = [
        module
        for head in (shared, private)
        for module in head.modules()
        if isinstance(module, nn.BatchNorm1d)
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    private(shared(torch.tensor(embeddings)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _filled(module: nn.Module, arrays: NamedArrays, specification: HeadSpecification) -> nn.Module:
    """Return the module with copies of the arrays; from_numpy would warn of decoded ones, as read-only."""
    specification.check(arrays)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            tensor.copy_(torch.tensor(arrays[name]))
    return module.train()


def _arrays(module: nn.Module, specification: HeadSpecification) -> NamedArrays:
    arrays = {name: tensor.numpy().copy() for name, tensor in module.state_dict().items()}
    try:
        specification.check(arrays)
    except HeadError as error:
        raise HeadError(f"training diverged: {error}; lower the learning rates") from error
    return arrays


@contextmanager
def _fixed_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
