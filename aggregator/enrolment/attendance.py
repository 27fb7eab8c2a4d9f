"""What the running aggregator takes over from the federation's folder, and from what members ask of it."""

import logging
import time
from collections.abc import Callable

from fedmedclip.aggregator.coordinator import Coordinator
from fedmedclip.aggregator.enrolment.desk import Desk
from fedmedclip.aggregator.publishing import Publisher
from fedmedclip.aggregator.run import Outgoing
from fedmedclip.protocol import topics
from fedmedclip.protocol.errors import FedMedClipError

log = logging.getLogger("fedmedclip.aggregator")


def attend(
    desk: Desk, coordinator: Coordinator, publisher: Publisher, now: float, is_let_in: Callable[[str], bool]
) -> None:
    """Take over what changed in the federation's folder, and what members asked of it.

    `now` is a reading of a monotonic clock; `is_let_in` says whether the broker lets a member in.
    """
    for site, request in list(coordinator.renewal_requests.items()):
        del coordinator.renewal_requests[site]
        try:
            if (answer := desk.renew(site, request, time.time())) is not None:
                publisher.publish([Outgoing(topics.down(coordinator.federation, site), answer)])
        except FedMedClipError as error:
            log.warning("refused to renew the certificate of %s: %s", site, error)
    news = desk.look(now, time.time(), is_let_in)
    rotated = desk.key.public_key != publisher.key.public_key
    publisher.key = desk.key
    if news.notice_due or rotated:
        publisher.publish(coordinator.roster_notice())
    if rotated:
        log.warning("the coordinator's key is rotated: %s signs now", publisher.key.public_key.hex())
        # After the roster, by which sites know the key.
        publisher.publish(coordinator.revise(now, aggregator_key=publisher.key.public_key))
    if news.roster_changed:
        publisher.publish(coordinator.follow_membership(now))
    publisher.publish([Outgoing(topic, message) for topic, message in news.messages])
    publisher.publish_plain(news.plain)
    coordinator.warnings = desk.warnings()
    coordinator.certificates = desk.certificates
