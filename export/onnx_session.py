"""Run an exported model here, for comparison."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedmedclip.export.onnx_weights import write_model


def open_session(path: Path) -> Any:
    """Return an `onnxruntime.InferenceSession` of an ONNX file, in one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@contextmanager
def session_of(model: Any) -> Iterator[Any]:
    """Yield a session of an `onnx.ModelProto` that is still in memory.

    The model goes through a file, which takes less memory than a copy, and may exceed 2 GiB.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_model(model, path)
        yield open_session(path)
