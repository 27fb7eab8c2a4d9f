"""The encoder on the first wanted execution provider that computes what the bundle's maker computed.

A graphics card or an accelerator computes in its own way, often with fewer bits. So one is taken only where
it passes the bundle's self-test, at every opening: drivers change without a word. The processor is taken as
it is, last; a site's start and `fedmedclip doctor` test it.

The feature store does not know which provider an embedding came from. What passes the self-test computes the
same function up to rounding, as other processors and releases of ONNX Runtime do, which it does not know
either; and a site whose card is gone for a day goes on with the features that it has, with the same numbers.
"""

import logging
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

from fedmedclip.edge_client.features.encoder import Encoder
from fedmedclip.edge_client.features.providers import (
    PROCESSOR,
    PROCESSOR_ALONE,
    Provider,
    available_providers,
    wanted_providers,
)
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.bundle.self_test import compare, demanded, read_self_test
from fedmedclip.protocol.errors import BundleError

log = logging.getLogger("fedmedclip.features")


def open_encoder(
    bundle: Bundle,
    threads: int | None = None,
    providers: Sequence[str] = PROCESSOR_ALONE,
    *,
    together: bool = False,
    resident: bool = False,
) -> Encoder:
    """Return the bundle's encoder on the first of `providers` that is there and passes the self-test.

    `threads`, `together` and `resident` are the encoder's. Why one is passed over is logged as a warning, and
    which one is used where another than the processor was wanted; each once.

    Raises InvalidInputError for an unknown provider, and as `Encoder` does where the processor cannot either.
    """
    wanted = wanted_providers(providers)
    for provider, following in pairwise(wanted):
        try:
            encoder = _tested(bundle, threads, provider, together, resident)
        except BundleError as error:
            _warn_once(f"{provider.name} is not used: {error}; trying {following.name}")
            continue
        _say_once(f"{provider.name} encodes the images")
        return encoder
    if len(wanted) > 1:
        _say_once(f"{PROCESSOR.name} encodes the images")
    return Encoder(bundle, threads, together=together, resident=resident)


def _tested(
    bundle: Bundle, threads: int | None, provider: Provider, together: bool, resident: bool
) -> Encoder:
    """Return an encoder that passed. Raises BundleError with the reason why it cannot be used."""
    available = available_providers()
    if provider.name not in available:
        raise BundleError(f"the installed ONNX Runtime has only {', '.join(available)}")
    test = read_self_test(bundle)
    if test is None:
        raise BundleError("the bundle has no self-test to judge it by; export the bundle again")
    encoder = Encoder(bundle, threads, together=together, resident=resident, provider=provider)
    try:
        found = encoder.encode(test.images)
        agreement = compare(test.embeddings, found, bundle.manifest.precision)
        if not agreement.passed:
            raise BundleError(
                f"it fails the self-test of bundle {bundle.folder} ({agreement.words()}, needed is "
                f"{demanded(bundle.manifest.precision)})"
            )
    except BaseException:
        encoder.close()
        raise
    return encoder


# The self-test, the features and new images each open an encoder, in one process.
@cache
def _warn_once(line: str) -> None:
    log.warning("%s", line, extra={"event": "encoder.provider_not_used"})


@cache
def _say_once(line: str) -> None:
    log.info("%s", line, extra={"event": "encoder.provider_chosen"})
