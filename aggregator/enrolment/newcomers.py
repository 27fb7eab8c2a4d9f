"""Requests to join that come over the broker, and the answers that lie there until they are fetched."""

import logging
from collections.abc import Callable

from fedmedclip.aggregator.enrolment.answers import answer_in, is_of_request
from fedmedclip.aggregator.enrolment.decisions import take_request
from fedmedclip.aggregator.enrolment.folder import FederationFolder
from fedmedclip.aggregator.enrolment.invitations import KeptInvitation, read_invitations
from fedmedclip.aggregator.publishing import Plain
from fedmedclip.aggregator.register import Register
from fedmedclip.protocol.enrolment.answer import Answer, encode_answer
from fedmedclip.protocol.enrolment.enrolment_topics import enrolled, invitation_of
from fedmedclip.protocol.enrolment.request import MOST_BYTES, open_request
from fedmedclip.protocol.errors import InvalidInputError, MessageError
from fedmedclip.protocol.link.events import Received
from fedmedclip.protocol.roster.entries import Admitted
from fedmedclip.protocol.signature import SigningKey

log = logging.getLogger("fedmedclip.aggregator")

REQUEST_SECONDS = 2.0
"""Between two requests with the same invitation that are looked at."""


class Newcomers:
    """Those who hold an invitation, as the folder has it; `joined` gives the key of each site that was heard
    as a member.
    """

    def __init__(
        self, folder: FederationFolder, register: Register, joined: Callable[[], dict[str, bytes]]
    ) -> None:
        self._folder = folder
        self._register = register
        self._joined = joined
        self.dropped = 0
        """Requests that were not even kept: with no open invitation, malformed, too many."""
        self._invitations: dict[str, KeptInvitation] = {}
        self._answers: dict[str, bytes] = {}
        self._published: dict[str, bytes] = {}
        self._looked_at: dict[str, float] = {}

    def connected(self) -> None:
        """A connection began: every answer is published on it."""
        self._published.clear()

    def read(self) -> None:
        """Read invitations and answers. Raises FedMedClipError, and keeps what was read before."""
        invitations = {kept.number: kept for kept in read_invitations(self._folder)}
        answers = {
            number: (self._folder.answers / f"{number}.answer").read_bytes()
            for number, kept in invitations.items()
            if kept.answered
        }
        self._invitations, self._answers = invitations, answers

    def may_knock(self, clock: float) -> frozenset[str]:
        """Return the numbers of the invitations that are open, or whose answer waits to be fetched."""
        return frozenset(number for number in self._invitations if self._may_knock(number, clock))

    def hear_request(self, received: Received, key: SigningKey, now: float, clock: float) -> list[Plain]:
        """Keep a newcomer's request, when it holds an open invitation; return what to answer at once.

        `key` signs the answer.
        """
        payload, number = received.payload, invitation_of(received.topic)
        kept = None if number is None else self._invitations.get(number)
        too_soon = (
            number is not None and now - self._looked_at.get(number, -REQUEST_SECONDS) < REQUEST_SECONDS
        )
        if number is None or kept is None or too_soon or len(payload) > MOST_BYTES:
            self.dropped += 1
            return []
        self._looked_at[number] = now
        try:
            opened = open_request(payload)
        except MessageError as error:
            self.dropped += 1
            log.warning("refused a request with invitation %s: %s", number, error)
            return []
        if opened.number != number or not opened.holds(bytes.fromhex(kept.invitation.token)):
            self.dropped += 1
            log.warning("refused a request with invitation %s: its sender does not hold that", number)
            return []
        if kept.answered and is_of_request(self._answers[number], opened.digest):
            return [Plain(enrolled(self._folder.settings.name, number), self._answers[number], retain=True)]
        try:
            with self._folder.changing():
                pending = take_request(self._folder, payload, clock, "the request")
        except InvalidInputError as error:
            log.warning("refused the request of %s: %s", kept.invitation.site, error)
            return [self._refusal(number, kept, opened.digest, str(error), key)]
        log.info(
            "%s asks to join, with %d images: fedmedclip federation approve %s",
            pending.kept.invitation.site, opened.request.samples, number,
        )  # fmt: skip
        return []

    def hear_answer(self, message: Received, clock: float) -> list[Plain]:
        """Clear an answer at the broker that nobody needs any more."""
        number = invitation_of(message.topic)
        if not message.retained or not message.payload or number is None or self._is_wanted(number, clock):
            return []
        return [Plain(message.topic, b"", retain=True)]

    def changes(self, clock: float, is_let_in: Callable[[str], bool]) -> list[Plain]:
        """Return what to publish so that the broker has the answers that are wanted, and no others.

        `is_let_in` says whether the broker knows a member already: before, it is not told that it is one.
        """
        messages: list[Plain] = []
        federation = self._folder.settings.name
        wanted = {number: self._answers[number] for number in self._answers if self._is_wanted(number, clock)}
        for number in [number for number, encoded in wanted.items() if number not in self._published]:
            told = answer_in(wanted[number])
            if told.accepted and not is_let_in(told.site):
                del wanted[number]
        for number, answer in wanted.items():
            if self._published.get(number) != answer:
                messages.append(Plain(enrolled(federation, number), answer, retain=True))
        for number in self._published.keys() - wanted.keys():
            messages.append(Plain(enrolled(federation, number), b"", retain=True))
        self._published = wanted
        return messages

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
        member = self._register.roster.members.by_site.get(answer.site)
        if not answer.accepted or member is None or self._joined().get(answer.site) != member.public_key:
            return False
        # Of who comes back with its key it cannot be told whether it joined before it left, or since: such an
        # answer stays as long as its invitation.
        admissions = (record.entry for record in self._register.roster.records)
        return sum(isinstance(entry, Admitted) and entry.site == answer.site for entry in admissions) == 1

    def _refusal(
        self, number: str, kept: KeptInvitation, request: bytes, reason: str, key: SigningKey
    ) -> Plain:
        answer = Answer(
            self._folder.settings.name, kept.invitation.site, request, False, reason[:400], b"", b""
        )
        return Plain(enrolled(self._folder.settings.name, number), encode_answer(answer, key))
