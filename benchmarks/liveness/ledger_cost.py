"""What a site's ledger costs: milliseconds of a record on this disk, bytes of an entry, seconds to verify.

    python -m benchmarks.liveness.ledger_cost FOLDER [ENTRIES]

FOLDER is new, and on the disk that is asked about.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fedmedclip.edge_client.ledger.end import END_SCHEMA, LedgerEnd
from fedmedclip.edge_client.ledger.entry import draft_of
from fedmedclip.edge_client.ledger.message_ledger import MessageLedger
from fedmedclip.edge_client.ledger.segments import segments_in
from fedmedclip.edge_client.ledger.verification import verify
from fedmedclip.protocol.database import Database

_HEARTBEAT = draft_of(
    "out",
    "fmc1/brain-mri/status/hospital-a",
    bytes(89),
    "Status",
    '[11,"qPC0Guo5ckc=",true,0,[1795871970,1,2]]',
)
_BLOCK = draft_of("out", "fmc1/brain-mri/up/hospital-a", bytes(1), "Block", f"object {'a' * 64} block 3")


def measure(folder: Path, entries: int) -> None:
    """Write a ledger of so many entries, and print what it cost."""
    folder.mkdir(parents=True)
    end = LedgerEnd(Database(folder / "site.db", END_SCHEMA))
    ledger = MessageLedger(folder / "ledger", end)

    def record_and_keep() -> None:
        ledger.record_all([_HEARTBEAT])
        ledger.keep_end()

    print(f"a record: {_milliseconds(lambda: ledger.record_all([_HEARTBEAT]), 300)}")
    print(f"100 records together: {_milliseconds(lambda: ledger.record_all([_BLOCK] * 100), 50)}")
    print(f"a record, and its end in site.db: {_milliseconds(record_and_keep, 100)}")
    while (missing := entries - ledger.newest.number) > 0:
        ledger.record_all([_HEARTBEAT] * min(5000, missing))
    ledger.close()
    size = sum(path.stat().st_size for _, path in segments_in(folder / "ledger"))
    print(
        f"{ledger.newest.number} entries: {size / 1e6:.1f} MB, {size / ledger.newest.number:.0f} bytes each"
    )
    started = time.perf_counter()
    whole = verify(folder / "ledger", end.mark()).whole
    print(f"verify: {time.perf_counter() - started:.1f} s, {'whole' if whole else 'NOT whole'}")
    started = time.perf_counter()
    MessageLedger(folder / "ledger", end).close()
    print(f"a start: {1000 * (time.perf_counter() - started):.1f} ms")


def _milliseconds(work: Callable[[], object], times: int) -> str:
    found = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        found.append(1000 * (time.perf_counter() - started))
    return f"{statistics.median(found):.2f} ms in the median, {max(found):.1f} at most"


if __name__ == "__main__":
    measure(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 525_600)
