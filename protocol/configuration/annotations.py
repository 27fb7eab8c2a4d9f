"""Types of settings that several tables have, with the words and the kinds of paths that messages use."""

from typing import Annotated

from msgspec import Meta

PublicKeyInHexadecimal = Annotated[
    str,
    Meta(
        pattern=r"^[0-9a-f]{64}\Z", description="a public key in quotes: 64 hexadecimal digits, 0-9 and a-f"
    ),
]
BundleFolder = Annotated[str, Meta(description="the bundle's folder", extra={"path": "bundle"})]
File = Annotated[str, Meta(extra={"path": "file"})]
FileOrFolder = Annotated[str, Meta(extra={"path": "file or folder"})]
NewFile = Annotated[str, Meta(extra={"path": "new file"})]
NewFolder = Annotated[str, Meta(extra={"path": "new folder"})]
