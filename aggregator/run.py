"""The run that an aggregator holds together: its plan, its members, and what is known of each of them.

Everything that answers a message shares one `Run`. State that must survive is in the store.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from fedmedclip.aggregator.configuration import AggregatorConfiguration, FederationSettings
from fedmedclip.aggregator.floods import Floods
from fedmedclip.aggregator.global_head import GlobalHead
from fedmedclip.aggregator.intake import Intake
from fedmedclip.aggregator.members import Members
from fedmedclip.aggregator.recovery import Recovery
from fedmedclip.aggregator.register import Register
from fedmedclip.aggregator.requests import Requests
from fedmedclip.aggregator.store import Quarantine, Store
from fedmedclip.protocol import topics
from fedmedclip.protocol.messages import Message, Plan


@dataclass(frozen=True)
class Outgoing:
    """A message to sign and publish."""

    topic: str
    message: Message
    retain: bool = False


class Run:
    """One run of a federation, as the store has it."""

    def __init__(
        self,
        configuration: AggregatorConfiguration,
        plan: Plan,
        store: Store,
        global_head: GlobalHead,
        wall_clock: Callable[[], float],
        register: Register | None,
    ) -> None:
        """Take up the run of `plan`. `wall_clock` gives the seconds since 1970; `register` holds the roster,
        where there is one.
        """
        self.configuration = configuration
        self.plan = plan
        self.store = store
        self.register = register
        self.members = Members(store, configuration, register)
        self.intake = Intake(store, global_head.specification)
        self.global_head = global_head
        self.wall_clock = wall_clock
        self.requests = Requests()
        self.floods = Floods()
        self.quarantined: dict[str, Quarantine] = store.quarantined()
        """Whose updates do not count, and why."""
        self.recovery = Recovery(global_head.specification)
        self.versions_held: dict[str, int] = {}
        """The newest version that each member has said it holds."""
        self.refused_messages: Counter[str] = Counter()
        self.last_refusals: dict[str, str] = {}

    @property
    def settings(self) -> FederationSettings:
        """What the configuration says of the federation, as it was edited last."""
        return self.configuration.federation

    def opening(self) -> list[Outgoing]:
        """Return what every site must be able to read: the plan and the newest head, both retained."""
        federation = self.settings.name
        return [
            Outgoing(topics.plan(federation), self.plan, retain=True),
            Outgoing(topics.head(federation), self.global_head.announcement(), retain=True),
        ]

    def roster_notice(self) -> list[Outgoing]:
        """Return what is retained of the roster, where there is one."""
        if self.register is None:
            return []
        notice = self.register.notice(self.global_head.maximum_message_bytes)
        return [Outgoing(topics.roster(self.settings.name), notice, retain=True)]

    def to(self, site: str, *messages: Message) -> list[Outgoing]:
        """Return messages as they go to one site."""
        topic = topics.down(self.settings.name, site)
        return [Outgoing(topic, message) for message in messages]

    def holds(self, site: str, version: int) -> None:
        """Note the newest version that a member holds: one above ours shows that state was lost here."""
        self.versions_held[site] = version
        self.recovery.tell(site, version, self.global_head.version)

    def in_quarantine(self, site: str) -> str:
        """Return what a site in quarantine and the operator read of it; empty where it counts."""
        if (found := self.quarantined.get(site)) is None:
            return ""
        return f"in quarantine: {found.reason or 'the coordinator gave no reason'}"

    def refuse(self, sender: str, site: str, reason: str, now: float) -> None:
        """Count a message that was refused, and log it."""
        self.refused_messages[sender] += 1
        self.last_refusals[sender] = reason[:300]
        self.floods.warn(sender, now, "refused a message of %s: %s", site, reason)
