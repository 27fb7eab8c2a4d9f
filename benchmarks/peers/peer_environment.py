"""What a peer's processes see of ours."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def peer_environment() -> dict[str, str]:
    """Return the environment of a process in a peer's Python: our packages, one thread, no telemetry."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}
