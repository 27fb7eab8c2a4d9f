"""What this site says, signed for its topics: on record, and on the disk, before anybody can send it."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedmedclip.edge_client.ledger.entry import draft_of
from fedmedclip.edge_client.ledger.message_ledger import MessageLedger
from fedmedclip.edge_client.ledger.notes import kind_of, note_of_sent
from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import NO_IDENTITY, seal
from fedmedclip.protocol.link.link import Message
from fedmedclip.protocol.messages import Message as ProtocolMessage
from fedmedclip.protocol.messages import Moment, Status
from fedmedclip.protocol.signature import SigningKey, fingerprint


@dataclass(frozen=True)
class Post:
    """Signs this site's messages and records them. Raises StorageError for what cannot be recorded."""

    federation: str
    site: str
    key: SigningKey
    ledger: MessageLedger

    def up(self, messages: Sequence[ProtocolMessage], plan_identity: bytes, run: int) -> list[Message]:
        """Return messages for the aggregator, of the run with this plan."""
        topic = topics.up(self.federation, self.site)
        sealed = [seal(message, topic, self.key, plan_identity) for message in messages]
        self.ledger.record_all(
            [
                draft_of("out", topic, payload, kind_of(message), note_of_sent(message, run))
                for message, payload in zip(messages, sealed, strict=True)
            ]
        )
        return [Message(topic, payload) for payload in sealed]

    def last_will(self, moment: Moment) -> Message:
        """Return what the broker says for this site when the connection that begins now is lost."""
        return self.status(Status(fingerprint(self.key.public_key), False, -1, moment))

    def status(self, status: Status) -> Message:
        """Return the site's status, to be retained."""
        topic = topics.status(self.federation, self.site)
        payload = seal(status, topic, self.key, NO_IDENTITY)
        self.ledger.record("out", topic, payload, kind_of(status), note_of_sent(status, 0))
        return Message(topic, payload, retain=True)
