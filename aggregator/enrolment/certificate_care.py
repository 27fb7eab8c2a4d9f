"""Looking after certificates while the aggregator runs: members renew theirs, and its own are renewed.

Where the passphrase is not at hand, what has to be done waits, and the operator is told.
"""

import logging
from datetime import UTC, datetime
from pathlib import Path

from fedmedclip.aggregator.certificate_end import CertificateEnd
from fedmedclip.aggregator.enrolment.certificate_ends import certificate_ends
from fedmedclip.aggregator.enrolment.folder import FederationFolder
from fedmedclip.aggregator.enrolment.membership import (
    left_over_certificates,
    publish_revocations,
    revoke_certificates,
)
from fedmedclip.aggregator.enrolment.passphrase import find_passphrase
from fedmedclip.aggregator.enrolment.reminders import Reminders
from fedmedclip.aggregator.enrolment.renewal import (
    given_before,
    keep_renewal,
    own_certificates,
    refuse_many,
    renew_member,
    renew_own,
    waiting_renewals,
)
from fedmedclip.aggregator.register import Register
from fedmedclip.protocol.certificates import in_der
from fedmedclip.protocol.enrolment.invitation import moment
from fedmedclip.protocol.errors import FedMedClipError
from fedmedclip.protocol.messages import Message, Renewal

log = logging.getLogger("fedmedclip.aggregator")

_EVERY_SECONDS = 3600.0


class CertificateCare:
    """Renews and revokes for a federation's folder, with the passphrase of `passphrase_file`, if any."""

    def __init__(
        self,
        folder: FederationFolder,
        register: Register,
        passphrase_file: Path | None,
        reminders: Reminders,
    ) -> None:
        self._folder = folder
        self._register = register
        self._passphrase_file = passphrase_file
        self._reminders = reminders
        self._due_at: float | None = None
        self._warnings: list[str] = []
        self.ends: list[CertificateEnd] = []
        """When certificates end, as of the last look at them."""

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
        ]

    def look(self, now: float, clock: float, *, roster_changed: bool) -> None:
        """Look after the certificates every hour, and when the roster has changed."""
        if self._due_at is None or roster_changed or now >= self._due_at:
            self._due_at = now + _EVERY_SECONDS
            self._attend(now, clock)

    def _attend(self, now: float, clock: float) -> None:
        """Renew what ends and revoke what is left over, where the passphrase is at hand; else say so."""
        folder, today = self._folder, datetime.fromtimestamp(clock, UTC)
        self._warnings = []
        try:
            self.ends = certificate_ends(folder, self._register.roster)
            publish_revocations(folder)
            due = [own for own in own_certificates(folder) if own.is_due(clock)]
            left_over = left_over_certificates(folder, self._register.roster, today)
            if not due and not left_over:
                return
            if (passphrase := self._passphrase()) is not None:
                with folder.changing():
                    if left_over:
                        revoke_certificates(folder, passphrase, clock)
                    for line in renew_own(folder, passphrase, clock):
                        log.info("renewed: %s", line)
                self.ends = certificate_ends(folder, self._register.roster)
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
            self._reminders.warn("%s", line, now, event="certificate.reminder")

    def _passphrase(self) -> str | None:
        return find_passphrase(None, self._passphrase_file)
