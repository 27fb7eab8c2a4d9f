"""The aggregator and a site in one process, in the middle of a run, with hostile members and brokers.

An input is a series of messages, each a section: what the byte says is the topic, and whose key seals the
body; with its highest bit the section is the payload as it stands. Each input meets the same state. Whatever
comes, `receive` and `tick` return.
"""

from collections.abc import Callable
from functools import cache

import msgspec
import numpy as np

from benchmarks.fuzz.mutations import by_section, mutated_msgpack
from benchmarks.fuzz.sections import Section, join, split
from benchmarks.fuzz.target import Target, always
from benchmarks.liveness.parties import AGGREGATOR, BUNDLE, FEDERATION, Kept, Parties
from fedmedclip.aggregator.intake import Intake, Terms
from fedmedclip.aggregator.run import Outgoing
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol import topics
from fedmedclip.protocol.codecs import codec_named, decode_delta, encode_head
from fedmedclip.protocol.codecs.error_feedback import apply_delta
from fedmedclip.protocol.database import IN_MEMORY
from fedmedclip.protocol.envelope import MAGIC, NO_IDENTITY, VERSION, open_envelope, seal
from fedmedclip.protocol.errors import HeadError, MessageError
from fedmedclip.protocol.heads.evidence import Evidence, encode_evidence
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.protocol.messages import (
    Abstain,
    Announcement,
    Block,
    BlockRequest,
    Figures,
    HeadRequest,
    Join,
    Message,
    Metrics,
    Moment,
    Plan,
    Receipt,
    Snapshot,
    State,
    Status,
    Update,
    decode_message,
    encode_message,
)
from fedmedclip.protocol.objects import blocks_of, refer_to
from fedmedclip.protocol.signature import SIGNATURE_BYTES, fingerprint

_SITES, _ROUNDS = 2, 3
_RAW = 0x80
_BLOCK_LIMIT = 1500
_LONGEST_STEP = 7.0


def _sealed(body: bytes, topic: str, signer: str, world: Parties) -> bytes:
    """Seal any body, also one that is no message."""
    key = world.key if signer == AGGREGATOR else world.keys[signer]
    identity = NO_IDENTITY if topics.channel_of(topic) in ("plan", "status") else world.plan.identity
    header = MAGIC + bytes([VERSION])
    return header + body + key.sign(header + identity + topic.encode() + b"\0" + body)


def _body(payload: bytes) -> bytes:
    return payload[3:-SIGNATURE_BYTES]


class _World:
    """A federation whose first round is open and has one update of two, its messages, and its states."""

    def __init__(self) -> None:
        self.parties = Parties(_SITES, _ROUNDS)
        self.to_aggregator: list[tuple[str, str, bytes]] = []
        self.to_site: list[tuple[str, bytes]] = []
        self._play()
        self.kept: dict[str, Kept] = {name: self.parties.keep(name) for name in (AGGREGATOR, "site-0")}

    def _play(self) -> None:
        """Both join; the update of site-1 stays away, so that the round stays open."""
        parties, queue = self.parties, self._announced(self.parties.coordinator.opening())
        for _ in range(200):
            if not queue:
                break
            receiver, topic, payload = queue.pop(0)
            if receiver == AGGREGATOR:
                self.to_aggregator.append((topic, topics.site_of(topic), payload))
                is_update = isinstance(open_envelope(payload, topic).message, Update)
                if is_update and topics.site_of(topic) == "site-1":
                    continue
                queue += self._announced(parties.coordinator.receive(topic, payload, 0.0))
                continue
            if receiver == "site-0":
                self.to_site.append((topic, payload))
            agent = parties.agents[receiver]
            answers = [*agent.receive(topic, payload, 0.0), *agent.tick(0.0)]
            for message in answers:
                up = topics.up(FEDERATION, receiver)
                sealed = seal(message, up, parties.keys[receiver], agent.plan_identity)
                queue.append((AGGREGATOR, up, sealed))

    def _announced(self, outgoing: list[Outgoing]) -> list[tuple[str, str, bytes]]:
        queue = []
        for item in outgoing:
            payload = seal(item.message, item.topic, self.parties.key, self.parties.plan.identity)
            addressed = topics.channel_of(item.topic) == "down"
            for site in self.parties.keys:
                if not addressed or topics.site_of(item.topic) == site:
                    queue.append((site, item.topic, payload))
        return queue


