"""ONNX Runtime's execution providers: what an encoder is computed by, in the order in which they are wanted.

A wanted provider is written `NAME` or `NAME:OPTION=VALUE,...`, with ONNX Runtime's own names, such as
`OpenVINOExecutionProvider:device_type=GPU`. The processor stands behind every list.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

from msgspec import Meta

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.named_options import taken_apart
from fedmedclip.protocol.near_names import did_you_mean

ProviderNames = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=1000)], ...], Meta(max_length=16)
]
"""Wanted providers, as a setting."""
_KIND, _EXAMPLE = "execution provider", "OpenVINOExecutionProvider:device_type=GPU"
# It sends what is to be computed to a service; ONNX Runtime's ordinary build has it, too.
_LEAVES_THE_MACHINE = "AzureExecutionProvider"
# One library under many names of distributions: which providers are built in is all that parts them.
_BUILDS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-directml",
    "onnxruntime-migraphx",
    "onnxruntime-rocm",
)


@dataclass(frozen=True)
class Provider:
    """An execution provider by its name, with its own options as ONNX Runtime takes them."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)


PROCESSOR = Provider("CPUExecutionProvider")
PROCESSOR_ALONE = (PROCESSOR.name,)


def parse_provider(text: str) -> Provider:
    """Return a provider that somebody wrote. Raises InvalidInputError for what is no name with options."""
    return Provider(*taken_apart(_KIND, text, _EXAMPLE))


def wanted_providers(names: Sequence[str]) -> list[Provider]:
    """Return the providers to try, in order, the processor last, whether they are installed or not.

    Raises InvalidInputError for a name that ONNX Runtime does not have in any of its builds.
    """
    import onnxruntime

    wanted: list[Provider] = []
    for provider in map(parse_provider, names):
        known = [name for name in onnxruntime.get_all_providers() if name != _LEAVES_THE_MACHINE]
        if provider.name not in known:
            raise InvalidInputError(
                f"unknown {_KIND} {provider.name!r}{did_you_mean(provider.name, known)} "
                f"(available here: {', '.join(available_providers())})"
            )
        wanted.append(provider)
        if provider.name == PROCESSOR.name:
            return wanted
    return [*wanted, PROCESSOR]


def available_providers() -> list[str]:
    """Return the names of the providers on this machine that the installed ONNX Runtime has."""
    import onnxruntime

    return [name for name in onnxruntime.get_available_providers() if name != _LEAVES_THE_MACHINE]


def runtime_versions() -> str:
    """Return which builds of ONNX Runtime are installed, such as "onnxruntime 1.31.1"; none is imported."""
    found = []
    for name in _BUILDS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found) or "onnxruntime of unknown origin"
