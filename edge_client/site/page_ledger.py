"""Reading the ledger for the page: what left and what came, and whether the record of it is whole."""

import threading
import time
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path

from msgspec.structs import replace

from fedmedclip.edge_client.ledger.segments import LEDGER_FOLDER, newest_entries
from fedmedclip.edge_client.ledger.totals import QUARTER_SECONDS, Count, Key, RunningTotals
from fedmedclip.edge_client.ledger.verification import verify
from fedmedclip.edge_client.page import view as shown
from fedmedclip.edge_client.page.view import SiteView
from fedmedclip.edge_client.site.ledger_view import LedgerView
from fedmedclip.edge_client.site.policy import PolicySettings
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.errors import FedMedClipError

_MOST_ENTRIES = 50
_MOST_FAULTS = 5
_DAYS = 14
_BETWEEN_VERIFICATIONS = 3600.0


class LedgerReader:
    """Adds the ledger to a view. The whole of it is verified in a thread of its own, once an hour at most."""

    def __init__(self, configuration_file: Path, state_folder: Path, policy: PolicySettings) -> None:
        self._configuration_file = configuration_file
        self._folder = state_folder / LEDGER_FOLDER
        self._policy = policy
        self._lock = threading.Lock()
        self._begun_at: float | None = None
        self._verified: shown.Verification | None = None

    def read(self, state: SiteState, view: SiteView, at: float) -> SiteView:
        """Add what left this site and what came."""
        counted, policy = state.ledger_end.totals(), self._policy
        totals = RunningTotals(counted).totals(at)
        self._verify_now_and_then()
        kinds = [
            shown.KindTraffic(found.direction, found.kind, _traffic(found.today), _traffic(found.in_all))
            for found in totals.kinds
        ]
        ledger = shown.Ledger(
            _traffic(totals.sent_today),
            _traffic(totals.sent),
            _traffic(totals.received_today),
            _traffic(totals.received),
            policy.bytes_per_day,
            policy.bytes_in_all,
            None,
            policy.rounds_in_all,
            days_of(counted, datetime.fromtimestamp(at).date()),
            kinds,
            self._newest(),
            self._verified,
        )
        return replace(view, ledger=ledger)

    def verify(self) -> str:
        """Read the whole ledger and return in a sentence whether it is whole."""
        found = self._verify()
        if found.faults:
            return f"The ledger is not whole: {found.faults[0]}"
        return f"The ledger is whole: {found.entries} entries, unchanged and none missing."

    def report(self) -> bytes:
        """Return the report for the data protection officer, as one HTML file."""
        view = LedgerView(self._configuration_file)
        try:
            return view.report()
        finally:
            view.close()

    def _newest(self) -> list[shown.Recorded]:
        try:
            entries = newest_entries(self._folder, _MOST_ENTRIES)
        except OSError:
            return []
        return [
            shown.Recorded(
                entry.number,
                entry.at,
                entry.direction,
                entry.kind,
                entry.bytes,
                entry.sha256,
                # What a short message says, as JSON, is for programs: `ledger show`.
                "" if entry.note.startswith("[") else entry.note,
            )
            for entry in entries
        ]

    def _verify_now_and_then(self) -> None:
        now = time.monotonic()
        if self._begun_at is None or now - self._begun_at >= _BETWEEN_VERIFICATIONS:
            self._begun_at = now
            threading.Thread(target=self._verify, name="ledger-verification", daemon=True).start()

    def _verify(self) -> shown.Verification:
        with self._lock:
            try:
                view = LedgerView(self._configuration_file)
                try:
                    verdict = verify(view.folder, view.known)
                finally:
                    view.close()
            except FedMedClipError as error:
                self._verified = shown.Verification(time.time(), 0, [str(error)])
            else:
                self._verified = shown.Verification(
                    time.time(), verdict.entries, verdict.faults[:_MOST_FAULTS]
                )
            return self._verified


def days_of(counted: Mapping[Key, tuple[int, int]], today: date) -> list[shown.DayTraffic]:
    """Return the bytes that left on each of the newest days of this machine's calendar, oldest first."""
    days = dict.fromkeys((today - timedelta(days=ago) for ago in reversed(range(_DAYS))), 0)
    for (quarter, direction, _), (_, size) in counted.items():
        day = datetime.fromtimestamp(quarter * QUARTER_SECONDS).date()
        if direction == "out" and day in days:
            days[day] += size
    return [shown.DayTraffic((today - day).days, size) for day, size in days.items()]


def _traffic(count: Count) -> shown.Traffic:
    return shown.Traffic(count.messages, count.bytes)
