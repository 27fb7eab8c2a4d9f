"""What the aggregator answers to each message: joins, updates, blocks, requests. No broker, no clock.

`receive` and `tick` return the messages to publish; when they return, everything that these promise is on
disk, so the caller may acknowledge what it handed in.
"""

import logging
from dataclasses import dataclass

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.aggregator.global_head import GlobalHead
from fedmedclip.aggregator.round_logic import (
    CloseRound,
    Event,
    HeadAdvanced,
    ReportOverdue,
    RoundSettings,
    RoundState,
    SiteJoined,
    SitePresence,
    Tick,
    UpdateStored,
    handle,
)
from fedmedclip.aggregator.rules import update_norm
from fedmedclip.aggregator.store import Store
from fedmedclip.aggregator.uploads import UploadDamagedError, Uploads
from fedmedclip.protocol import topics
from fedmedclip.protocol.codecs import decode_delta
from fedmedclip.protocol.envelope import open_envelope
from fedmedclip.protocol.errors import HeadError, InvalidInputError, MessageError
from fedmedclip.protocol.messages import (
    Block,
    BlockRequest,
    HeadRequest,
    Join,
    JoinAnswer,
    Message,
    Plan,
    Receipt,
    Status,
    Update,
)
from fedmedclip.protocol.signature import fingerprint

log = logging.getLogger("fedmedclip.aggregator")


@dataclass(frozen=True)
class Outgoing:
    """A message to sign and publish."""

    topic: str
    message: Message
    retain: bool = False


