"""How often somebody may do something: a token bucket."""

from dataclasses import dataclass


@dataclass
class Allowance:
    """So many as `burst` at once after a silence, then one in `seconds`. Times as of a monotonic clock."""

    burst: float
    seconds: float
    since: float
    left: float = -1.0

    def __post_init__(self) -> None:
        if self.left < 0:
            self.left = self.burst

    def take(self, now: float) -> bool:
        """Take one, if one is left."""
        self.refill(now)
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def refill(self, now: float) -> None:
        """Let come back what came back until now."""
        self.left = min(self.burst, self.left + (now - self.since) / self.seconds)
        self.since = now
