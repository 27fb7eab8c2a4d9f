"""A site's ledger as its commands and its page see it: from the configuration, while the site runs or not."""

import re
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import msgspec

from fedmedclip.edge_client.ledger.account import account_of
from fedmedclip.edge_client.ledger.end import Mark
from fedmedclip.edge_client.ledger.entry import Entry
from fedmedclip.edge_client.ledger.listing import moment_words
from fedmedclip.edge_client.ledger.replay import Replay, Signer, replay
from fedmedclip.edge_client.ledger.report import Subject, report_html
from fedmedclip.edge_client.ledger.segments import LEDGER_FOLDER, read_entries
from fedmedclip.edge_client.ledger.totals import RunningTotals, Totals
from fedmedclip.edge_client.ledger.verification import Verdict, verify
from fedmedclip.edge_client.site.configuration import SiteConfiguration
from fedmedclip.edge_client.site.consent import Decision
from fedmedclip.edge_client.site.spending import spending_lines, spending_of
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.configuration import beside, read_configuration
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.signature import load_signing_key


class LedgerView:
    """The ledger of the site that a configuration file is of. Raises InvalidInputError where it has none."""

    def __init__(self, configuration_file: Path) -> None:
        self._configuration = read_configuration(configuration_file, SiteConfiguration)
        self._state_folder = beside(configuration_file, self._configuration.site.state)
        self.folder = self._state_folder / LEDGER_FOLDER
        database = self._state_folder / "site.db"
        self._state = SiteState(database) if database.exists() else None
        self.known: Mark | None = None if self._state is None else self._state.ledger_end.mark()
        """The end of the ledger as the state knew it, before anything of the ledger was read."""
        if self.known is None and not self.folder.is_dir():
            self.close()
            raise InvalidInputError(f"{self.folder} does not exist: this site has sent and received nothing")

    def close(self) -> None:
        """Release the state."""
        if self._state is not None:
            self._state.close()

    def entries(self) -> Iterator[Entry]:
        """Return the entries, oldest first."""
        return read_entries(self.folder)

    def totals(self) -> Totals:
        """Return how much has left and come, as the state counts it: up to the last second or so."""
        counted = {} if self._state is None else self._state.ledger_end.totals()
        return RunningTotals(counted).totals(time.time())

    def replay(self) -> Replay | None:
        """Make again what was sent; None without a key or state. Raises StorageError or InvalidInputError."""
        key_file = self._state_folder / "site.key"
        if self._state is None or not key_file.exists():
            return None
        settings = self._configuration.site
        signer = Signer(
            settings.federation, settings.name, load_signing_key(key_file), self._state.plan_identities()
        )
        return replay(self.entries, self._state.update_sources, signer)

    def subject(self) -> Subject:
        """Return what a report says of this site beside its ledger."""
        settings, key_file = self._configuration.site, self._state_folder / "site.key"
        key = load_signing_key(key_file).public_key.hex() if key_file.exists() else "none yet"
        spent: list[str] = []
        if self._state is not None and self._state.releases.listing():
            spent = spending_lines(spending_of(self._state.releases, self._configuration.privacy))
        return Subject(
            settings.name,
            settings.federation,
            key,
            self._coordinator_key(),
            version("fedmedclip-edge"),
            time.time(),
            self._settings(),
            self._decisions(),
            spent,
        )

    def report(self) -> bytes:
        """Return the report for the data protection officer, as one HTML file."""
        verdict = verify(self.folder, self.known)
        return report_html(self.subject(), account_of(self.entries()), verdict, self.replay()).encode()

    def _decisions(self) -> list[tuple[str, str]]:
        decided = [] if self._state is None else self._state.consents.decisions()
        return [(moment_words(decision.at), _in_words(decision)) for decision in decided]

    def _coordinator_key(self) -> str | None:
        pinned = self._configuration.site.aggregator_key
        heard = None if self._state is None else self._state.coordinator_key()
        return pinned or (None if heard is None else heard.hex())

    def _settings(self) -> list[tuple[str, str]]:
        policy, privacy = self._configuration.policy, self._configuration.privacy
        asked = policy.approve == "ask"
        noise = f"epsilon {privacy.epsilon} at delta {privacy.delta}, for each {privacy.unit}"
        told = f"yes, but no number of images below {policy.smallest_count}"
        return [
            ("A new plan is trained", "once this site's operator has approved it" if asked else "at once"),
            ("Bytes that may leave on a day", _bound(policy.bytes_per_day)),
            ("Bytes that may leave in all", _bound(policy.bytes_in_all)),
            ("Rounds to which this site contributes", _bound(policy.rounds_in_all)),
            ("The coordinator is told how good each version is here", told if policy.share_metrics else "no"),
            (
                "Differential privacy that this site demands of all runs together",
                "none" if privacy.epsilon is None else noise,
            ),
            ("A site with fewer training images sends no update", f"{privacy.least_images}"),
            (
                "Classes with fewer training images are left out of statistics",
                f"{privacy.least_images_per_class}",
            ),
        ]


def _bound(value: int | None) -> str:
    return "no bound" if value is None else f"at most {value:,}"


def noted_mark(text: str) -> Mark:
    """Return an entry that was noted as NUMBER:HASH. Raises InvalidInputError."""
    if (found := re.fullmatch(r"(\d{1,18}):([0-9a-f]{64})", text.strip().lower())) is None:
        raise InvalidInputError(
            f"--against {text!r} is no NUMBER:HASH, as `ledger verify` and reports have it"
        )
    return Mark(int(found.group(1)), found.group(2))


def verdict_line(verdict: Verdict) -> str:
    """Return in a line that a ledger is whole."""
    if verdict.first_at is None or verdict.last_at is None:
        return "whole: no entry yet"
    state = (
        ""
        if verdict.known_to_state is not None
        else "; the state knows nothing of it: its end may be missing"
    )
    torn = "; one more is being written" if verdict.incomplete else ""
    return (
        f"whole: {verdict.entries} entries from {moment_words(verdict.first_at)} to "
        f"{moment_words(verdict.last_at)}; newest {verdict.newest_number}:{verdict.newest_hash}{torn}{state}"
    )


def totals_line(totals: Totals) -> str:
    """Return in a line how much has left and come."""
    return (
        f"sent {totals.sent.bytes:,} bytes in {totals.sent.messages:,} messages, today "
        f"{totals.sent_today.bytes:,} in {totals.sent_today.messages:,}; received {totals.received.bytes:,} "
        f"bytes in {totals.received.messages:,}, today {totals.received_today.bytes:,} in "
        f"{totals.received_today.messages:,}"
    )


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _in_words(decision: Decision) -> str:
    what = f"run {decision.run}, {decision.rounds} rounds, " if decision.run else "a plan that was to come, "
    words = "approved" if decision.approved else "refused"
    reason = f": {decision.reason}" if decision.reason else ""
    return f"{words} by {decision.by}: {what}terms {decision.terms[:16]}{reason}"
