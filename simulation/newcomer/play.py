"""A federation played once, so that newcomers who send nothing can be trained beside it afterwards.

A site that the floors keep back trains its private head on each round's shared head and changes nothing for
the others. So one federation serves every number of labelled images that is below the floors, and the
newcomer's private head has the bits that it would have as a member from the first round on.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from fedmedclip.edge_client.learning.floors import LEAST_TO_TRAIN
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.simulation.federation.evaluation import Learning
from fedmedclip.simulation.federation.federation import Federation
from fedmedclip.simulation.federation.trainer import Trainer
from fedmedclip.simulation.federation.virtual_sites import VirtualSite


@dataclass(frozen=True)
class Played:
    """The shared heads of versions 0, 1, ... in their order, and each site's last private head."""

    shared: tuple[NamedArrays, ...]
    private: dict[str, NamedArrays]


def play_federation(
    trainer: Trainer, sites: Sequence[VirtualSite], folder: Path, on_round: Callable[[], None]
) -> Played:
    """Play all rounds of the trainer's plan with these sites; working state lies below `folder`.

    Raises InvalidInputError where the floors let none of the sites send.
    """
    with closing(Federation(trainer, folder)) as federation:
        shared = [federation.head]
        for number in range(1, trainer.plan.rounds + 1):
            federation.play_round(number, sites)
            shared.append(federation.head)
            on_round()
        return Played(tuple(shared), {site.name: federation.private_head(site.name) for site in sites})


def train_beside(
    trainer: Trainer, newcomer: VirtualSite, shared: Sequence[NamedArrays], on_round: Callable[[], None]
) -> NamedArrays:
    """Return the private head of a newcomer that sends nothing, after all rounds of a played federation.

    `shared` are that federation's heads from version 0 on. Empty with fewer than two images, on which nothing
    can be trained: the newcomer has the shared head alone.
    """
    if len(newcomer.train) < LEAST_TO_TRAIN:
        return {}
    private = trainer.initial_private(newcomer.name)
    for number, head in enumerate(shared[:-1], start=1):
        _, private = trainer.train(newcomer, head, private, number)
        on_round()
    return private


def play_alone(
    learning: Learning, site: VirtualSite, rounds: int, on_round: Callable[[], None]
) -> tuple[NamedArrays, NamedArrays]:
    """Return both heads of one site after all rounds."""
    for number in range(1, rounds + 1):
        learning.play_round(number, [site])
        on_round()
    shared = learning.shared_head(site.name)
    assert shared is not None
    return shared, learning.private_head(site.name)
