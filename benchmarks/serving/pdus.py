"""Bytes of the DICOM upper layer (PS3.8 9.3), as valid or as wrong as they are asked for."""

import struct

_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


def pdu(kind: int, content: bytes = b"", length: int | None = None) -> bytes:
    """Return a PDU with its length, or one that claims another."""
    return struct.pack(">BBL", kind, 0, len(content) if length is None else length) + content


def association_request(
    called: bytes = b"FEDMEDCLIP",
    calling: bytes = b"MODALITY",
    sop_class: str = MR_IMAGE_STORAGE,
    syntax: str = EXPLICIT_LITTLE_ENDIAN,
) -> bytes:
    """Return an A-ASSOCIATE-RQ with one presentation context, number 1."""

    def item(kind: int, content: bytes) -> bytes:
        return struct.pack(">BBH", kind, 0, len(content)) + content

    context = item(0x20, b"\1\0\0\0" + item(0x30, sop_class.encode()) + item(0x40, syntax.encode()))
    user = item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3.4"))
    fixed = struct.pack(">HH", 1, 0) + called.ljust(16) + calling.ljust(16) + bytes(32)
    return pdu(1, fixed + item(0x10, _APPLICATION_CONTEXT) + context + user)


def store_command(
    sop_class: str = MR_IMAGE_STORAGE, instance: str = "1.2.3.4.5", whole: bool = True
) -> bytes:
    """Return a C-STORE-RQ's command set as one PDU (PS3.7 9.3.1.1); not `whole`, it lacks the priority."""

    def element(number: int, content: bytes) -> bytes:
        content += b"\0" * (len(content) % 2)
        return struct.pack("<HHL", 0, number, len(content)) + content

    elements = b"".join(
        [
            element(0x0002, sop_class.encode()),
            element(0x0100, struct.pack("<H", 1)),
            element(0x0110, struct.pack("<H", 7)),
            element(0x0700, struct.pack("<H", 0)) if whole else b"",
            element(0x0800, struct.pack("<H", 1)),
            element(0x1000, instance.encode()),
        ]
    )
    return data_pdu(element(0, struct.pack("<L", len(elements))) + elements, command=True, last=True)


def data_pdu(content: bytes, *, command: bool = False, last: bool = False) -> bytes:
    """Return a P-DATA-TF of one fragment in context 1."""
    header = bytes([command | last << 1])
    return pdu(4, struct.pack(">LB", len(content) + 2, 1) + header + content)
