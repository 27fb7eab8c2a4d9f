"""A one-shot federation: members send once, the server makes a classifier, whoever wants it has it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np

from benchmarks.one_shot.budget import settings_within
from benchmarks.one_shot.linear import Doubles, Linear
from benchmarks.one_shot.peer import Peer
from benchmarks.one_shot.transmission import Sent, Setting, random_directions, send
from fedmedclip.edge_client.heads.layers import unit_rows
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.folder import GLOBAL_TEST
from fedmedclip.simulation.federation.virtual_sites import Indices, VirtualSite
from fedmedclip.simulation.newcomer.labels import Labels
from fedmedclip.simulation.newcomer.study import Case, Study, everyone_takes_part

CONSTANT = "; constant "


class Answered(NamedTuple):
    """The class that each test image is called by, the largest uplink of a site, and how it was sent."""

    answers: list[int]
    uplink_bytes: int
    sent_as: str


@dataclass(frozen=True)
class _Federation:
    """The server's classifier, the largest message of a site, and how it was sent."""

    classifier: Linear
    uplink_bytes: int
    words: str


@dataclass
class OneShot:
    """Plays a `peer` in the study's federations, its messages within `budget` bytes (None: float32)."""

    study: Study
    peer: Peer
    budget: int | None
    _kept: dict[tuple[int, str | None, Labels, bool], _Federation] = field(default_factory=dict)

    def run(self, case: Case) -> Answered:
        """Answer the case's test images.

        A newcomer with labelled images joins as one more member: it sends its statistics as the others do.
        """
        everyone = everyone_takes_part(case)
        member = everyone and case.site != GLOBAL_TEST
        key = case.seed, *((None, "all") if everyone else (case.site, case.labels)), member
        if key not in self._kept:
            self._kept[key] = self._federation(self.study.members(case), case.seed, for_members=member)
        federation = self._kept[key]
        embeddings = unit_rows(self.study.test(case).embeddings).astype(np.float64)
        return Answered(
            federation.classifier.answers(embeddings).tolist(), federation.uplink_bytes, federation.words
        )

    def _federation(self, members: Sequence[VirtualSite], seed: int, *, for_members: bool) -> _Federation:
        """Let the members send, with the setting and the constant that are best for whom they are meant.

        For members that is what is most often right on their validation images, each counting alike; for
        others, on those of each member that is left out in turn. Of equals it is the first. Choosing costs
        the peer nothing here, though a real federation would have to send something for it.
        """
        sender = _Sender(self.study.pool, self.peer, seed)

        @cache
        def sent(setting: Setting) -> tuple[Sent, ...]:
            return tuple(sender.send(site.train, setting) for site in members)

        settings = settings_within(
            self.budget,
            self.peer,
            self.study.pool.embedding_size,
            lambda setting: max(one.size for one in sent(setting)),
        )
        if not settings:
            raise InvalidInputError(
                f"{self.peer.name} cannot send anything within {self.budget} bytes; give a larger budget"
            )
        scores = {
            (setting, constant): score
            for setting in settings
            for constant, score in self._scores(sender, members, setting, sent(setting), for_members).items()
        }
        setting, constant = max(scores, key=lambda choice: scores[choice])
        return _Federation(
            sender.classifiers(sent(setting), setting)[constant],
            max(one.size for one in sent(setting)),
            f"{setting.words()}{CONSTANT}{constant:g}",
        )

    def _scores(
        self,
        sender: "_Sender",
        members: Sequence[VirtualSite],
        setting: Setting,
        sent: Sequence[Sent],
        for_members: bool,
    ) -> dict[float, float]:
        """Return the accuracy on the members' validation images by the method's constant."""
        validated = [place for place, site in enumerate(members) if len(site.validation)]
        if not validated:
            raise InvalidInputError("no member has validation images to choose by; give larger sites")
        shares: dict[float, list[float]] = {}
        for place in validated:
            others = [*sent[:place], *sent[place + 1 :]]
            used = sent if for_members or not others else others
            for constant, classifier in sender.classifiers(used, setting).items():
                shares.setdefault(constant, []).append(
                    _right(self.study.pool, members[place].validation, classifier)
                )
        return {constant: float(np.mean(found)) for constant, found in shares.items()}


@dataclass(frozen=True)
class _Sender:
    """Makes a peer's messages and classifiers, in as many directions as a setting has."""

    pool: FeaturePool
    peer: Peer
    seed: int

    def send(self, images: Indices, setting: Setting) -> Sent:
        """Return what arrives of a site with these training images."""
        embeddings = unit_rows(self.pool.embeddings[images]).astype(np.float64)
        directions = self._directions(setting)
        if directions is not None:
            embeddings = embeddings @ directions
        labels, classes = self.pool.labels[images], len(self.pool.class_embeddings)
        return send(self.peer.of_site(embeddings, labels, classes, setting.parts), setting, len(images))

    def classifiers(self, sent: Sequence[Sent], setting: Setting) -> dict[float, Linear]:
        """Return the server's classifiers of whole embeddings, by the method's constant."""
        found = self.peer.classifiers([one.statistics for one in sent])
        directions = self._directions(setting)
        if directions is None:
            return found
        return {constant: classifier.through(directions) for constant, classifier in found.items()}

    def _directions(self, setting: Setting) -> Doubles | None:
        if setting.directions is None:
            return None
        return random_directions(self.pool.embedding_size, setting.directions, self.seed)


def _right(pool: FeaturePool, images: Indices, classifier: Linear) -> float:
    """Return how many of these images are called rightly, 0 to 1."""
    answers = classifier.answers(unit_rows(pool.embeddings[images]).astype(np.float64))
    return float((answers == pool.labels[images]).mean())
