"""What people write: `site.toml` and `aggregator.toml`."""

from functools import partial

from benchmarks.fuzz.examples import ROOT
from benchmarks.fuzz.mutations import mutated_text
from benchmarks.fuzz.target import Target, always
from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.edge_client.site.configuration import SiteConfiguration
from fedmedclip.protocol.configuration import convert
from fedmedclip.protocol.configuration.syntax import parse_toml
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.text_files import decode_text

_STRUCTURES: dict[str, type] = {"site": SiteConfiguration, "aggregator": AggregatorConfiguration}


def _take(name: str, data: bytes) -> None:
    where = f"configuration {name}.toml"
    structure = _STRUCTURES[name]
    assert isinstance(convert(parse_toml(decode_text(data, where), where), structure, where), structure)


def _seeds(name: str) -> list[bytes]:
    example = (ROOT / "deploy" / f"{name}.toml").read_bytes()
    short = b"\n".join(line for line in example.splitlines() if line and not line.startswith(b"#"))
    return [example, short, (ROOT / "fedmedclip" / "examples" / f"{name}.toml").read_bytes()]


TARGETS = tuple(
    Target(
        f"configuration-{name}",
        always(partial(_take, name)),
        (InvalidInputError,),
        partial(_seeds, name),
        mutated_text,
        weight=0.8,
    )
    for name in _STRUCTURES
)
