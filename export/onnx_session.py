"""Run an ONNX model that is still in memory."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from export.onnx_weights import write_model


@contextmanager
def open_session(model: Any) -> Iterator[Any]:
    """Yield an `onnxruntime.InferenceSession` of an `onnx.ModelProto`, in one thread.

    The model goes through a file, which takes less memory than a copy, and may exceed 2 GiB.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_model(model, path)
        yield onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
