"""A thin link as a person writes it, and how long a round takes on it."""

import re
from dataclasses import dataclass

from fedmedclip.protocol.errors import InvalidInputError

_RATE_UNITS = {"bit/s": 1.0, "kbit/s": 1e3, "Mbit/s": 1e6, "Gbit/s": 1e9}
_TIME_UNITS = {"ms": 1e-3, "s": 1.0}


@dataclass(frozen=True)
class ThinLink:
    """Bits per second in each direction, and the seconds of a round trip."""

    bits_per_second: float
    round_trip_seconds: float

    def seconds(self, payload_bytes: float, exchanges: float) -> float:
        """Return 8 * bytes / rate + exchanges * round trip.

        The two directions are added, because a site sends its update before it receives the next head. An
        exchange is a message and the wait for its answer. Training, waiting for other sites, and the headers
        of TCP/IP and MQTT are not in it.
        """
        return 8 * payload_bytes / self.bits_per_second + exchanges * self.round_trip_seconds


def parse_link(rate: str, round_trip: str) -> ThinLink:
    """Read `64kbit/s` and `600ms`. Raises InvalidInputError with what is allowed."""
    bits_per_second = _quantity("--link", rate, _RATE_UNITS, "64kbit/s")
    if bits_per_second <= 0:
        raise InvalidInputError(f"--link {rate!r}: nothing passes over it; give a rate such as 64kbit/s")
    return ThinLink(bits_per_second, _quantity("--rtt", round_trip, _TIME_UNITS, "600ms"))


def _quantity(option: str, text: str, units: dict[str, float], example: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(\S+)", text.strip())
    if found is None or found[2] not in units:
        raise InvalidInputError(
            f"{option} {text!r} is not a number with one of {', '.join(units)}; write for example {example}"
        )
    return float(found[1]) * units[found[2]]
