"""A round's private release: how many noisy steps it takes for its terms, and what comes of them. No PyTorch
until a method needs it.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.learning.method import ClosedFormMethod, StatisticsMethod, trainable_method
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.privacy.accounting import (
    GaussianSteps,
    noise_of_count,
    noise_of_one_among,
    noise_of_steps,
)
from fedmedclip.edge_client.privacy.mechanism import epsilon_of
from fedmedclip.edge_client.privacy.noise import Noise
from fedmedclip.edge_client.privacy.units import ProtectedUnits, protected_units
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.protocol.messages import PrivacyTerms

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
LEAST_NUMBER = 1
"""What is told of a number of images at least, and before a noisy one was drawn."""


def steps_of_release(
    method: str, terms: PrivacyTerms, settings: TrainingSettings, *, told: bool
) -> tuple[GaussianSteps, ...]:
    """Return how an update is released: of gradients first the number of images, unless it is `told`.

    Raises InvalidInputError for a method that cannot train, for terms that leave nothing to train with, and
    where dp-accounting is needed and not installed.
    """
    if isinstance(trainable_method(method), ClosedFormMethod | StatisticsMethod):
        return (GaussianSteps(noise_of_one_among(terms.epsilon, terms.delta, terms.releases)),)
    rate, number = terms.sampling_rate, settings.steps_at(terms.sampling_rate)
    count = GaussianSteps(noise_of_count(terms.epsilon, terms.delta))
    multiplier = noise_of_steps(terms.epsilon, terms.delta, rate, number * terms.releases, (count,))
    steps = GaussianSteps(multiplier, rate, number)
    return (steps,) if told else (count, steps)


@dataclass(frozen=True)
class TrainingImages:
    """What a site trains on: embeddings (N, D), labels (N,), and `groups` (N,), equal for one patient's.

    Of the bundle: class embeddings (C, D), the logit scale, and embeddings (n, D) of its public reference
    set, if it has one.
    """

    embeddings: Floats
    labels: Indices
    groups: Indices
    class_embeddings: Floats
    logit_scale: float
    reference: Floats | None = None

    def units(self, terms: PrivacyTerms) -> ProtectedUnits:
        """Return which images count, and whose they are."""
        return protected_units(self.groups, terms.unit, terms.images_per_patient)


def count_of(units: ProtectedUnits, steps: GaussianSteps, noise: Noise) -> int:
    """Return the noisy number of images that count, by the first draw of `noise`."""
    drawn = units.most_images * steps.noise_multiplier * float(noise.standard_normal(1)[0])
    return max(LEAST_NUMBER, round(len(units.rows) + drawn))


def make_release(
    method: str,
    shared: NamedArrays,
    images: TrainingImages,
    terms: PrivacyTerms,
    settings: TrainingSettings,
    steps: tuple[GaussianSteps, ...],
    noise: Noise,
    *,
    round_number: int,
    told: int | None = None,
    target: Floats | None = None,
    threads: int = 1,
) -> tuple[NamedArrays, int]:
    """Return the private shared head of a round, and the number of images that is told with it.

    `steps` are those of `steps_of_release`, `told` is the number that was told before in this run; `shared`,
    `round_number` and `target` as of `train_round`. The same arguments and noise give the same bits. Raises
    InvalidInputError for a closed form without private statistics, HeadError when training diverges.
    """
    found, units = trainable_method(method), images.units(terms)
    embeddings, labels = found.taken(images.embeddings[units.rows]), images.labels[units.rows]
    if isinstance(found, ClosedFormMethod | StatisticsMethod):
        if found.private_statistics is None:
            raise InvalidInputError(f"method {method!r} has no private form of its statistics")
        alone = epsilon_of(steps[0].noise_multiplier, terms.delta)
        arrays, number = found.private_statistics(
            embeddings,
            labels,
            units.members,
            images.class_embeddings,
            images.logit_scale,
            msgspec.structs.replace(terms, epsilon=alone),
            images.reference,
            noise,
        )
        return arrays, max(LEAST_NUMBER, number)
    from fedmedclip.edge_client.learning.private_round import PrivateSteps, train_shared_privately

    if told is None:
        told = count_of(units, steps[0], noise)
    rate, multiplier = steps[-1].sampling_rate, steps[-1].noise_multiplier
    trained = train_shared_privately(
        found,
        shared,
        embeddings,
        labels,
        images.class_embeddings,
        images.logit_scale,
        settings,
        PrivateSteps(units.members, rate, terms.clip_norm, multiplier, told, noise),
        round_number=round_number,
        target=target,
        threads=threads,
    )
    return trained, told
