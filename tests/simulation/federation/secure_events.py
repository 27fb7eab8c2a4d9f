"""Acting in the midst of a sum under masks: at the first message of a kind, or on every one of a site."""

from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import open_envelope, seal
from fedmedclip.protocol.messages import Secure

SECURE = Secure("subspace:rank=2", 12, 1000, 0.25, 3)


def after_first(federation, kind, act, skip=0):
    """Call `act` once, after so many messages of a kind and one more have been delivered."""
    deliver, seen = federation.deliver, []

    def watching(receiver, topic, payload):
        deliver(receiver, topic, payload)
        if len(seen) <= skip and isinstance(open_envelope(payload, topic).message, kind):
            seen.append(receiver)
            if len(seen) == skip + 1:
                act()

    federation.deliver = watching
    return seen


def heard(federation):
    """Return the list of (receiver, topic, message) of all that is delivered from now on."""
    deliver, letters = federation.deliver, []

    def listening(receiver, topic, payload):
        letters.append((receiver, topic, open_envelope(payload, topic).message))
        deliver(receiver, topic, payload)

    federation.deliver = listening
    return letters


def lying(federation, site, kind, lie):
    """Let a site send `lie(message)` in place of each message of a kind, in its own name."""
    from_site = federation.from_site

    def forging(sender, messages):
        changed = [
            lie(message) if sender == site and isinstance(message, kind) else message for message in messages
        ]
        from_site(sender, changed)

    federation.from_site = forging


def told(federation, site, message):
    """Return what a site answers to a message that the aggregator signs for it."""
    topic = topics.down("trial", site)
    payload = seal(message, topic, federation.aggregator_key, federation.plan.identity)
    return federation.agents[site].receive(topic, payload, federation.now)
