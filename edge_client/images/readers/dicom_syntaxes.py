"""Transfer syntaxes that are read, each with the one decoder that reads it."""

import sys

from pydicom import uid
from pydicom.pixels.decoders.base import get_decoder

from fedmedclip.edge_client.images.readers.refusal import RefusedFileError

NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian,
          uid.DeflatedExplicitVRLittleEndian)  # fmt: skip
# One decoder for each syntax, so that a frame gives the same pixels whatever else is installed. Those of
# pylibjpeg-libjpeg, which is under the GPL, come last: for what nothing else reads.
_DECODERS: dict[str, str] = {
    # Python, but quick enough; pylibjpeg-rle is quicker and panics, past every `except Exception`, on damage.
    uid.RLELossless: "pydicom",
    uid.JPEGBaseline8Bit: "pillow",
    uid.JPEGExtended12Bit: "pylibjpeg",
    uid.JPEGLossless: "pylibjpeg",
    uid.JPEGLosslessSV1: "pylibjpeg",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
    uid.JPEG2000Lossless: "pylibjpeg",
    uid.JPEG2000: "pylibjpeg",
    uid.HTJ2KLossless: "pylibjpeg",
    uid.HTJ2KLosslessRPCL: "pylibjpeg",
    uid.HTJ2K: "pylibjpeg",
}


def check_transfer_syntax(syntax: uid.UID) -> None:
    """Raise RefusedFileError for a transfer syntax that is not read.

    To be asked before the header is: what a private syntax does to that is its owner's secret.
    """
    if syntax in NATIVE or syntax in _DECODERS:
        return
    if syntax.is_private:
        raise RefusedFileError("a private or unknown DICOM transfer syntax")
    raise RefusedFileError("a DICOM compression that is not supported")


def decoder_for(syntax: uid.UID, precision: int | None) -> str:
    """Return pydicom's name of the decoder of a compressed frame with samples of so many bits.

    Raises RefusedFileError, with what to install, where it is missing.
    """
    decoder = _DECODERS[syntax]
    if syntax == uid.JPEGExtended12Bit and precision == 8:
        decoder = "pillow"
    if decoder not in get_decoder(syntax).available_plugins:
        if decoder == "pyjpegls" and sys.version_info >= (3, 14):
            raise RefusedFileError(f"{syntax.name}: its decoder, pyjpegls, needs Python 3.13 or earlier")
        extra = "dicom-gpl" if syntax in uid.JPEGTransferSyntaxes else "dicom"
        raise RefusedFileError(f"{syntax.name}: pip install 'fedmedclip-edge[{extra}]'")
    return decoder


def readable_syntaxes() -> list[uid.UID]:
    """Return the transfer syntaxes whose frames can be read with the decoders that are installed."""
    found = [*NATIVE, *map(uid.UID, _DECODERS)]
    return [
        syntax
        for syntax in found
        if syntax in NATIVE or _DECODERS[syntax] in get_decoder(syntax).available_plugins
    ]
