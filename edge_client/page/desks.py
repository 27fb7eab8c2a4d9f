"""What the buttons of the page do: the same as the commands, by the same functions.

Each returns a sentence that says what was done, and raises FedMedClipError where it cannot be. `by` is
who asks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class ConsentDesk(Protocol):
    """Decides plans, as `fedmedclip site approve` and `refuse` do."""

    def approve(self, terms: str, reason: str, by: str) -> str:
        """Approve the plan that is asked for, if its hash is `terms`."""

    def refuse(self, terms: str, reason: str, by: str) -> str:
        """Refuse the plan that was heard last, if its hash is `terms`."""


class VersionShelf(Protocol):
    """Changes which version answers, as `fedmedclip site activate` and `rollback` do."""

    def activate(self, name: str, by: str) -> str:
        """Make the version that is called `name` the active one."""

    def rollback(self, by: str) -> str:
        """Go back to the version that was active before."""


@dataclass(frozen=True)
class Desks:
    """What this page can do. What is None has no button."""

    consent: ConsentDesk | None = None
    versions: VersionShelf | None = None
    verify: Callable[[], str] | None = None
    """Reads the whole ledger anew."""
    report: Callable[[], bytes] | None = None
    """Makes the report for the data protection officer, as one HTML file."""
    metrics: Callable[[], bytes] | None = None
    """What Prometheus reads."""
