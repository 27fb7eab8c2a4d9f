"""Readers by the words that name them in `results.toml`: from what commands wrote to tables."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from benchmarks.results import benchmark_readers, text_readers
from benchmarks.results.text_readers import Tables

READERS: Mapping[str, Callable[..., Tables]] = MappingProxyType(
    {
        "accuracy": benchmark_readers.accuracy,
        "bandwidth": benchmark_readers.bandwidth,
        "codec-loss": text_readers.codec_loss,
        "demo": benchmark_readers.demo,
        "guard-cost": text_readers.guard_cost,
        "headings": text_readers.under_headings,
        "last-object": text_readers.last_object,
        "markdown": text_readers.markdown,
        "printed": text_readers.printed,
        "robustness": benchmark_readers.robustness,
    }
)


def tables_in(out: Path, words: str) -> Tables:
    """Return what the reader of this name, with its arguments, finds in `out`, by the tables' names.

    Raises KeyError for a reader that there is not, and what the reader raises for files that are not as it
    expects.
    """
    name, *arguments = words.split()
    return READERS[name](out, *arguments)
