"""The encoder's own time for an image, in a process of its own, whenever it is asked for.

As a program it opens a bundle's encoder once for each mode and, for each line of standard input, encodes
single images for about so many seconds in turns of the modes; it prints the median milliseconds by mode as
one line of JSON.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_IMAGES = 16


class EncoderClock:
    """Keeps the process until it is closed."""

    def __init__(self, bundle: Path, images: Path, threads: int, *, together: bool) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", __name__, str(bundle), str(images), str(threads)),
                "together" if together else "each",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def milliseconds(self, seconds: float) -> dict[str, float]:
        """Return the median time of an image by mode, measured for so many seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(seconds, file=self._process.stdin, flush=True)
        found: dict[str, float] = json.loads(self._process.stdout.readline())
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()


def main() -> None:
    """Measure for each line of standard input."""
    from fedmedclip.edge_client.features.encoder import Encoder
    from fedmedclip.edge_client.images.opening import UnreadableImageError
    from fedmedclip.edge_client.images.reading import decode_images
    from fedmedclip.protocol.bundle.bundle import open_bundle

    bundle = open_bundle(Path(sys.argv[1]))
    paths = sorted(Path(sys.argv[2]).rglob("*.jpg"))[:_IMAGES]
    images = [
        image.pixels[None]
        for image in decode_images(paths, bundle.manifest.preprocessing)
        if not isinstance(image, UnreadableImageError)
    ]
    threads, together = int(sys.argv[3]), sys.argv[4] == "together"
    # As the service runs it, and as it is quickest from start to one result.
    encoders = {
        "own": Encoder(bundle, threads, resident=together),
        "quickest": Encoder(bundle, threads, together=True),
    }
    for encoder in encoders.values():
        encoder.encode(images[0])
    while line := sys.stdin.readline():
        until, took = time.perf_counter() + float(line), {name: list[float]() for name in encoders}
        number = 0
        while time.perf_counter() < until or number < 2:
            for name, encoder in encoders.items():
                began = time.perf_counter()
                encoder.encode(images[number % len(images)])
                took[name].append(time.perf_counter() - began)
            number += 1
        print(
            json.dumps({name: 1000 * statistics.median(values) for name, values in took.items()}), flush=True
        )


if __name__ == "__main__":
    main()
