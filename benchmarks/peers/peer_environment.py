"""What a peer's processes see of their surroundings."""

import os


def peer_environment() -> dict[str, str]:
    """Return the environment of a process in a peer's Python: one thread, no telemetry."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}
