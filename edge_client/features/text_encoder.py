"""The text tower of a bundle, run by ONNX Runtime: new prompts without PyTorch or open_clip."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.features.encoder import open_session
from fedmedclip.protocol.bundle.bundle import TOKENIZER, Bundle
from fedmedclip.protocol.bundle.tokenizer import TextLibraries, Tokens, open_tokenizer
from fedmedclip.protocol.errors import BundleError, InvalidInputError

INPUT = "tokens"
OUTPUT = "text_embedding"
_TEXTS_PER_RUN = 16


class TextEncoder:
    """An open text tower; a context manager. Closing it gives its memory back."""

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        """Load the bundle's text tower; `threads` defaults to the cores that this process may use.

        Raises BundleError when the bundle has none, or its files cannot be used.
        """
        tower = bundle.manifest.text
        if tower is None:
            raise BundleError(
                f"the bundle {bundle.folder} has no text tower, which new prompts need; "
                "export it again with `fedmedclip export --with-text`"
            )
        self._path = bundle.text_encoder
        self._shape = (bundle.manifest.embedding_size,)
        try:
            content = (bundle.folder / TOKENIZER).read_bytes()
        except OSError as error:
            raise BundleError(
                f"bundle file {bundle.folder / TOKENIZER} cannot be read ({error.strerror})"
            ) from error
        self._tokenize = open_tokenizer(content, tower, TextLibraries(_fix_text, _tokenizer_from_json))
        self._session: Any = open_session(self._path, threads)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Return the tower's input, int64 (N, context length). Raises InvalidInputError as `encode` does."""
        return self._tokenize(texts)

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the unit embeddings, float32 (N, D), of N texts, at least one.

        Raises InvalidInputError when a text is too long or a library that it needs is missing, and
        BundleError when the tower fails.
        """
        tokens = self.tokenize(texts)
        starts = range(0, len(texts), _TEXTS_PER_RUN)
        return np.concatenate([self._run(tokens[start : start + _TEXTS_PER_RUN]) for start in starts])

    def close(self) -> None:
        """Release the session and its memory; safe to call twice."""
        self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        try:
            embeddings: npt.NDArray[np.float32] = self._session.run([OUTPUT], {INPUT: tokens})[0]
        # ONNX Runtime's exceptions have no base class of their own.
        except Exception as error:
            reason = str(error).strip().partition("\n")[0][:200]
            raise BundleError(f"{self._path} fails on texts ({reason}); export the bundle again") from error
        if embeddings.shape != (len(tokens), *self._shape) or not np.isfinite(embeddings).all():
            raise BundleError(
                f"{self._path} gave embeddings of shape {embeddings.shape} or not finite, "
                f"expected finite {(len(tokens), *self._shape)}; export the bundle again"
            )
        return embeddings


def _fix_text(text: str) -> str:
    """`ftfy.fix_text`, imported for the first text that needs it."""
    try:
        import ftfy
    except ImportError as error:
        raise InvalidInputError(
            f"the prompt {text[:40]!r} has more than plain ASCII, which needs the package ftfy; "
            "install it with: pip install 'fedmedclip-edge[text]'"
        ) from error
    fixed: str = ftfy.fix_text(text)
    return fixed


def _tokenizer_from_json(content: str) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise InvalidInputError(
            "this bundle's prompts need the package tokenizers; "
            "install it with: pip install 'fedmedclip-edge[text]'"
        ) from error
    return tokenizers.Tokenizer.from_str(content)
