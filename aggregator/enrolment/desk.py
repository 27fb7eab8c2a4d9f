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
from pathlib import Path

from fedmedclip.aggregator.authority.access_rules import WantedAccess
from fedmedclip.aggregator.certificate_end import CertificateEnd
from fedmedclip.aggregator.configuration import AggregatorConfiguration, key_file_of
from fedmedclip.aggregator.enrolment.certificate_care import CertificateCare
from fedmedclip.aggregator.enrolment.decisions import certificate_with
from fedmedclip.aggregator.enrolment.folder import FederationFolder, open_folder
from fedmedclip.aggregator.enrolment.newcomers import Newcomers
from fedmedclip.aggregator.enrolment.reminders import Reminders
from fedmedclip.aggregator.enrolment.retained_roster import longer_roster
from fedmedclip.aggregator.publishing import Plain
from fedmedclip.aggregator.register import Register
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol import topics
from fedmedclip.protocol.certificates import in_der
from fedmedclip.protocol.configuration import beside
from fedmedclip.protocol.enrolment.enrolment_topics import enrol, enrolled
from fedmedclip.protocol.errors import FedMedClipError, InvalidInputError
from fedmedclip.protocol.link.events import Received
from fedmedclip.protocol.messages import Message, Renewal
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.roster.entries import Renewed

log = logging.getLogger("fedmedclip.aggregator")

# How long the roster at the broker, which may be longer than ours, is waited for before ours is published.
ROSTER_SECONDS = 1.0
# A file that was changed so shortly before it was read may have been changed again in the same tick of the
# file system's clock.
_UNSETTLED_SECONDS = 2.0


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
        self.key = folder.key()
        self.register = Register(folder.roster())
        self._newcomers = Newcomers(folder, self.register, joined)
        self._reminders = Reminders()
        self._certificates = CertificateCare(folder, self.register, passphrase_file, self._reminders)
        self._seen: object = None
        self._notice_at: float | None = None
        self._read()

    def connected(self, now: float) -> None:
        """A connection began: all that is retained is published on it, the roster after a moment."""
        self._notice_at = now + ROSTER_SECONDS
        self._newcomers.connected()

    def wanted_access(self, clock: float) -> WantedAccess:
        """Return who is to get through to the broker: active members, and who holds an open invitation."""
        members = self.register.roster.members.by_site
        return WantedAccess(
            frozenset(site for site, member in members.items() if member.active),
            self._newcomers.may_knock(clock),
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
        self._certificates.look(now, clock, roster_changed=news.roster_changed)
        news.plain += self._newcomers.changes(clock, is_let_in)
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
            return self._newcomers.hear_request(message, self.key, now, clock)
        return self._newcomers.hear_answer(message, clock)

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

    def renew(self, site: str, request: bytes, clock: float) -> Message | None:
        """Return a member's new certificate; None where it waits for the passphrase, or follows by itself.

        Raises FedMedClipError for a request that is refused.
        """
        return self._certificates.renew(site, request, clock)

    @property
    def dropped(self) -> int:
        """How many requests were not even kept: with no open invitation, malformed, too many."""
        return self._newcomers.dropped

    @property
    def certificates(self) -> list[CertificateEnd]:
        """When certificates end, as of the last look at them."""
        return self._certificates.ends

    def warnings(self) -> list[str]:
        """Return what the operator should know, a line each."""
        return [
            *self._certificates.warnings(),
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
            self._reminders.warn("the federation folder was changed and cannot be used: %s", str(error))
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
        self._newcomers.read()
        self.register.roster = roster


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
