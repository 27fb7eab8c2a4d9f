"""What the node takes: storage SOP classes of images, in the transfer syntaxes that the readers read."""

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import sop_class
from pynetdicom.presentation import PresentationContext, build_context

from fedmedclip.edge_client.images.readers.dicom_syntaxes import readable_syntaxes

_VERIFICATION = "1.2.840.10008.1.1"
_UNCOMPRESSED = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)
# Storage classes whose pixels are an image that somebody took. Not among them: videos, which no reader reads;
# segmentations, parametric and dose maps, whose values are no picture of the patient; reports and documents.
IMAGE_CLASSES = (
    "ComputedRadiographyImageStorage",
    "DigitalXRayImageStorageForPresentation",
    "DigitalXRayImageStorageForProcessing",
    "DigitalMammographyXRayImageStorageForPresentation",
    "DigitalMammographyXRayImageStorageForProcessing",
    "DigitalIntraOralXRayImageStorageForPresentation",
    "DigitalIntraOralXRayImageStorageForProcessing",
    "CTImageStorage",
    "EnhancedCTImageStorage",
    "LegacyConvertedEnhancedCTImageStorage",
    "UltrasoundMultiFrameImageStorage",
    "MRImageStorage",
    "EnhancedMRImageStorage",
    "EnhancedMRColorImageStorage",
    "LegacyConvertedEnhancedMRImageStorage",
    "UltrasoundImageStorage",
    "EnhancedUSVolumeStorage",
    "PhotoacousticImageStorage",
    "SecondaryCaptureImageStorage",
    "MultiFrameGrayscaleByteSecondaryCaptureImageStorage",
    "MultiFrameGrayscaleWordSecondaryCaptureImageStorage",
    "MultiFrameTrueColorSecondaryCaptureImageStorage",
    "XRayAngiographicImageStorage",
    "EnhancedXAImageStorage",
    "XRayRadiofluoroscopicImageStorage",
    "EnhancedXRFImageStorage",
    "XRay3DAngiographicImageStorage",
    "XRay3DCraniofacialImageStorage",
    "BreastTomosynthesisImageStorage",
    "BreastProjectionXRayImageStorageForPresentation",
    "BreastProjectionXRayImageStorageForProcessing",
    "IntravascularOpticalCoherenceTomographyImageStorageForPresentation",
    "IntravascularOpticalCoherenceTomographyImageStorageForProcessing",
    "NuclearMedicineImageStorage",
    "VLEndoscopicImageStorage",
    "VLMicroscopicImageStorage",
    "VLSlideCoordinatesMicroscopicImageStorage",
    "VLPhotographicImageStorage",
    "OphthalmicPhotography8BitImageStorage",
    "OphthalmicPhotography16BitImageStorage",
    "OphthalmicTomographyImageStorage",
    "WideFieldOphthalmicPhotographyStereographicProjectionImageStorage",
    "WideFieldOphthalmicPhotography3DCoordinatesImageStorage",
    "OphthalmicOpticalCoherenceTomographyEnFaceImageStorage",
    "DermoscopicPhotographyImageStorage",
    "ConfocalMicroscopyImageStorage",
    "PositronEmissionTomographyImageStorage",
    "LegacyConvertedEnhancedPETImageStorage",
    "EnhancedPETImageStorage",
    "RTImageStorage",
)


def image_classes() -> dict[str, str]:
    """Return the UID of each storage class that is taken, by its name."""
    return {name: str(getattr(sop_class, name)) for name in IMAGE_CLASSES}


def transfer_syntaxes() -> list[str]:
    """Return the UIDs of the transfer syntaxes that are read here, in the order in which we prefer them.

    What is not compressed comes first: of several that a sender offers in one context, that one is taken.
    """
    readable = readable_syntaxes()
    return [*map(str, _UNCOMPRESSED), *(str(syntax) for syntax in readable if syntax not in _UNCOMPRESSED)]


def supported_contexts() -> list[PresentationContext]:
    """Return the presentation contexts of the node: verification, and the storage of images."""
    syntaxes = transfer_syntaxes()
    contexts = [build_context(_VERIFICATION, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])]
    return contexts + [build_context(uid, syntaxes) for uid in image_classes().values()]
