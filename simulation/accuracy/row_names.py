"""What rows of the comparison are called: METHOD, `local-only:METHOD` and `pooled:METHOD`."""

from typing import get_args

from fedmedclip.protocol.heads.shared_heads import known_methods
from fedmedclip.simulation.federation.evaluation import ZERO_SHOT
from fedmedclip.simulation.federation.experiment import Regime

DEFAULT_METHOD = "fedmedclip"
"""What `local-only` and `pooled` train where they name no method."""

LOCAL_ONLY, POOLED = "local-only", "pooled"
BASELINES = (
    ZERO_SHOT,
    LOCAL_ONLY,
    f"{LOCAL_ONLY}:linear-probe",
    f"{LOCAL_ONLY}:whitened-memory",
    POOLED,
    f"{POOLED}:linear-probe",
    f"{POOLED}:whitened-memory",
)
"""Those of `all`: the weakest and the strongest head at a site alone and with all images in one place."""


def split_row_name(name: str) -> tuple[Regime | None, str]:
    """Return the regime that a row's name begins with, None: it names none, and what it names besides."""
    first, colon, rest = name.partition(":")
    for regime in get_args(Regime):
        if first == regime and regime != "federated":
            return regime, rest if colon else DEFAULT_METHOD
    return None, name


def known_rows() -> list[str]:
    """Return the names that need no table: for suggestions, those with a regime among them."""
    return list(dict.fromkeys([*BASELINES, *known_methods()]))
