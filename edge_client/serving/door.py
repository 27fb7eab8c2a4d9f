"""What every door of the service is."""

from typing import Protocol


class Door(Protocol):
    """A way in. It acknowledges what comes only when the queue has accepted it."""

    def start(self) -> None:
        """Begin to take in, in threads of its own. Raises InvalidInputError, such as for a port in use."""

    def stop(self) -> None:
        """Take in nothing more; return when what is in hand is accepted or refused. Safe to call twice."""

    def described(self) -> str:
        """Return one line for the log: what it is and where."""
