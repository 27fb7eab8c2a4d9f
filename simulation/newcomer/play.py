"""A federation played once, so that newcomers who send nothing can be trained beside it afterwards.

A site that the floors keep back trains its private head on each round's shared head and changes nothing for
the others. So one federation serves every number of labelled images that is below the floors, and the
newcomer's private head has the bits that it would have as a member from the first round on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedmedclip.edge_client.learning.floors import LEAST_TO_TRAIN
from fedmedclip.edge_client.learning.private_state import head_of
from fedmedclip.edge_client.learning.version_head import adapts_to_versions
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.simulation.federation.engine import ExperimentRun
from fedmedclip.simulation.federation.trainer import Trainer
from fedmedclip.simulation.federation.virtual_sites import Indices, VirtualSite


@dataclass(frozen=True)
class Played:
    """The shared heads of versions 0, 1, ... in their order, and each site's last private head."""

    shared: tuple[NamedArrays, ...]
    private: dict[str, NamedArrays]


def play_whole(run: ExperimentRun, on_round: Callable[[], None]) -> Played:
    """Play all rounds. The shared heads are those of the first site, which in a federation are everybody's.

    Raises as `ExperimentRun.play` does.
    """
    shared: list[NamedArrays] = []
    first = run.sites.sites[0].name

    def keep() -> None:
        head = run.learning.shared_head(first)
        assert head is not None
        shared.append(head)

    keep()
    run.play(keep, on_round)
    return Played(
        tuple(shared), {site.name: run.learning.private_head(site.name) for site in run.sites.sites}
    )


def train_beside(
    trainer: Trainer,
    newcomer: VirtualSite,
    shared: Sequence[NamedArrays],
    on_round: Callable[[], None],
    unlabelled: Indices | None = None,
) -> NamedArrays:
    """Return the private head of a newcomer that sends nothing, after all rounds of a played federation.

    `shared` are that federation's heads from version 0 on. A method that makes its private head of a version
    makes it of the last one and of the newcomer's images, with those that it has beside them, `unlabelled`.
    Otherwise empty with fewer than two images, on which nothing can be trained: the newcomer has the shared
    head alone.
    """
    if adapts_to_versions(trainer.plan.method):
        return trainer.own_head(newcomer, shared[-1], unlabelled)
    if len(newcomer.train) < LEAST_TO_TRAIN:
        return {}
    private = trainer.initial_private(newcomer.name)
    for number, head in enumerate(shared[:-1], start=1):
        _, private = trainer.train(newcomer, head, private, number)
        on_round()
    return head_of(private)
