"""Which sites take part in a round: each has a lot for it, and the round says below which lot it is drawn.

So one number in an announcement draws any number of sites, also for sites that do not know of each other.
"""

from fedmedclip.protocol.seeds import derive_seed

LOTS = 1 << 32
"""Lots are integers in [0, LOTS): with LOTS as bound, everybody is drawn."""


def lot_of(federation_seed: int, site: str, round_number: int) -> int:
    """Return a site's lot for a round: the upper half of its seed for the purpose "participation"."""
    seed = derive_seed(federation_seed, purpose="participation", site=site, round_number=round_number)
    return seed >> 31
