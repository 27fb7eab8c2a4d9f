"""What a site does at its broker, rehearsed: connect, leave a will, publish, retain, read, clear.

Under an identifier and on a topic of the doctor's own, so that a running site, its session and its status
stay as they are; with `broker.client_id` under that one, which ends what the broker keeps for a stopped site.
On the site's `up` topic goes an empty message, which an aggregator logs and refuses.
"""

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass

from fedmedclip.edge_client.doctor.finding import Finding, bad, good, note
from fedmedclip.protocol import topics
from fedmedclip.protocol.link.link import (
    Connected,
    Disconnected,
    Event,
    Link,
    Message,
    Published,
    PublishRefused,
    Received,
    SubscriptionRefused,
)
from fedmedclip.protocol.link.settings import LinkSettings

_SECONDS = 20.0
# For the link, where the broker hangs up without a word, to find out over what.
_PATIENCE_SECONDS = 30.0
_SLOWEST_BYTES_PER_SECOND = 1000
# What is retained comes with the subscription or not at all.
_RETAINED_SECONDS = 3.0
_WORDS = b"fedmedclip doctor"
_RULES = "check the broker's access rules; deploy/federation.acl has those that a site needs"


class _EndedError(Exception):
    """The connection ended; the text says why."""


@dataclass(frozen=True)
class _Place:
    """Where the site publishes and reads, and where the doctor tries."""

    federation: str
    site: str

    @property
    def own(self) -> str:
        return f"fmc1/{self.federation}/doctor/{self.site}"

    @property
    def up(self) -> str:
        return topics.up(self.federation, self.site)


def rehearse(settings: LinkSettings, federation: str, site: str) -> Iterator[Finding]:
    """Try it with the site's own settings and credentials, until the connection ends."""
    place = _Place(federation, site)
    client_id = settings.client_id or f"fmcdoctor{secrets.token_hex(7)}"
    will = Message(place.own, _WORDS, retain=True)
    with Link(settings, client_id=client_id, will=will, lasting=False) as link:
        try:
            connected = _connected(link)
            yield good(
                "MQTT",
                f"the broker accepts this site (MQTT {connected.protocol}), "
                f"with messages of {connected.largest_payload} bytes",
            )
            if connected.protocol != "5":
                yield _largest(link, place)
            yield _delivery(link, place)
            yield _retention(link, place)
            yield _plan(link, place)
        except _EndedError as error:
            yield bad("MQTT", str(error), "ask who runs the broker; user name and password are in [broker]")


def _connected(link: Link) -> Connected:
    event = _next(link, _SECONDS, Connected)
    if not isinstance(event, Connected):
        raise _EndedError(f"no answer within {_SECONDS:.0f} s")
    return event


def _largest(link: Link, place: _Place) -> Finding:
    """Find the largest message by trying: MQTT 3.1.1 has no word for it, the broker hangs up."""
    configured = link.largest_payload
    while True:
        size = link.largest_payload
        link.publish(place.own, bytes(size))
        seconds = _SECONDS + size / _SLOWEST_BYTES_PER_SECOND
        match _next(link, seconds, Published):
            case Published() if size == configured:
                return good("size", f"the broker takes messages of {size} bytes")
            case Published():
                return note(
                    "size",
                    f"the broker hangs up over messages of {configured} bytes, and takes {size}",
                    f"raise its limit, or set broker.maximum_message_bytes = {max(size, 4096)}",
                )
            case PublishRefused() if link.largest_payload < size:
                continue
        return note("size", f"no acknowledgement of a message of {size} bytes", "the link may be very thin")


def _delivery(link: Link, place: _Place) -> Finding:
    """Whether the site may publish what it sends; MQTT 3.1.1 has no way to say no."""
    link.publish(place.up, b"")
    match _next(link, _SECONDS, Published):
        case Published():
            return good("publishing", f"the broker takes messages on {place.up}")
        case PublishRefused(_, _, reason):
            return bad("publishing", f"{place.up}: {reason}", f"is the user name the site's? {_RULES}")
    return bad("publishing", f"no acknowledgement of a message on {place.up}", _RULES)


def _retention(link: Link, place: _Place) -> Finding:
    """Whether the broker keeps a retained message, which site and aggregator live by; it is cleared again."""
    line = f"to try it, add `pattern readwrite fmc1/+/doctor/%u` to the broker's rules ({place.own})"
    link.publish(place.own, _WORDS, retain=True)
    if not isinstance(_next(link, _SECONDS, Published), Published):
        return note("retained", "not tried: the access rules leave the doctor no topic", line)
    link.subscribe(place.own)
    kept = _next(link, _RETAINED_SECONDS, Received)
    link.publish(place.own, b"", retain=True)
    _next(link, _SECONDS, Published)
    if isinstance(kept, Received) and kept.payload == _WORDS:
        return good("retained", "the broker keeps a retained message and gives it back")
    return note("retained", "not known: what was kept on the doctor's topic did not come back", line)


def _plan(link: Link, place: _Place) -> Finding:
    """Whether the federation's plan is there and may be read."""
    topic = topics.plan(place.federation)
    link.subscribe(topic, topics.down(place.federation, place.site))
    match _next(link, _RETAINED_SECONDS, Received, topic):
        case Received():
            return good("federation", f"the plan of {place.federation!r} is there")
        case SubscriptionRefused(topic_filter, reason):
            return bad("federation", f"{topic_filter} may not be subscribed to: {reason}", _RULES)
    words = f"no plan of {place.federation!r} came"
    return note("federation", words, f"is its aggregator started, and its name right? Else {_RULES}")


def _next(link: Link, seconds: float, wanted: type[Event], topic: str | None = None) -> Event | None:
    """Return the next event of a kind, on a topic if given, or the refusal that came in its place."""
    started = time.perf_counter()
    until = started + seconds
    ending = ""
    while (left := until - time.perf_counter()) > 0:
        event = link.next_event(left)
        if isinstance(event, Received):
            event.acknowledge()
            if topic is not None and event.topic != topic:
                continue
        if isinstance(event, Disconnected):
            ending = event.reason
            if event.fatal:
                raise _EndedError(ending)
            # The link finds out, over some attempts, what it is that the broker does not say.
            until = max(until, started + _PATIENCE_SECONDS)
        if isinstance(event, (wanted, PublishRefused, SubscriptionRefused)):
            return event
    if ending:
        raise _EndedError(ending)
    return None