@cache
def world() -> _World:
    """Return the one federation that all inputs meet."""
    return _World()


_UP_TOPICS = (
    (topics.up(FEDERATION, "site-0"), "site-0"),
    (topics.up(FEDERATION, "site-1"), "site-1"),
    (topics.status(FEDERATION, "site-0"), "site-0"),
    (topics.up(FEDERATION, "site-1"), "site-0"),
    (topics.up(FEDERATION, "stranger"), "site-0"),
    (topics.head(FEDERATION), AGGREGATOR),
    ("fmc1", "site-0"),
    (f"fmc1/{FEDERATION}/up/\n\udc80", "site-0"),
)
_DOWN_TOPICS = (
    (topics.head(FEDERATION), AGGREGATOR),
    (topics.plan(FEDERATION), AGGREGATOR),
    (topics.down(FEDERATION, "site-0"), AGGREGATOR),
    (topics.blocks(FEDERATION), AGGREGATOR),
    (topics.head(FEDERATION), "site-0"),
    (topics.plan(FEDERATION), "site-0"),
)


def _take_aggregator(data: bytes) -> None:
    found = world()
    found.parties.take_up(AGGREGATOR, found.kept[AGGREGATOR])
    coordinator, now = found.parties.coordinator, 1.0
    for topic, payload in _messages(data, _UP_TOPICS):
        sent = coordinator.receive(topic, payload, now)
        now += _LONGEST_STEP
        sent += coordinator.tick(now)
        for item in sent:
            encode_message(item.message)


def _take_site(data: bytes) -> None:
    found = world()
    found.parties.take_up("site-0", found.kept["site-0"])
    agent, now = found.parties.agents["site-0"], 1.0
    for topic, payload in _messages(data, _DOWN_TOPICS, _with_digest):
        answers = agent.receive(topic, payload, now)
        now += _LONGEST_STEP
        for message in (*answers, *agent.tick(now)):
            encode_message(message)


def _messages(
    data: bytes, places: tuple[tuple[str, str], ...], change: Callable[[bytes], bytes] = lambda body: body
) -> list[tuple[str, bytes]]:
    found = []
    for kind, content in split(data):
        topic, signer = places[kind % 16 % len(places)]
        # What MQTT carries as a topic is UTF-8.
        payload = (
            content
            if kind & _RAW or not topic.isprintable()
            else _sealed(change(content), topic, signer, world().parties)
        )
        found.append((topic, payload))
    return found


def _with_digest(body: bytes) -> bytes:
    """Give an announced head the digest that it has, so that the agent takes it."""
    parties = world().parties
    follower = parties.agents["site-0"]._run.follower
    assert follower is not None
    try:
        message = decode_message(body)
        if not isinstance(message, Announcement | Snapshot) or not isinstance(message.payload, bytes):
            return body
        head = decode_delta(message.payload, parties.specification)
        if isinstance(message, Announcement):
            head = apply_delta(follower.head, head, parties.specification)
    except (MessageError, HeadError):
        return body
    return encode_message(msgspec.structs.replace(message, head_digest=head_digest(head)))


def _encoded(codec: str) -> bytes:
    specification = world().parties.specification
    delta = {name: np.float32(0.01) * array for name, array in specification.initial(3).items()}
    return encode_head(codec_named(codec), delta, specification).data


