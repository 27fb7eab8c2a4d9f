"""Golden inputs for the bundle: what its encoder gives here, every box has to find again."""

from itertools import islice
from pathlib import Path

import numpy as np

from fedmedclip.export.image_encoder import INPUT_NAME, OUTPUT_NAME
from fedmedclip.export.onnx_session import open_session
from fedmedclip.export.parity_images import generated_images
from fedmedclip.protocol.bundle.bundle import Preprocessing
from fedmedclip.protocol.bundle.preprocessing import fit
from fedmedclip.protocol.bundle.self_test import IMAGES, SELF_TEST_EMBEDDINGS, SELF_TEST_IMAGES, encode_array


def golden_contents(encoder: Path, preprocessing: Preprocessing) -> dict[str, bytes]:
    """Return the bundle's self-test files, by name: images and what ONNX Runtime makes of them here."""
    images = np.stack([fit(image, preprocessing) for image in islice(generated_images(), IMAGES)])
    session = open_session(encoder)
    # One by one, as the edge runs an encoder whose 8-bit scales depend on the batch.
    embeddings = [session.run([OUTPUT_NAME], {INPUT_NAME: image[None]})[0] for image in images]
    return {
        SELF_TEST_IMAGES: encode_array(images),
        SELF_TEST_EMBEDDINGS: encode_array(np.concatenate(embeddings)),
    }
