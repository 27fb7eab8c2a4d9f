"""How a file stores an image: format, bits and colours, before it becomes 8-bit RGB."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StoredForm:
    """`depth` is bits of a sample, `colours` "grey", "colour" or "palette", `size` (width, height) in pixels.

    The size is that of the stored rows and columns, before an orientation turns them.
    """

    kind: str
    depth: int
    colours: str
    size: tuple[int, int]

    def words(self) -> str:
        """Return it without the size, such as "PNG, 16-bit grey"."""
        return f"{self.kind}, {self.depth}-bit {self.colours}"
