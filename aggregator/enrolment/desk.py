"""What the running aggregator does for the federation folder: it follows the roster, takes requests, answers.

    enrol/{number}    -> checked -> requests/        (one per open invitation, the newest)
    approvals/        -> enrolled/{number}, retained (until it is fetched, or the invitation has expired)
    roster            -> roster, retained; members, keys and weights of the coordinator
    RenewalRequest    -> Renewal, or requests/ where the passphrase is not at hand

The command line changes the same folder: what it did is noticed within about a second. Times `now` are
readings of a monotonic clock, `clock` is in seconds since 1970.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from fedmedclip.aggregator.authority.access_rules import WantedAccess
from fedmedclip.aggregator.configuration import AggregatorConfiguration, key_file_of
from fedmedclip.aggregator.enrolment.answers import answer_in, is_of_request
from fedmedclip.aggregator.enrolment.decisions import certificate_with, take_request
from fedmedclip.aggregator.enrolment.folder import FederationFolder, open_folder
from fedmedclip.aggregator.enrolment.invitations import KeptInvitation, read_invitations
from fedmedclip.aggregator.enrolment.membership import (
    left_over_certificates,
    publish_revocations,
    revoke_certificates,
)
from fedmedclip.aggregator.enrolment.passphrase import find_passphrase
from fedmedclip.aggregator.enrolment.renewal import (
    given_before,
    keep_renewal,
    own_certificates,
    refuse_many,
    renew_member,
    renew_own,
    waiting_renewals,
)
from fedmedclip.aggregator.enrolment.retained_roster import longer_roster
from fedmedclip.aggregator.publishing import Plain
from fedmedclip.aggregator.register import Register
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol import topics
from fedmedclip.protocol.certificates import in_der
from fedmedclip.protocol.configuration import beside
from fedmedclip.protocol.enrolment.answer import Answer, encode_answer
from fedmedclip.protocol.enrolment.enrolment_topics import enrol, enrolled, invitation_of
from fedmedclip.protocol.enrolment.invitation import moment
from fedmedclip.protocol.enrolment.request import MOST_BYTES, open_request
from fedmedclip.protocol.errors import FedMedClipError, InvalidInputError, MessageError
from fedmedclip.protocol.link.events import Received
from fedmedclip.protocol.messages import Message, Renewal
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.roster.entries import Renewed

log = logging.getLogger("fedmedclip.aggregator")

# Between two requests with the same invitation that are looked at.
REQUEST_SECONDS = 2.0
# How long the roster at the broker, which may be longer than ours, is waited for before ours is published.
ROSTER_SECONDS = 1.0
# A file that was changed so shortly before it was read may have been changed again in the same tick of the
# file system's clock.
_UNSETTLED_SECONDS = 2.0
_CERTIFICATES_SECONDS = 3600.0
_WARN_SECONDS = 86400.0


@dataclass
class News:
    """What a look at the folder found: messages of the protocol to sign, plain ones, another roster."""

    roster_changed: bool = False
    notice_due: bool = False
    messages: list[tuple[str, Message]] = field(default_factory=list)
    plain: list[Plain] = field(default_factory=list)


class Desk:
    """The folder's side of a running aggregator. Raises FedMedClipError for a folder that cannot be used."""

    def __init__(
        self, folder: FederationFolder, passphrase_file: Path | None, joined: Callable[[], dict[str, bytes]]
    ) -> None:
        """Open it. `joined` gives the key of each site that the aggregator has heard as a member."""
        self._folder = folder
        self._passphrase_file = passphrase_file
        self._joined = joined
        self.key = folder.key()
        self.register = Register(folder.roster())
        self.dropped = 0
        """Requests that were not even kept: with no open invitation, malformed, too many."""
        self._invitations: dict[str, KeptInvitation] = {}
        self._answers: dict[str, bytes] = {}
        self._published: dict[str, bytes] = {}
        self._seen: object = None
        self._looked_at: dict[str, float] = {}
        self._notice_at: float | None = None
        self._certificates_at: float | None = None
        self._warnings: list[str] = []
        self._warned_at: dict[str, float] = {}
        self._read()

    def connected(self, now: float) -> None:
        """A connection began: all that is retained is published on it, the roster after a moment."""
        self._notice_at = now + ROSTER_SECONDS
        self._published.clear()

    def wanted_access(self, clock: float) -> WantedAccess:
        """Return who is to get through to the broker: active members, and who holds an open invitation."""
        members = self.register.roster.members.by_site
        return WantedAccess(
            frozenset(site for site, member in members.items() if member.active),
            frozenset(number for number in self._invitations if self._may_knock(number, clock)),
        )

    def look(self, now: float, clock: float, is_let_in: Callable[[str], bool] = lambda site: True) -> News:
        """Notice what changed in the folder and what is due; return what follows.

        `is_let_in` says whether the broker knows a member already: before, it is not told that it is one.
        """
        news = News()
        if self._notice_at is not None and now >= self._notice_at:
            self._notice_at, news.notice_due = None, True
        if self._changed(clock):
            self._refresh(news)
        if self._certificates_at is None or news.roster_changed or now >= self._certificates_at:
            self._certificates_at = now + _CERTIFICATES_SECONDS
            self._attend_to_certificates(now, clock)
        self._publish_answers(news, clock, is_let_in)
        return news

    @property
    def topic_filters(self) -> list[str]:
        """What to subscribe to; `roster` and `enrolled` are our own, to see what somebody changed there."""
        federation = self._folder.settings.name
        return [topics.roster(federation), enrol(federation, "+"), enrolled(federation, "+")]

    def takes(self, topic: str) -> bool:
        """Whether a message on this topic is for nobody else."""
        return topics.channel_of(topic) in ("enrol", "enrolled")

    def hear(self, message: Received, now: float, clock: float) -> list[Plain]:
        """Handle what comes on a topic that it `takes`; return what to publish at once."""
        if topics.channel_of(message.topic) == "enrol":
            return self._hear_request(message.topic, message.payload, now, clock)
        return self._hear_answer(message, clock)

    def hear_notice(self, topic: str, payload: bytes) -> None:
        """Look at what is retained as the roster; one that continues ours takes its place.

        Raises InvalidInputError when the broker has a longer one that cannot be taken back: to go on with
        ours would forget who was revoked.
        """
        longer = longer_roster(topic, payload, self.register.roster)
        if longer is None:
            return
        with self._folder.changing():
            if longer.continues(self._folder.roster()):
                write_new_file(self._folder.roster_file, longer.encoded)
        log.warning(
            "the broker retains a roster of %d records, %d were here: going on with the longer one",
            len(longer.records), len(self.register.roster.records),
        )  # fmt: skip
        self.key = self._folder.key()

    def _hear_request(self, topic: str, payload: bytes, now: float, clock: float) -> list[Plain]:
        """Keep a newcomer's request, when it holds an open invitation; return what to answer at once."""
        number = invitation_of(topic)
        kept = None if number is None else self._invitations.get(number)
        too_soon = (
            number is not None and now - self._looked_at.get(number, -REQUEST_SECONDS) < REQUEST_SECONDS
        )
        if number is None or kept is None or too_soon or len(payload) > MOST_BYTES:
            self.dropped += 1
            return []
        self._looked_at[number] = now
        try:
            received = open_request(payload)
        except MessageError as error:
            self.dropped += 1
            log.warning("refused a request with invitation %s: %s", number, error)
            return []
        if received.number != number or not received.holds(bytes.fromhex(kept.invitation.token)):
            self.dropped += 1
            log.warning("refused a request with invitation %s: its sender does not hold that", number)
            return []
        if kept.answered and is_of_request(self._answers[number], received.digest):
            return [Plain(enrolled(self._folder.settings.name, number), self._answers[number], retain=True)]
        try:
            with self._folder.changing():
                pending = take_request(self._folder, payload, clock, "the request")
        except InvalidInputError as error:
            log.warning("refused the request of %s: %s", kept.invitation.site, error)
            return [self._refusal(number, kept, received.digest, str(error))]
        log.info(
            "%s asks to join, with %d images: fedmedclip federation approve %s",
            pending.kept.invitation.site, received.request.samples, number,
        )  # fmt: skip
        return []

    def _hear_answer(self, message: Received, clock: float) -> list[Plain]:
        """Clear an answer at the broker that nobody needs any more."""
        number = invitation_of(message.topic)
        if not message.retained or not message.payload or number is None or self._is_wanted(number, clock):
            return []
        return [Plain(message.topic, b"", retain=True)]

    def renew(self, site: str, request: bytes, clock: float) -> Message | None:
        """Return a member's new certificate; None where it waits for the passphrase, or follows by itself.

        Raises FedMedClipError for a request that is refused.
        """
        if (known := given_before(self._folder, site, request, clock)) is not None:
            return Renewal(in_der(known))
        refuse_many(self._folder, site, clock)
        passphrase = self._passphrase()
        with self._folder.changing():
            if passphrase is None:
                keep_renewal(self._folder, site, request)
                log.info("%s waits for a new certificate: fedmedclip federation renew", site)
            else:
                # The roster has changed then, from which the answer follows.
                renew_member(self._folder, site, request, passphrase, clock)
        return None

    def warnings(self) -> list[str]:
        """Return what the operator should know, a line each."""
        waiting = waiting_renewals(self._folder)
        return [
            *self._warnings,
            *(
                [f"waiting for a certificate: {', '.join(waiting)}; fedmedclip federation renew"]
                * bool(waiting)
            ),
            *([f"{self.dropped} requests to join were dropped"] * bool(self.dropped)),
        ]

    def _changed(self, clock: float) -> bool:
        folder = self._folder
        paths = (folder.roster_file, folder.invitations, folder.requests, folder.answers)
        stats = [path.stat() for path in paths if path.exists()]
        seen = [(stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in stats]
        unsettled = any(abs(clock - stat.st_mtime) < _UNSETTLED_SECONDS for stat in stats)
        changed, self._seen = seen != self._seen or unsettled, seen
        return changed

    def _refresh(self, news: News) -> None:
        before = self.register.roster
        try:
            self._read()
            if self.register.roster.coordinator_key != self.key.public_key:
                self.key = self._folder.key()
        except FedMedClipError as error:
            self._warn("the federation folder was changed and cannot be used: %s", str(error))
            return
        newer = self.register.roster.records[len(before.records) :]
        if not newer:
            return
        news.roster_changed = news.notice_due = True
        self._notice_at = None
        for record in newer:
            if isinstance(record.entry, Renewed):
                certificate = certificate_with(self._folder, record.entry.certificate)
                topic = topics.down(self._folder.settings.name, record.entry.site)
                news.messages.append((topic, Renewal(in_der(certificate))))
        log.info("the roster has %d records now", len(self.register.roster.records))

    def _read(self) -> None:
        roster = self._folder.roster(self.register.roster)
        invitations = {kept.number: kept for kept in read_invitations(self._folder)}
        answers = {
            number: (self._folder.answers / f"{number}.answer").read_bytes()
            for number, kept in invitations.items()
            if kept.answered
        }
        self.register.roster, self._invitations, self._answers = roster, invitations, answers

    def _may_knock(self, number: str, clock: float) -> bool:
        kept = self._invitations[number]
        if clock > kept.invitation.expires:
            return False
        if not kept.answered:
            return True
        answer = answer_in(self._answers[number])
        # Taken back before anybody asked, or fetched.
        return any(answer.request) and not self._is_fetched(answer)

    def _is_wanted(self, number: str, clock: float) -> bool:
        return number in self._answers and self._may_knock(number, clock)

    def _is_fetched(self, answer: Answer) -> bool:
        member = self.register.roster.members.by_site.get(answer.site)
        return answer.accepted and member is not None and self._joined().get(answer.site) == member.public_key

    def _publish_answers(self, news: News, clock: float, is_let_in: Callable[[str], bool]) -> None:
        federation = self._folder.settings.name
        wanted = {number: self._answers[number] for number in self._answers if self._is_wanted(number, clock)}
        for number in [number for number, encoded in wanted.items() if number not in self._published]:
            told = answer_in(wanted[number])
            if told.accepted and not is_let_in(told.site):
                del wanted[number]
        for number, answer in wanted.items():
            if self._published.get(number) != answer:
                news.plain.append(Plain(enrolled(federation, number), answer, retain=True))
        for number in self._published.keys() - wanted.keys():
            news.plain.append(Plain(enrolled(federation, number), b"", retain=True))
        self._published = wanted

    def _refusal(self, number: str, kept: KeptInvitation, request: bytes, reason: str) -> Plain:
        answer = Answer(
            self._folder.settings.name, kept.invitation.site, request, False, reason[:400], b"", b""
        )
        return Plain(enrolled(self._folder.settings.name, number), encode_answer(answer, self.key))

    def _attend_to_certificates(self, now: float, clock: float) -> None:
        """Renew what ends and revoke what is left over, where the passphrase is at hand; else say so."""
        folder, today = self._folder, datetime.fromtimestamp(clock, UTC)
        self._warnings = []
        try:
            publish_revocations(folder)
            due = [own for own in own_certificates(folder) if own.is_due(clock)]
            left_over = left_over_certificates(folder, self.register.roster, today)
            if not due and not left_over:
                return
            if (passphrase := self._passphrase()) is not None:
                with folder.changing():
                    if left_over:
                        revoke_certificates(folder, passphrase, clock)
                    for line in renew_own(folder, passphrase, clock):
                        log.info("renewed: %s", line)
                due, left_over = [own for own in own_certificates(folder) if own.is_due(clock)], []
            for own in due:
                self._warnings.append(
                    f"the certificate of {own.what} ends at {moment(own.ends)}: fedmedclip federation renew"
                )
            if left_over:
                names = ", ".join(sorted({certificate.common_name for certificate in left_over}))
                self._warnings.append(
                    f"the revocation list lacks certificates of {names}: fedmedclip federation renew"
                )
        except FedMedClipError as error:
            self._warnings.append(f"certificates were not looked after: {error}")
        for line in self._warnings:
            self._warn("%s", line, now)

    def _passphrase(self) -> str | None:
        return find_passphrase(None, self._passphrase_file)

    def _warn(self, words: str, line: str, now: float = 0.0) -> None:
        if line not in self._warned_at or now - self._warned_at[line] >= _WARN_SECONDS:
            self._warned_at[line] = now
            log.warning(words, line)


def desk_of(configuration_file: Path, configuration: AggregatorConfiguration, store: Store) -> Desk | None:
    """Open the federation folder that a configuration names, if it names one. Raises InvalidInputError."""
    settings = configuration.federation
    if settings.roster is None:
        return None
    folder = open_folder(beside(configuration_file, settings.roster).parent)
    key_file = key_file_of(configuration_file, configuration)
    if key_file != folder.key_file or beside(configuration_file, settings.roster) != folder.roster_file:
        raise InvalidInputError(
            f"{configuration_file}: key and roster are the files of one federation's folder: "
            f"{folder.key_file} and {folder.roster_file}"
        )
    if settings.name != folder.settings.name:
        raise InvalidInputError(
            f"{configuration_file} is of the federation {settings.name!r}, {folder.path} of "
            f"{folder.settings.name!r}"
        )
    passphrase = settings.authority_passphrase_file
    return Desk(folder, None if passphrase is None else beside(configuration_file, passphrase), store.sites)
