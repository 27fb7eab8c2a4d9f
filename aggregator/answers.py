"""What is answered to a request for a head or for blocks, once it is its turn."""

import logging
from collections.abc import Callable

from fedmedclip.aggregator.requests import Request
from fedmedclip.aggregator.run import Outgoing, Run
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.messages import Block, BlockRequest

log = logging.getLogger("fedmedclip.aggregator")


def answers_due(run: Run, now: float, has_room: Callable[[], bool]) -> list[Outgoing]:
    """Answer the requests whose turn it is, as far as there is room."""
    outgoing: list[Outgoing] = []
    for site, request in run.requests.due(now, has_room):
        try:
            outgoing += _answer(run, site, request)
        except MessageError as error:
            log.warning("cannot answer %s: %s", site, error)
    return outgoing


def _answer(run: Run, site: str, request: Request) -> list[Outgoing]:
    head = run.global_head
    if isinstance(request, BlockRequest):
        if (found := _roster_blocks(run, request)) is not None:
            return run.to(site, *found)
        return run.to(site, *head.blocks(request.object_digest, request.missing))
    run.holds(site, request.have_version)
    outgoing: list[Outgoing] = []
    for answer in head.catch_up(request.have_version):
        outgoing += run.to(site, answer, *head.blocks_behind(answer))
    return outgoing


def _roster_blocks(run: Run, request: BlockRequest) -> list[Block] | None:
    if run.register is None:
        return None
    largest = run.global_head.maximum_message_bytes
    return run.register.blocks(request.object_digest, request.missing, largest)
