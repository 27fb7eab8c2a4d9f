"""How a federation stands by what the broker retains: plan, head, roster, and the sites' own words.

For who has no access to the aggregator: a site, or an observer of its own. All that is shown is signed; by
whose key is said, and what cannot be known or verified from here is said too.
"""

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

import msgspec

from fedmedclip.aggregator.attention import needing_attention
from fedmedclip.aggregator.federation_status import FederationStatus, MemberStatus, Part
from fedmedclip.aggregator.status import asked_privacy
from fedmedclip.protocol import topics
from fedmedclip.protocol.configuration.annotations import PublicKeyInHexadecimal
from fedmedclip.protocol.envelope import NO_IDENTITY, open_envelope
from fedmedclip.protocol.errors import InvalidInputError, LinkError, MessageError
from fedmedclip.protocol.link.link import Connected, Disconnected, Link, Received, SubscriptionRefused
from fedmedclip.protocol.link.settings import LinkSettings
from fedmedclip.protocol.messages import Announcement, Plan, RosterNotice, Status
from fedmedclip.protocol.roster.chain import Roster, open_roster
from fedmedclip.protocol.topics import check_name

FIRST_LOOK_SECONDS = 15.0
# What is retained comes at once; whoever is silent for so long has said all.
_QUIET_SECONDS = 1.0
_MOST_SITES = 100_000


class ObserverSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[observer]`: which federation, and the coordinator's public key in hexadecimal.

    Without a key whoever publishes at the broker is believed, and the status says so.
    """

    federation: str
    aggregator_key: PublicKeyInHexadecimal | None = None

    def __post_init__(self) -> None:
        check_name("federation", self.federation)


class ObserverConfiguration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file of who only watches: `[observer]` and `[broker]`."""

    observer: ObserverSettings
    broker: LinkSettings = LinkSettings()


@dataclass(frozen=True)
class Vantage:
    """From where is watched. `pinned` is the coordinator's key that is trusted, None: whichever comes."""

    broker: LinkSettings
    federation: str
    pinned: bytes | None = None


class Observer:
    """Reads what is retained on a connection of its own, which publishes nothing. A context manager.

    Raises LinkError and InvalidInputError as `Link` does.
    """

    def __init__(self, vantage: Vantage) -> None:
        self._vantage = vantage
        # Never the name of another: whoever connects with a site's takes over its session.
        settings = msgspec.structs.replace(vantage.broker, client_id=None)
        self._link = Link(settings, client_id=f"fmcstatus{secrets.token_hex(6)}", lasting=False)
        self._heard: dict[str, bytes] = {}
        self._refused: dict[str, str] = {}
        self._connected = False
        self._reason = "no answer"

    def __enter__(self) -> "Observer":
        federation = self._vantage.federation
        self._link.subscribe(
            topics.plan(federation), topics.head(federation), topics.roster(federation),
            topics.status(federation, "+"),
        )  # fmt: skip
        self._link.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._link.close()

    def look(self, seconds: float = FIRST_LOOK_SECONDS) -> FederationStatus:
        """Return what is known; the first time, wait for it at most `seconds`.

        Raises LinkError without a connection, InvalidInputError where no plan is retained or it cannot be
        believed.
        """
        until = time.monotonic() + seconds
        quiet_at = time.monotonic() + _QUIET_SECONDS
        plan_topic = topics.plan(self._vantage.federation)
        while (now := time.monotonic()) < until:
            if plan_topic in self._heard and now >= quiet_at:
                break
            event = self._link.next_event(min(0.5, until - now))
            if event is not None:
                self._take(event)
                quiet_at = time.monotonic() + _QUIET_SECONDS
        if plan_topic not in self._heard:
            where = self._vantage.broker.address
            if not self._connected:
                raise LinkError(f"the broker at {where} cannot be read: {self._reason}")
            raise InvalidInputError(
                f"no plan of the federation {self._vantage.federation!r} is retained at {where}"
                + "".join(f"; {reason}" for reason in self._refused.values())
            )
        return needing_attention(self._status())

    def _take(self, event: object) -> None:
        match event:
            case Received(topic, payload, _, acknowledge):
                acknowledge()
                if topic in self._heard or len(self._heard) < _MOST_SITES:
                    self._heard[topic] = payload
            case Connected():
                self._connected = True
            case Disconnected(reason, fatal):
                self._reason = reason
                if fatal:
                    raise LinkError(reason)
            case SubscriptionRefused(topic_filter, reason):
                self._refused[topic_filter] = (
                    f"{topic_filter}: the broker does not let this client read it ({reason})"
                )
            case _:
                pass

    def _status(self) -> FederationStatus:
        federation, unknown = self._vantage.federation, list(self._refused.values())
        roster = self._roster(unknown)
        plan, signed_by = self._plan(roster)
        version, finished = -1, False
        if (head := self._heard.get(topics.head(federation))) is None:
            unknown.append("the newest version: no head is retained")
        else:
            try:
                envelope = open_envelope(head, topics.head(federation))
                announcement = envelope.verify(plan.aggregator_key, plan.identity)
                assert isinstance(announcement, Announcement)
                version, finished = announcement.version, announcement.version >= plan.rounds
            except MessageError as error:
                unknown.append(f"the newest version: {error}")
        unknown.append(
            "who delivered for the open round and who is waited for, bytes, figures, refused messages, "
            "certificates, and whether the aggregator runs: ask it (--config aggregator.toml, or --address)"
        )
        return FederationStatus(
            federation=federation,
            run=plan.number,
            begun=plan.begun,
            method=plan.method,
            version=version,
            rounds=plan.rounds,
            running=False,
            paused=plan.paused,
            finished=finished,
            needed=0,
            delivered=0,
            round_seconds=None,
            members=list(self._members(roster, unknown)),
            privacy=asked_privacy(plan),
            source="broker",
            unknown=unknown,
            signed_by=signed_by,
        )

    def _plan(self, roster: Roster | None) -> tuple[Plan, str]:
        """Return the plan, and a sentence on the key that signs it. Raises InvalidInputError."""
        topic, pinned = topics.plan(self._vantage.federation), self._vantage.pinned
        try:
            envelope = open_envelope(self._heard[topic], topic)
            plan = envelope.message
            assert isinstance(plan, Plan)
            envelope.verify(plan.aggregator_key, plan.identity)
        except MessageError as error:
            raise InvalidInputError(f"the plan at the broker cannot be believed: {error}") from error
        key = plan.aggregator_key.hex()
        if pinned is None:
            return plan, f"key {key}, which nobody has confirmed here (aggregator_key in the configuration)"
        if pinned == plan.aggregator_key:
            return plan, f"key {key}, the trusted one"
        if (
            roster is not None
            and pinned in roster.coordinator_keys
            and roster.coordinator_key == plan.aggregator_key
        ):
            return plan, f"key {key}, which by the roster follows the trusted {pinned.hex()}"
        raise InvalidInputError(
            f"the plan at the broker is signed with key {key}, this configuration trusts {pinned.hex()}"
        )

    def _roster(self, unknown: list[str]) -> Roster | None:
        """Return the roster that is retained, where it is whole and a trusted coordinator's."""
        topic, pinned = topics.roster(self._vantage.federation), self._vantage.pinned
        if (payload := self._heard.get(topic)) is None:
            return None
        try:
            envelope = open_envelope(payload, topic)
            notice = envelope.message
            assert isinstance(notice, RosterNotice)
            if not isinstance(notice.payload, bytes):
                unknown.append("who is a member: the roster is too long to be retained whole")
                return None
            roster = open_roster(notice.payload)
            envelope.verify(roster.coordinator_key, NO_IDENTITY)
        except (MessageError, InvalidInputError) as error:
            unknown.append(f"who is a member: the roster at the broker cannot be used ({error})")
            return None
        if pinned is not None and pinned not in roster.coordinator_keys:
            unknown.append("who is a member: the roster at the broker is another coordinator's")
            return None
        return roster

    def _members(self, roster: Roster | None, unknown: list[str]) -> Iterator[MemberStatus]:
        """Yield the members by the roster, and without one whoever says that it is there."""
        federation = self._vantage.federation
        spoken = {
            topics.site_of(topic): (topic, payload)
            for topic, payload in self._heard.items()
            if topics.channel_of(topic) == "status"
        }
        if roster is None and spoken:
            unknown.append(
                "whether the sites said it themselves: without a roster their keys are not known here"
            )
        names = (
            {site for site, member in roster.members.by_site.items() if member.active} if roster else spoken
        )
        for site in sorted(names):
            if site not in spoken:
                denied = topics.status(federation, "+") in self._refused
                yield MemberStatus(site, "unknown" if denied else "away")
                continue
            member = None if roster is None else roster.members.active(site)
            try:
                envelope = open_envelope(spoken[site][1], spoken[site][0])
                said = envelope.message
                if member is not None:
                    envelope.verify(member.public_key, NO_IDENTITY)
                assert isinstance(said, Status)
            except MessageError as error:
                yield MemberStatus(site, "unknown", reason=str(error))
                continue
            part: Part = "here" if said.online else "away"
            yield MemberStatus(site, part, version=said.version if said.version >= 0 else None)
