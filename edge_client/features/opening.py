"""A bundle and its image encoder, opened side by side."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fedmedclip.edge_client.features.encoder import Encoder
from fedmedclip.edge_client.features.provider_choice import open_encoder
from fedmedclip.edge_client.features.providers import PROCESSOR_ALONE
from fedmedclip.protocol.bundle.bundle import Bundle, open_bundle, verify_encoder
from fedmedclip.protocol.trust.decision import Trust


def open_with_encoder(
    folder: Path,
    threads: int | None,
    trust: Trust,
    *,
    together: bool,
    providers: Sequence[str] = PROCESSOR_ALONE,
) -> tuple[Bundle, Encoder]:
    """Open both without their text tower; `threads`, `together` and `providers` are the encoder's.

    Hashing the encoder's files takes about as long as loading them, so one thread does this and another that.
    The encoder is given out only when the hashes are right.

    Raises BundleError as `open_bundle` does, for a bundle that is not to be trusted, and where that finds
    nothing, as `open_encoder` does.
    """
    bundle = open_bundle(folder, with_text=False, with_encoder=False)
    trust.require_bundle(bundle)
    with ThreadPoolExecutor(1) as background:
        loading = background.submit(open_encoder, bundle, threads, providers, together=together)
        verify_encoder(bundle)
        return bundle, loading.result()
