"""Whether this box computes what the exporting machine did: the bundle's self-test, run here."""

import hashlib
import platform
from collections.abc import Sequence
from pathlib import Path

from fedmedclip.edge_client.features.providers import PROCESSOR_ALONE, runtime_versions
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.bundle.self_test import Agreement, compare, demanded, read_self_test
from fedmedclip.protocol.errors import BundleError
from fedmedclip.protocol.new_files import write_new_file

PASSED_FILE = "self-test-passed"


def run_self_test(
    bundle: Bundle, threads: int | None = None, providers: Sequence[str] = PROCESSOR_ALONE
) -> Agreement | None:
    """Encode the bundle's self-test images and compare; None for a bundle without a self-test.

    `providers` as for `provider_choice.open_encoder`. Raises BundleError when encoder or self-test cannot be
    used, and InvalidInputError for an unknown provider.
    """
    test = read_self_test(bundle)
    if test is None:
        return None
    # Not at the top: a restarted site never loads ONNX Runtime.
    from fedmedclip.edge_client.features.provider_choice import open_encoder

    with open_encoder(bundle, threads, providers) as encoder:
        found = encoder.encode(test.images)
    return compare(test.embeddings, found, bundle.manifest.precision)


def require_self_test(
    bundle: Bundle, threads: int | None = None, providers: Sequence[str] = PROCESSOR_ALONE
) -> Agreement | None:
    """Run the self-test; raise BundleError when this box does not compute what the bundle's maker did."""
    agreement = run_self_test(bundle, threads, providers)
    if agreement is not None and not agreement.passed:
        manifest = bundle.manifest
        advice = "export it as fp32" if manifest.precision != "fp32" else "install another version of it"
        raise BundleError(
            f"the self-test of bundle {bundle.folder} failed on this machine: {agreement.words()}, needed is "
            f"{demanded(manifest.precision)}. {runtime_versions()} on this processor does "
            f"not compute what the encoder computed at export; {advice}, or see `fedmedclip doctor`"
        )
    return agreement


def require_self_test_once(
    bundle: Bundle,
    state_folder: Path,
    threads: int | None = None,
    providers: Sequence[str] = PROCESSOR_ALONE,
) -> bool:
    """Require the self-test unless the same bundle passed it here, in the same conditions.

    The wanted providers are among these; one that was passed over at that time is tried again whenever images
    are encoded.

    A restart of a site with all its features never loads ONNX Runtime's memory for it. Returns whether it ran
    and passed. Raises BundleError as `require_self_test` does.
    """
    conditions = [bundle.digest.hex(), runtime_versions(), *providers, platform.machine(), _processor()]
    mark = hashlib.sha256("\n".join(conditions).encode()).hexdigest()
    path = state_folder / PASSED_FILE
    if path.is_file() and path.read_bytes() == mark.encode():
        return False
    agreement = require_self_test(bundle, threads, providers)
    write_new_file(path, mark.encode(), private=True)
    return agreement is not None


def _processor() -> str:
    """What the kernels are chosen by: on Linux the processor's flags, else its name."""
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return platform.processor()
    lines = information.read_text(errors="replace").splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
