"""Why a C-STORE is refused: the statuses of PS3.4 GG.4.2.3, and a comment of fixed words."""

OUT_OF_RESOURCES = 0xA700
NOT_OF_ITS_CLASS = 0xA900
NOT_UNDERSTOOD = 0xC000


class RefusedStoreError(Exception):
    """A C-STORE cannot be taken. `comment` goes into the response: at most 64 characters, of no header."""

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(comment)
        self.status = status
        self.comment = comment
