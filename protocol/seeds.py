"""Every random draw has a name: seeds derive from (federation seed, site, round, purpose)."""

import hashlib


def derive_seed(federation_seed: int, *, purpose: str, site: str = "", round_number: int = 0) -> int:
    """Return the seed of one named random draw, an integer in [0, 2**63).

    The same four values give the same seed on every machine and after every restart. The site's name is
    hashed with its length, so that no two combinations share a seed by concatenation.
    """
    parts = (str(federation_seed), site, str(round_number), purpose)
    material = b"".join(len(p.encode()).to_bytes(4, "big") + p.encode() for p in parts)
    return int.from_bytes(hashlib.sha256(material).digest()[:8], "big") >> 1
