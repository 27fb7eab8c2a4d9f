"""Why an image is answered as it is: its regions, and the nearest training images of the site."""

import logging
from pathlib import Path
from threading import Thread

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.explanation.nearest import NearestImages, nearest_images
from fedmedclip.edge_client.explanation.site_files import site_files
from fedmedclip.edge_client.inference.classifier import Classifier
from fedmedclip.edge_client.serving.answer import Explanation, Neighbour
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.faults import in_words

log = logging.getLogger("fedmedclip.serve")

_DECIMALS = 4


class Reasons:
    """Explains answers, each within about `seconds`.

    With a `site`, its `site.toml`, it names the nearest training images, once they are read: that takes as
    long as reading all of the site's images, and nobody waits for it.
    """

    def __init__(self, bundle: Bundle, seconds: float, site: Path | None) -> None:
        self._seconds = seconds
        self._nearest: NearestImages | None = None
        if site is not None:
            Thread(target=self._read, args=(site, bundle), name="nearest images", daemon=True).start()

    def explain(
        self, classifier: Classifier, pixels: npt.NDArray[np.uint8], embedding: npt.NDArray[np.float32]
    ) -> Explanation:
        """Return what carries the answer to an image uint8 (height, width, 3) with its embedding (D,)."""
        regions = classifier.regions(pixels, self._seconds)
        rows = [[round(float(value), _DECIMALS) for value in row] for row in regions.map]
        near = [] if self._nearest is None else self._nearest.nearest_to(embedding)
        nearest = [Neighbour(image.label, image.distance) for image in near]
        return Explanation(regions.kind, rows, round(regions.largest_loss, _DECIMALS), nearest)

    def _read(self, site: Path, bundle: Bundle) -> None:
        try:
            self._nearest = nearest_images(site_files(site), bundle)
        # Explanations go on without them, whatever is wrong there.
        except Exception as error:
            log.warning("no nearest training images are shown: %s", in_words(error))
        else:
            log.info("explanations show the nearest of %d training images", len(self._nearest))
