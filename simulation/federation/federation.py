"""One federation in one process: production training, codecs, error feedback, catching up and messages.

Every payload that a broker would carry is made, signed and counted; nothing is published. Heads have the
same bits, and messages the same bytes, as those of the production agents and coordinator (a test compares
them, also where sites come and go). No message is lost here, so there is nothing for those to decide.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from fedmedclip.aggregator.global_head import GlobalHead
from fedmedclip.aggregator.rules.names import NamedRule, rule_for, rule_named
from fedmedclip.aggregator.rules.rule import Remark, RuleState, SiteUpdate
from fedmedclip.aggregator.store import Store, StoredHead, StoredVersion
from fedmedclip.aggregator.weights import weights_of
from fedmedclip.edge_client.learning.private_state import head_of
from fedmedclip.edge_client.site.head_follower import ASK_AGAIN_SECONDS, HeadFollower, Request
from fedmedclip.protocol import topics
from fedmedclip.protocol.codecs import codec_named, decode_head
from fedmedclip.protocol.codecs.error_feedback import compress, norm_of
from fedmedclip.protocol.envelope import NO_IDENTITY, seal
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import NamedArrays, head_digest
from fedmedclip.protocol.link.settings import SMALLEST_COMMON_LIMIT
from fedmedclip.protocol.messages import (
    Abstain,
    Announcement,
    Block,
    HeadRequest,
    Join,
    JoinAnswer,
    Message,
    Moment,
    PrivacySpent,
    Receipt,
    Snapshot,
    Status,
    Update,
)
from fedmedclip.protocol.objects import blocks_of, refer_to
from fedmedclip.protocol.signature import fingerprint
from fedmedclip.simulation.federation.adversary import Adversary
from fedmedclip.simulation.federation.coders import CodecMeasurements, Coded, Coder, Kept, coder_of
from fedmedclip.simulation.federation.plan import (
    AGGREGATOR,
    FEDERATION,
    FederationPlan,
    derived_key,
    wire_plan,
)
from fedmedclip.simulation.federation.site_states import SiteStates
from fedmedclip.simulation.federation.traffic import Traffic
from fedmedclip.simulation.federation.trainer import Trainer
from fedmedclip.simulation.federation.virtual_sites import VirtualSite

WORKING_PREFIX = "federation-"
MOMENT = Moment(1_800_000_000, 1, 1)
"""Stands for all moments of sites: of a usual size."""


class Federation:
    """Sites and an aggregator. Their states rest in a temporary folder below `folder`; close it when done.

    `coder` replaces that of the plan's codecs; `measurements` records what it makes of the first site's
    update in each round. With an `adversary` some sites are hostile; `refused` counts the updates that the
    aggregator refused for their norm.
    """

    def __init__(
        self,
        trainer: Trainer,
        folder: Path | None = None,
        coder: Coder | None = None,
        measurements: CodecMeasurements | None = None,
        adversary: Adversary | None = None,
    ) -> None:
        self._trainer = trainer
        self._plan = plan = trainer.plan
        self._measurements = measurements
        self._specification = trainer.shared_specification
        self._coder = coder or coder_of(
            plan.method,
            plan.uplink_codec,
            plan.downlink_codec,
            self._specification,
            plan.maximum_update_norm,
        )
        self._rule = _rule_of(plan, whole_heads=self._coder.whole)
        self._rule_state: RuleState = {}
        self.remarks: tuple[Remark, ...] = ()
        """Whom the rule rejected or clipped in the last round."""
        self._adversary = adversary
        self.refused = 0
        self._folder = TemporaryDirectory(dir=folder, prefix=WORKING_PREFIX)
        self._states = SiteStates(Path(self._folder.name), trainer)
        self._key = derived_key(plan.seed, AGGREGATOR)
        self._announced = wire_plan(plan, trainer.pool, self._key)
        self._kept = Kept()
        self._online: dict[str, Status] = {}
        self._traffic = Traffic()
        self.head = trainer.initial_shared()
        self._store = Store(Path(self._folder.name) / "aggregator.db", durable=False)
        self._store.begin(self._announced, self._specification.to_bytes(self.head), head_digest(self.head))
        self._versions = self._newest()
        self._retained: dict[str, bytes] = {}
        self._broadcast(topics.plan(FEDERATION), self._announced)
        self._broadcast(topics.head(FEDERATION), self._versions.announcement())

    def play_round(self, number: int, sites: Sequence[VirtualSite]) -> Traffic:
        """Let these sites, and nobody else, make version `number`; return what travelled.

        Raises InvalidInputError when the floors let none of them send.
        """
        self._traffic = Traffic()
        names = {site.name for site in sites}
        for name in [name for name in self._online if name not in names]:
            self._leave(name)
        for site in sites:
            if site.name not in self._online:
                self._join(site)
        self._require_senders(number, sites)
        delivered = self._deliveries(number, sites)
        weights = weights_of(
            {site: samples for site, (samples, _) in delivered.items()},
            self._plan.weighting,
            self._plan.maximum_share,
        )
        updates = [
            SiteUpdate(site, weights[site], partial(decode_head, payload, self._specification))
            for site, (_, payload) in sorted(delivered.items())
        ]
        made = self._rule(updates, self._specification, self._rule_state)
        self._rule_state, self.remarks = made.state, made.remarks
        self._advance(number, made.delta)
        return self._traffic

    def shared_head(self, site: str | None = None) -> NamedArrays:
        """Return the newest global head."""
        return self.head

    def private_head(self, site: str) -> NamedArrays:
        """Return a site's private head; empty for a method without one."""
        return head_of(self.kept_at(site))

    def kept_at(self, site: str) -> NamedArrays:
        """Return what a site keeps for its next round: the private head, and Adam's memory if asked for."""
        return self._states.load(site)[0]

    def close(self) -> None:
        """Release and remove all files."""
        self._store.close()
        self._folder.cleanup()

    def _require_senders(self, number: int, sites: Sequence[VirtualSite]) -> None:
        reasons = [self._trainer.contribution(site).withheld for site in sites]
        if all(reasons):
            raise InvalidInputError(
                f"round {number}: none of {len(sites)} sites may send what it learnt ({min(reasons)}); give "
                "fewer or larger sites, or switch the floors off"
            )

    def _deliveries(self, number: int, sites: Sequence[VirtualSite]) -> dict[str, tuple[int, bytes]]:
        """Let the sites train and deliver; return samples and payload of each update that counts.

        Payloads are kept encoded: heads of many sites would fill the memory.
        """
        hostile = frozenset() if self._adversary is None else self._adversary.hostile
        counted: dict[str, tuple[int, bytes]] = {}
        known: list[NamedArrays] = []
        for site in sorted(sites, key=lambda site: (site.name in hostile, site.name)):
            contribution = self._trainer.contribution(site)
            if contribution.withheld:
                self._keep_back(site, number, contribution.withheld)
                continue
            measurements = None if counted else self._measurements
            samples = contribution.samples
            if self._adversary is None or site.name not in hostile:
                made = self._train(self._trainer, site, number, measurements)
                if self._adversary is not None:
                    known.append(made.decoded)
            else:
                made = self._forge(self._adversary, site, number, known)
                samples = self._adversary.claimed_samples(site)
            if self._deliver(site, number, samples, made):
                counted[site.name] = (samples, made.payload)
        return counted

    def _deliver(self, site: VirtualSite, number: int, samples: int, made: Coded) -> bool:
        """Send an update, and the receipt; return whether it counts, as the aggregator's intake has it."""
        payload = refer_to(made.payload, SMALLEST_COMMON_LIMIT)
        terms = self._plan.privacy
        # Here nobody reads what it costs; it is as long as any.
        spent = None if terms is None else PrivacySpent(0.0, 0.0, terms.epsilon, terms.delta)
        update = Update(number, samples, payload, 0, spent)
        self._up(site.name, update, *blocks_of(made.payload, payload))
        norm, limit = norm_of(made.decoded), self._plan.maximum_update_norm
        counts = norm <= limit
        refusal = "" if counts else f"the update's norm is {norm:.3g}, at most {limit:.3g} counts"
        self._down(site.name, Receipt(number, counts, refusal, False, update.mark))
        self.refused += not counts
        return counts

    def _keep_back(self, site: VirtualSite, number: int, reason: str) -> None:
        """Let a site that a floor lets send nothing train its private head all the same."""
        private, kept = self._states.load(site.name)
        _, private = self._trainer.train(site, self.head, private, number)
        self._states.save(site.name, private, kept)
        self._up(site.name, Abstain(number, reason[:400]))

    def _forge(
        self, adversary: Adversary, site: VirtualSite, number: int, honest: Sequence[NamedArrays]
    ) -> Coded:
        """Return a hostile site's update. What it forges it sends without loss: any codec is decoded."""
        made = self._train(adversary.trainer(self._trainer), site, number, None)
        forged = adversary.forge(site.name, number, made.decoded, honest)
        if forged is None:
            return made
        exact = compress(codec_named("lossless"), forged, None, b"", self._specification)
        return Coded(exact.encoded, exact.decoded, made.kept)

    def _train(
        self, trainer: Trainer, site: VirtualSite, number: int, measurements: CodecMeasurements | None
    ) -> Coded:
        private, kept = self._states.load(site.name)
        shared, private = trainer.train(site, self.head, private, number)
        made = self._coder.encode_update(shared, self.head, kept, measurements)
        self._states.save(site.name, private, made.kept)
        return made

    def _advance(self, version: int, mean: NamedArrays) -> None:
        made = self._coder.encode_version(mean, self.head, self._kept)
        self._specification.check(made.decoded)
        self.head, self._kept = made.decoded, made.kept
        self._store.advance(
            StoredVersion(version, head_digest(self.head), made.payload),
            StoredHead(self._specification.to_bytes(self.head), None, b""),
        )
        self._versions = self._newest()
        self._broadcast(topics.head(FEDERATION), self._versions.announcement())
        for block in self._newest_blocks():
            self._broadcast(topics.blocks(FEDERATION), block)
        for name in self._online:
            self._report(name, version)

    def _leave(self, name: str) -> None:
        self._states.leave(name, self._versions.version, self.head)
        self._report(name, self._versions.version, online=False)
        del self._online[name]

    def _join(self, site: VirtualSite) -> None:
        """Let a site come online, read what it missed, and join, in the order of an agent's messages."""
        name, key = site.name, derived_key(self._plan.seed, site.name).public_key
        for topic, payload in self._retained.items():
            self._traffic.received(topic, payload)
        version, now, newcomer = self._versions.version, 0.0, False
        if self._coder.whole:
            for block in self._newest_blocks():
                self._down(name, block)
        else:
            held = self._states.held(name)
            if held is None:
                # A newcomer begins only when it is admitted.
                self._apply(name, key, len(site.train), -1)
                newcomer = True
                held = (0, self._trainer.initial_shared())
            follower = HeadFollower(self._specification, *held, lambda *_: None)
            self._ask(name, follower, follower.take(self._versions.announcement(), now), now)
            version = follower.version
        if not newcomer:
            self._apply(name, key, len(site.train), version)
        self._report(name, version)
        # Blocks are not retained: a site that only lacks those of the newest version has to ask for them.
        while version < self._versions.version:
            now += ASK_AGAIN_SECONDS
            if requests := follower.tick(now):
                self._ask(name, follower, requests, now)
                version = follower.version
                # Whoever has to ask joins once more: perhaps it is not known as a member.
                self._apply(name, key, len(site.train), version)
            self._report(name, version)

    def _apply(self, name: str, key: bytes, samples: int, version: int) -> None:
        revision = self._announced.revision
        self._up(name, Join(key, self._trainer.pool.digest, samples, version, "", "", MOMENT, revision))
        self._down(name, JoinAnswer(fingerprint(key), True, "", MOMENT, None, revision))

    def _ask(self, name: str, follower: HeadFollower, requests: list[Request], now: float) -> None:
        """Send the requests, and those that follow from their answers."""
        waiting = deque(requests)
        while waiting:
            request = waiting.popleft()
            self._up(name, request)
            for answer in self._answers(request):
                self._down(name, answer)
                if isinstance(answer, Block):
                    waiting += follower.add_block(answer, now)
                else:
                    waiting += follower.take(answer, now)

    def _answers(self, request: Request) -> Iterator[Announcement | Snapshot | Block]:
        if not isinstance(request, HeadRequest):
            yield from self._versions.blocks(request.object_digest, request.missing)
            return
        for carrier in self._versions.catch_up(request.have_version):
            yield carrier
            yield from self._versions.blocks_behind(carrier)

    def _newest(self) -> GlobalHead:
        # Nothing is encoded by it: it says what a site lacks, from what the store holds.
        return GlobalHead(
            self._store, self._specification, "lossless", self._plan.rounds, SMALLEST_COMMON_LIMIT
        )

    def _newest_blocks(self) -> list[Block]:
        return self._versions.blocks_behind(self._versions.announcement())

    def _report(self, name: str, version: int, online: bool = True) -> None:
        """Publish a status that differs from the one before; the aggregator alone listens to it."""
        key, topic = derived_key(self._plan.seed, name), topics.status(FEDERATION, name)
        status = Status(fingerprint(key.public_key), online, version, MOMENT)
        if self._online.get(name) != status:
            self._online[name] = status
            self._traffic.sent(topic, seal(status, topic, key, NO_IDENTITY))

    def _up(self, name: str, *messages: Message) -> None:
        key, topic = derived_key(self._plan.seed, name), topics.up(FEDERATION, name)
        for message in messages:
            self._traffic.sent(topic, seal(message, topic, key, self._announced.identity))

    def _down(self, name: str, message: Message) -> None:
        topic = topics.down(FEDERATION, name)
        self._traffic.received(topic, seal(message, topic, self._key, self._announced.identity))

    def _broadcast(self, topic: str, message: Message) -> None:
        payload = seal(message, topic, self._key, self._announced.identity)
        if not isinstance(message, Block):
            self._retained[topic] = payload
        self._traffic.received(topic, payload, len(self._online))


def _rule_of(plan: FederationPlan, *, whole_heads: bool) -> NamedRule:
    """Return the rule of a plan; whole heads, as in the papers, have only the papers' weighted mean."""
    if not whole_heads:
        return rule_for(plan.method, plan.rule)
    if plan.rule not in (None, "weighted_mean"):
        raise InvalidInputError(
            f"rule {plan.rule!r} is for deltas, and {plan.uplink_codec} sends whole heads; name another codec"
        )
    return rule_named("weighted_mean")
