"""Whether this box computes what the exporting machine did: the bundle's self-test, run here."""

import hashlib
import platform
from importlib.metadata import version
from pathlib import Path

from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.bundle.self_test import Agreement, compare, demanded, read_self_test
from fedmedclip.protocol.errors import BundleError
from fedmedclip.protocol.new_files import write_new_file

PASSED_FILE = "self-test-passed"


def run_self_test(bundle: Bundle, threads: int | None = None) -> Agreement | None:
    """Encode the bundle's self-test images and compare; None for a bundle without a self-test.

    Raises BundleError when encoder or self-test cannot be used.
    """
    test = read_self_test(bundle)
    if test is None:
        return None
    # Not at the top: a restarted site never loads ONNX Runtime.
    from fedmedclip.edge_client.features.encoder import Encoder

    with Encoder(bundle, threads) as encoder:
        found = encoder.encode(test.images)
    return compare(test.embeddings, found, bundle.manifest.precision)


def require_self_test(bundle: Bundle, threads: int | None = None) -> Agreement | None:
    """Run the self-test; raise BundleError when this box does not compute what the bundle's maker did."""
    agreement = run_self_test(bundle, threads)
    if agreement is not None and not agreement.passed:
        manifest = bundle.manifest
        advice = "export it as fp32" if manifest.precision != "fp32" else "install another version of it"
        raise BundleError(
            f"the self-test of bundle {bundle.folder} failed on this machine: {agreement.words()}, needed is "
            f"{demanded(manifest.precision)}. ONNX Runtime {version('onnxruntime')} on this processor does "
            f"not compute what the encoder computed at export; {advice}, or see `fedmedclip doctor`"
        )
    return agreement


def require_self_test_once(bundle: Bundle, state_folder: Path, threads: int | None = None) -> bool:
    """Require the self-test unless the same bundle passed it here, in the same conditions.

    A restart of a site with all its features never loads ONNX Runtime's memory for it. Returns whether it ran
    and passed. Raises BundleError as `require_self_test` does.
    """
    conditions = [bundle.digest.hex(), version("onnxruntime"), platform.machine(), _processor()]
    mark = hashlib.sha256("\n".join(conditions).encode()).hexdigest()
    path = state_folder / PASSED_FILE
    if path.is_file() and path.read_bytes() == mark.encode():
        return False
    agreement = require_self_test(bundle, threads)
    write_new_file(path, mark.encode(), private=True)
    return agreement is not None


def _processor() -> str:
    """What the kernels are chosen by: on Linux the processor's flags, else its name."""
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return platform.processor()
    lines = information.read_text(errors="replace").splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
