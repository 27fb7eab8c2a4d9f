"""Runs in NNCodec's own environment: encodes and decodes what comes on standard input.

A frame is one JSON line, then the bytes whose number its `size` gives. Request `encode` (with `qp`, bytes: a
.npz of float32 arrays) is answered with the bitstream, `decode` (bytes: a bitstream) with a .npz; an answer's
`milliseconds` are the processor time of the library's own call.
"""

import io
import json
import os
import sys
import time


def main() -> None:
    """Serve until standard input ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # The library prints; whatever it says must not end up between two frames.
    os.dup2(2, 1)
    import numpy as np

    _let_torchvision_be_imported()
    from nncodec.nn import decode, encode

    _answer(answers, b"", 0.0)
    while line := requests.readline():
        request = json.loads(line)
        data = requests.read(request["size"])
        if request["do"] == "encode":
            with np.load(io.BytesIO(data)) as file:
                arrays = {name: file[name] for name in file}
            started = time.process_time()
            result = bytes(encode(arrays, args={"qp": request["qp"], "verbose": False}))
            milliseconds = 1000 * (time.process_time() - started)
        else:
            started = time.process_time()
            arrays = decode(bytearray(data))
            milliseconds = 1000 * (time.process_time() - started)
            packed = io.BytesIO()
            floats = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
            np.savez(packed, allow_pickle=False, **floats)
            result = packed.getvalue()
        _answer(answers, result, milliseconds)


def _let_torchvision_be_imported() -> None:
    """NNCodec imports torchvision for its example data sets alone, which are not used here."""
    from fedmedclip.export.torchvision_operators import declare_missing_operators

    declare_missing_operators()


def _answer(stream: io.BufferedIOBase, data: bytes, milliseconds: float) -> None:
    stream.write(json.dumps({"size": len(data), "milliseconds": milliseconds}).encode() + b"\n" + data)
    stream.flush()


if __name__ == "__main__":
    main()
