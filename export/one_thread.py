"""Computing in one thread, for numbers that a bundle's hash depends on."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Within this context PyTorch uses one thread.

    The order in which threads add up a sum changes its last bits; so the same export on one machine with
    more or fewer threads would be another bundle.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
