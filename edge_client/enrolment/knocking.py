"""Asking at the broker: the request goes out on the invitation's own topic, the answer comes on its own."""

import logging
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from fedmedclip.edge_client.enrolment.recorded import RecordedEnrolment
from fedmedclip.protocol.enrolment.enrolment_topics import enrol, enrolled
from fedmedclip.protocol.enrolment.invitation import Invitation
from fedmedclip.protocol.errors import LinkError, MessageError
from fedmedclip.protocol.link.link import (
    Connected,
    Disconnected,
    Link,
    Published,
    PublishRefused,
    Received,
    SubscriptionRefused,
)
from fedmedclip.protocol.link.settings import LinkSettings

log = logging.getLogger("fedmedclip.join")

# The aggregator may have been away, or have lost what it had stored.
ASK_AGAIN_SECONDS = 600.0
REFUSED_AGAIN_SECONDS = 20.0
REFUSED_SECONDS = 300.0
_TICK_SECONDS = 1.0


def knock(
    settings: LinkSettings,
    credentials: Path,
    invitation: Invitation,
    request: bytes,
    take: Callable[[bytes], None],
    record: RecordedEnrolment,
) -> None:
    """Send the request, and return once `take` has taken the answer; a MessageError of it is logged.

    It waits however long that takes: the request is kept, so who ends it may begin again. Raises LinkError
    where the broker has let this invitation do nothing for `REFUSED_SECONDS`: the aggregator may be away, and
    tell it of the invitation only when it is back. What is sent and comes is recorded.
    """
    broker = msgspec.structs.replace(settings, certificate_file=str(credentials), key_file=str(credentials))
    topic = enrol(invitation.federation, invitation.number)
    link = Link(broker, client_id=f"fmc{secrets.token_hex(10)}", lasting=False)
    link.subscribe(enrolled(invitation.federation, invitation.number))
    connected, ask_at = False, 0.0
    refused_since: float | None = None
    with link:
        while True:
            now = time.monotonic()
            if connected and now >= ask_at:
                record.left(topic, request)
                link.publish(topic, request)
                ask_at = now + ASK_AGAIN_SECONDS
            match link.next_event(_TICK_SECONDS):
                case Received(answer_topic, payload, _, acknowledge):
                    looked_at = record.came(answer_topic, payload)
                    acknowledge()
                    if not looked_at:
                        continue
                    try:
                        take(payload)
                    except MessageError as error:
                        log.warning("ignored an answer: %s", error)
                    else:
                        return
                case Connected():
                    connected = True
                    if refused_since is None:
                        ask_at = now
                        log.info("connected to %s; waiting until the coordinator answers", broker.address)
                case Disconnected(reason, fatal):
                    connected = False
                    if fatal:
                        raise LinkError(reason)
                    log.warning("%s", reason, extra={"event": "broker.disconnected"})
                case PublishRefused(_, _, reason) | SubscriptionRefused(_, reason):
                    ask_at = now + REFUSED_AGAIN_SECONDS
                    if refused_since is None:
                        refused_since = now
                        log.warning(
                            "the broker lets this invitation ask nothing (%s); trying again, for it may not "
                            "have been told of it yet", reason,
                        )  # fmt: skip
                    elif now - refused_since >= REFUSED_SECONDS:
                        raise LinkError(
                            f"the broker lets this invitation ask nothing ({reason}): it was used, withdrawn "
                            "or has expired; ask the coordinator for a new one"
                        )
                case Published():
                    refused_since = None
                    log.info("asked; this may wait, and be stopped and begun again, as long as it takes")
