"""Whether enough sites take part for a round to close, where some have not approved the plan, or refused it.

Whoever takes no part is not waited for and does not count: a round needs `minimum_sites` of the others. Where
there are fewer, the round waits for an approval, or for the coordinator.
"""

import logging
from collections.abc import Collection, Mapping

from fedmedclip.aggregator.members import Unable

log = logging.getLogger("fedmedclip.aggregator")

_MOST_NAMED = 5
# Hundreds of sites decide one after the other.
_SECONDS_BETWEEN_LINES = 60.0


def shortage(members: Collection[str], unable: Mapping[str, Unable], minimum_sites: int) -> str:
    """Return why no round can close for lack of consent, with what to do; empty where one can.

    `unable` are those that said that they take no part, members or not.
    """
    deciding = sorted(site for site, said in unable.items() if said.is_for_the_operator)
    sites = len(set(members) | unable.keys())
    able = sites - len(unable)
    if not deciding or able >= minimum_sites:
        return ""
    named = [f"{site} {unable[site].part}" for site in deciding[:_MOST_NAMED]]
    more = len(deciding) - len(named)
    return (
        f"{able} of {sites} sites take part, and a round needs {minimum_sites}: it waits "
        f"({', '.join(named)}{f' and {more} more' if more else ''}); once enough have approved the plan it "
        "goes on; or lower minimum_sites in aggregator.toml, which may be edited while it runs, or end the "
        "run: fedmedclip control end"
    )


class QuorumWatch:
    """Says in the log when consent lacks, now and again of whom, and when it does no more."""

    def __init__(self) -> None:
        self._said, self._said_at = "", 0.0

    def look(self, lacking: str, now: float) -> None:
        """Log `lacking`, which is empty where nothing is, once it is due."""
        turned = bool(lacking) != bool(self._said)
        if lacking == self._said or not (turned or now - self._said_at >= _SECONDS_BETWEEN_LINES):
            return
        self._said, self._said_at = lacking, now
        if lacking:
            log.warning("%s", lacking, extra={"event": "quorum.lacking"})
        else:
            log.info("enough sites take part")
