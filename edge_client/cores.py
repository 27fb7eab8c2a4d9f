"""How many processor cores this process may use."""

import os


def available_cores() -> int:
    """Return the cores that this process is allowed (containers give fewer than the machine has)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
