"""What a site can prove of a run to an aggregator that lost state: the aggregator's own signed messages."""

import logging

from fedmedclip.edge_client.site.delivery import blocks_asked_for
from fedmedclip.edge_client.site.state import Sealed, SiteState
from fedmedclip.protocol.heads.evidence import Evidence, encode_evidence
from fedmedclip.protocol.messages import Block, BlockRequest, Message, State
from fedmedclip.protocol.objects import blocks_of, refer_to

log = logging.getLogger("fedmedclip.site")

# Carriers of versions that are still on their way: the newest few.
_CARRIERS_KEPT = 4


class Proof:
    """Keeps the carriers (announcements, snapshots) of versions that are on their way, as they came."""

    def __init__(self, state: SiteState) -> None:
        self._state = state
        self._carriers: dict[int, Sealed] = {}

    def keep(self, version: int, carrier: Sealed) -> None:
        """Keep the signed message that announces a version, until the version is installed."""
        self._carriers[version] = carrier
        for kept in sorted(self._carriers)[:-_CARRIERS_KEPT]:
            del self._carriers[kept]

    def carrier(self, version: int) -> Sealed | None:
        """Return the signed message that announced a version, if it came."""
        return self._carriers.get(version)

    def begin_run(self) -> None:
        """Forget the carriers of the run before."""
        self._carriers.clear()

    def show(self, version: int, maximum_message_bytes: int) -> list[Message]:
        """Return what proves the plan and the version that are here; the plan alone where the version's
        announcement is not kept.
        """
        if (data := self._evidence()) is None:
            log.warning("the aggregator asks for version %d, whose plan is not kept here", version)
            return []
        payload = refer_to(data, maximum_message_bytes)
        log.info("the aggregator lost state: showing it plan and version %d", version)
        return [State(payload), *blocks_of(data, payload)]

    def blocks(self, request: BlockRequest, maximum_message_bytes: int) -> list[Block]:
        """Return the blocks of the proof that are asked for; none where it is not asked for."""
        data = self._evidence()
        return [] if data is None else blocks_asked_for(data, maximum_message_bytes, request)

    def _evidence(self) -> bytes | None:
        found = self._state.evidence()
        if found is None:
            return None
        sealed_plan, carrier, head = found
        return encode_evidence(Evidence(sealed_plan, carrier.topic, carrier.payload, head))
