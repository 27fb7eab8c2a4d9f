"""TOML files that people write: read, decoded into typed structures, and explained where they are wrong."""

from fedmedclip.protocol.configuration.convert import convert
from fedmedclip.protocol.configuration.reading import beside, path_faults, read_configuration, require_paths
from fedmedclip.protocol.configuration.syntax import parse_toml, read_toml

__all__ = [
    "beside",
    "convert",
    "parse_toml",
    "path_faults",
    "read_configuration",
    "read_toml",
    "require_paths",
]
