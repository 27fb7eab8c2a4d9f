"""The two topics of an invitation: all that its holder may use at the broker.

| topic                                 | from       | holds                                             |
|---------------------------------------|------------|---------------------------------------------------|
| `fmc1/{federation}/enrol/{number}`    | newcomer   | its request: `protocol.enrolment.request`         |
| `fmc1/{federation}/enrolled/{number}` | aggregator | the answer, retained: `protocol.enrolment.answer` |
"""

import re

_NUMBER = re.compile(r"[0-9a-f]{16}")
CERTIFICATE_PREFIX = "enrol-"
"""The common name of an invitation's certificate is this and its number."""


def enrol(federation: str, invitation: str) -> str:
    """Topic of the request of who holds an invitation, 16 hexadecimal digits; `+` stands for all."""
    return f"fmc1/{federation}/enrol/{invitation}"


def enrolled(federation: str, invitation: str) -> str:
    """Topic of the retained answer to that request."""
    return f"fmc1/{federation}/enrolled/{invitation}"


def invitation_of(topic: str) -> str | None:
    """Return the invitation that a topic of these names, None where it names none."""
    number = topic.rsplit("/", 1)[-1]
    return number if _NUMBER.fullmatch(number) else None