def _aggregator_seeds() -> list[bytes]:
    found = world()
    played = [
        (_place(topic, site, _UP_TOPICS), _body(payload)) for topic, site, payload in found.to_aggregator
    ]
    site = found.parties.keys["site-0"]
    data = _encoded("int8")
    reference = refer_to(data * 40, _BLOCK_LIMIT)
    state = refer_to(_evidence(), _BLOCK_LIMIT)
    moment = Moment(1_800_000_000, 1, 1)
    extra: list[tuple[int, Message]] = [
        (0, Metrics(0, 0, None, 0, None, 40, None, None, None, None, Figures(150, 140, 12, 61), "0.3.0")),
        (0, Update(1, 100, reference, 0)),
        *((0, block) for block in blocks_of(data * 40, reference)),
        (1, Update(1, 100, data, 0)),
        (0, HeadRequest(-1)),
        (0, BlockRequest(bytes(32), [0, 1])),
        (0, Abstain(1, "no images")),
        (2, Status(fingerprint(site.public_key), True, 2, moment)),
        (0, State(state)),
        *((0, block) for block in blocks_of(_evidence(), state)),
        (4, Join(site.public_key, BUNDLE, 10, -1, "0.2.0", "", moment, 1)),
        (1, Join(found.parties.keys["site-1"].public_key, BUNDLE, 10, -1, "0.2.0", "cannot", moment, 1)),
    ]
    single = [(place, encode_message(message)) for place, message in extra]
    recovery = [single[-9 + number] for number in range(7)]
    return [join(played), join(single), join(recovery), *(join([section]) for section in single)]


def _evidence() -> bytes:
    found = world()
    head = next(payload for topic, payload in found.to_site if topic == topics.head(FEDERATION))
    plan = next(payload for topic, payload in found.to_site if topic == topics.plan(FEDERATION))
    values = found.parties.specification.to_bytes(found.parties.specification.initial(1))
    return encode_evidence(Evidence(plan, topics.head(FEDERATION), head, values))


def _site_seeds() -> list[bytes]:
    found = world()
    played: list[Section] = [
        (_place(topic, AGGREGATOR, _DOWN_TOPICS), _body(payload)) for topic, payload in found.to_site
    ]
    data = _encoded("int8")
    whole = _encoded("lossless") * 20
    reference = refer_to(whole, _BLOCK_LIMIT)
    plan: Plan = msgspec.structs.replace(found.parties.plan, number=2, identity=bytes(16))
    extra: list[tuple[int, Message]] = [
        (0, Announcement(1, bytes(32), False, data, None)),
        (0, Announcement(3, bytes(32), True, data, 5)),
        (2, Snapshot(2, bytes(32), False, data, None)),
        (2, Snapshot(2, bytes(32), False, reference, None)),
        *((3, block) for block in blocks_of(whole, reference)),
        (2, Receipt(1, False, "no", False, bytes(8))),
        (2, Receipt(1, True, "", True, bytes(8))),
        (2, BlockRequest(bytes(32), [0])),
        (2, Block(bytes(32), 0, b"x" * 10)),
        (1, plan),
        (1, msgspec.structs.replace(found.parties.plan, revision=2, rounds=9, paused=True)),
        (1, msgspec.structs.replace(plan, number=3, start=bytes(32), downlink_codec="topk")),
    ]
    single = [(place, encode_message(message)) for place, message in extra]
    return [join(played), join(single), *(join([section]) for section in single)]


def _place(topic: str, signer: str, places: tuple[tuple[str, str], ...]) -> int:
    return places.index((topic, signer))


def _take_intake(data: bytes) -> None:
    """Updates and blocks past the signature: a verdict, or a MessageError for a block."""
    store = Store(IN_MEMORY)
    try:
        store.admit("site-0", bytes(32), 100, "")
        intake = Intake(store, world().parties.specification)
        terms = Terms(0, False, 1000.0, 1)
        for _, content in split(data):
            message = decode_message(content)
            if isinstance(message, Update):
                intake.update("site-0", message, terms, 0.0)
            elif isinstance(message, Block):
                intake.block("site-0", message, terms, 0.0)
            intake.overdue(100.0)
    finally:
        store.close()


def _intake_seeds() -> list[bytes]:
    data = _encoded("lossless")
    reference = refer_to(data * 40, _BLOCK_LIMIT)
    parts: list[Message] = [Update(1, 100, reference, 0), *blocks_of(data * 40, reference)]
    return [
        join((0, encode_message(part)) for part in parts),
        join([(0, encode_message(Update(1, 9, data, 0)))]),
    ]


_MUTATE = by_section(mutated_msgpack, kinds=256)

TARGETS = (
    Target("uploads", always(_take_intake), (MessageError,), _intake_seeds, _MUTATE, weight=0.4),
    Target("aggregator", always(_take_aggregator), (), _aggregator_seeds, _MUTATE, weight=0.3),
    Target("site", always(_take_site), (), _site_seeds, _MUTATE, weight=0.5),
)