class Coordinator:
    """Holds one federation together. State that must survive is in the store; the rest is rebuilt from it."""

    def __init__(
        self,
        configuration: AggregatorConfiguration,
        plan: Plan,
        store: Store,
        global_head: GlobalHead,
        now: float,
    ) -> None:
        self._settings = configuration.federation
        self._listed = {site: bytes.fromhex(key) for site, key in configuration.sites.items()}
        self._plan = plan
        self._store = store
        self._keys = store.sites()
        self._uploads = Uploads(store, global_head.specification)
        self.global_head = global_head
        self._versions_held: dict[str, int] = {}
        self._round_settings = RoundSettings(
            self._settings.rounds, self._settings.minimum_sites, self._settings.round_timeout_seconds
        )
        # After a restart every site counts as online until its retained status says otherwise.
        members = frozenset(self._keys)
        delivered = frozenset(store.updated_sites(global_head.version + 1))
        self._round = RoundState(global_head.version, members, members, delivered, now if delivered else None)

    def opening(self) -> list[Outgoing]:
        """Return what every site must be able to read: the plan and the newest head, both retained."""
        federation = self._settings.name
        return [
            Outgoing(topics.plan(federation), self._plan, retain=True),
            Outgoing(topics.head(federation), self.global_head.announcement(), retain=True),
        ]

    @property
    def settled(self) -> bool:
        """Whether the federation is finished and every site that is online holds the last version."""
        online = self._round.online & self._round.members
        return self.global_head.finished and all(
            self._versions_held.get(site) == self.global_head.version for site in online
        )

    def tick(self, now: float) -> list[Outgoing]:
        """Let time pass: rounds run out, and blocks that stay away are asked for again."""
        requests: list[Outgoing] = []
        for site, request in self._uploads.overdue(now):
            # For a site that is away the broker would keep every one of them.
            if site in self._round.online:
                requests += self._to(site, request)
        return requests + self._advance(Tick(), now)

    def receive(self, topic: str, payload: bytes, now: float) -> list[Outgoing]:
        """Handle one message of a site. A message that is refused is logged and costs nobody anything."""
        site = topics.site_of(topic)
        try:
            topics.check_name("site", site)
            envelope = open_envelope(payload, topic)
            if isinstance(envelope.message, Join):
                envelope.verify(envelope.message.public_key, self._plan.identity)
                return self._join(site, envelope.message, now)
            if site not in self._keys:
                raise MessageError(f"{site} has not joined")
            return self._handle(site, envelope.verify(self._keys[site], self._plan.identity), now)
        except (MessageError, InvalidInputError, HeadError) as error:
            log.warning("refused a message of %s: %s", site, error)
            return []

    def _handle(self, site: str, message: Message, now: float) -> list[Outgoing]:
        match message:
            case Update():
                return self._update(site, message, now)
            case Block():
                return self._block(site, message, now)
            case BlockRequest():
                return self._to(site, *self.global_head.blocks(message.object_digest, message.missing))
            case HeadRequest():
                return self._catch_up(site, message.have_version)
            case Status():
                return self._presence(site, message, now)
            case _:
                raise MessageError(f"{type(message).__name__} is not for the aggregator")

    def _join(self, site: str, join: Join, now: float) -> list[Outgoing]:
        reason = self._reason_to_refuse(site, join)
        answer = JoinAnswer(fingerprint(join.public_key), not reason, reason)
        if reason:
            log.warning("%s may not join: %s", site, reason)
        else:
            if site not in self._keys:
                log.info("%s joined with %d training images", site, join.samples)
            self._store.admit(site, join.public_key, join.samples)
            self._keys[site] = join.public_key
        reply = self._to(site, answer)
        return reply if reason else reply + self._advance(SiteJoined(site), now)

    def _reason_to_refuse(self, site: str, join: Join) -> str:
        if join.bundle_digest != self._plan.bundle_digest:
            return (
                f"the site's bundle has digest {join.bundle_digest.hex()[:16]}, the federation uses "
                f"{self._plan.bundle_digest.hex()[:16]}; copy the federation's bundle"
            )
        known = self._keys.get(site)
        if known is not None and known != join.public_key:
            return f"the name {site!r} belongs to another site (another key); choose another name"
        if self._settings.enrolment == "listed" and self._listed.get(site) != join.public_key:
            return f"{site!r} with key {join.public_key.hex()} is not on the aggregator's list"
        return ""

    def _presence(self, site: str, status: Status, now: float) -> list[Outgoing]:
        if status.online != (site in self._round.online):
            log.info("%s is %s", site, "online" if status.online else "offline")
        self._versions_held[site] = status.version
        return self._advance(SitePresence(site, status.online), now)

    def _update(self, site: str, update: Update, now: float) -> list[Outgoing]:
        open_round = self.global_head.version + 1
        if self._store.has_update(update.round_number, site):
            return self._receipt(site, update.round_number, "")
        if update.round_number != open_round or self.global_head.finished:
            reason = (
                f"round {update.round_number} is closed; version {self.global_head.version} is the newest"
            )
            return self._receipt(site, update.round_number, reason)
        # Whoever trains a round holds the version before it, and publishes no status to say so.
        self._versions_held[site] = update.round_number - 1
        try:
            complete = self._uploads.begin(site, update, now)
        except MessageError as error:
            return self._receipt(site, update.round_number, str(error))
        return [] if complete is None else self._update_complete(site, *complete, now)

    def _block(self, site: str, block: Block, now: float) -> list[Outgoing]:
        try:
            complete = self._uploads.add(site, block, now)
        except UploadDamagedError as error:
            return self._receipt(site, error.round_number, str(error))
        return [] if complete is None else self._update_complete(site, *complete, now)

    def _update_complete(self, site: str, update: Update, payload: bytes, now: float) -> list[Outgoing]:
        round_number = update.round_number
        try:
            norm = update_norm(decode_delta(payload, self.global_head.specification))
            if norm > self._settings.maximum_update_norm:
                limit = self._settings.maximum_update_norm
                raise MessageError(f"the update's norm is {norm:.3g}, at most {limit:.3g} counts")
        except MessageError as error:
            self._store.forget_upload(site)
            return self._receipt(site, round_number, str(error))
        self._store.add_update(round_number, site, update.samples, payload)
        log.info("round %d: %s delivered %d bytes", round_number, site, len(payload))
        receipt = self._receipt(site, round_number, "")
        return receipt + self._advance(UpdateStored(site), now)

    def _receipt(self, site: str, round_number: int, refusal: str) -> list[Outgoing]:
        if refusal:
            log.warning("refused the update of %s for round %d: %s", site, round_number, refusal)
        return self._to(site, Receipt(round_number, not refusal, refusal[:400]))

    def _advance(self, event: Event, now: float) -> list[Outgoing]:
        """Move the round on; a round that closes is aggregated, stored and announced before this returns."""
        self._round, action = handle(self._round, event, now, self._round_settings)
        match action:
            case CloseRound(round_number, sites):
                self.global_head.aggregate(round_number, sites, self._settings.weighting)
                self._uploads.clear()
                log.info("round %d: aggregated %s", round_number, ", ".join(sites))
                return self._broadcast() + self._advance(HeadAdvanced(round_number), now)
            case ReportOverdue(round_number, delivered):
                log.warning(
                    "round %d: time is over, but only %d of at least %d sites have delivered; still waiting",
                    round_number,
                    delivered,
                    self._settings.minimum_sites,
                )
        return []

    def _broadcast(self) -> list[Outgoing]:
        federation = self._settings.name
        announcement = self.global_head.announcement()
        blocks = self.global_head.blocks_behind(announcement)
        return [
            Outgoing(topics.head(federation), announcement, retain=True),
            *(Outgoing(topics.blocks(federation), block) for block in blocks),
        ]

    def _catch_up(self, site: str, have_version: int) -> list[Outgoing]:
        outgoing: list[Outgoing] = []
        for answer in self.global_head.catch_up(have_version):
            outgoing += self._to(site, answer, *self.global_head.blocks_behind(answer))
        return outgoing

    def _to(self, site: str, *messages: Message) -> list[Outgoing]:
        topic = topics.down(self._settings.name, site)
        return [Outgoing(topic, message) for message in messages]
