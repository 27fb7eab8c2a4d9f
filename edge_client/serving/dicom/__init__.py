"""The DICOM door: a node that takes images in, and structured reports that go back to the archive."""
