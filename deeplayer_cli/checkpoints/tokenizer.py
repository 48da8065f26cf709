"""Tokenizers that give exactly the same ids as the model's original tokenizer.

An expression is untrusted input. In a prompt, the text ``</ref><|im_end|>`` would become special tokens, which control
the model. So expressions have an encoding of their own, which never produces special tokens.
"""

from __future__ import annotations

import hashlib
import json
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import sentencepiece
from tokenizers import Tokenizer as Backend
from transformers import Qwen2Tokenizer

from deeplayer_cli.checkpoints.files import read_json, read_text
from deeplayer_cli.errors import DeeplayerError, RowError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

# Else it warns on stderr about InternLM2's NUL piece, wherever a tokenizer is read or comes from another process.
sentencepiece.set_min_log_level(2)

_RESERVED_PIECE = "[UNUSED_TOKEN_"  # InternLM2's spare pieces; special tokens that were added later use some of them

# From huggingface/transformers, ``tokenization_utils_base.py`` (``clean_up_tokenization``). InternLM2's decoding always
# ends with these replacements, whatever its configuration.
_CLEAN_UP = (
    *((f" {mark}", mark) for mark in (".", "?", "!", ",")),
    (" ' ", "'"),
    *((f" {ending}", ending) for ending in ("n't", "'m", "'s", "'ve", "'re")),
)


class Tokenizer(Protocol):
    """The interface of a tokenizer.

    Attributes:
        sha256: hexadecimal digest of tokenizer.model, or of tokenizer.json as the tokenizers library writes it.
            Tokenizers with equal digests give equal ids.
        unknown_id: id of the unknown token, for text that the vocabulary cannot encode; None if it can encode any text.
    """

    sha256: str
    unknown_id: int | None

    def encode(self, text: str) -> list[int]:
        """Encode a whole prompt with special tokens, and put the beginning-of-sequence token first if there is one."""

    def encode_piece(self, text: str) -> list[int]:
        """Encode a later piece of a prompt: as ``encode``, but without the beginning-of-sequence token."""

    def encode_expression(self, text: str) -> list[int]:
        """Encode text without special tokens.

        The result never has the id of a special, added or reserved token, except that of the unknown token. Text
        without the literal of such a token is encoded as by ``encode_piece``.

        Raises:
            RowError: the text is not valid Unicode.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids into text; special tokens are left out."""

    def token_id(self, token: str) -> int:
        """Return the id of a special or added token.

        Raises:
            DeeplayerError: the tokenizer does not have this token.
        """


class SentencePieceTokenizer:
    """InternLM2's tokenizer: first the added tokens are cut out of the text, then sentencepiece encodes the rest.

    It follows ``tokenization_internlm2.py`` of OpenGVLab/InternVL, as transformers 4.45 runs it.

    Args:
        model: the sentencepiece model.
        added: ids of the added tokens, by their literal text.
        special: ids that ``decode`` leaves out.
        bos: ids that a whole prompt begins with.
        sha256: hexadecimal digest of the model's file.
    """

    def __init__(
        self,
        model: sentencepiece.SentencePieceProcessor,
        added: dict[str, int],
        special: frozenset[int],
        bos: list[int],
        sha256: str,
    ) -> None:
        self.sha256 = sha256
        self.unknown_id: int | None = model.unk_id()
        self._model = model
        self._added = added
        self._special = special
        self._bos = bos
        self._split = re.compile(f"({_any_of(added)})")
        reserved = {
            piece: id for id in range(len(model)) if (piece := model.id_to_piece(id)).startswith(_RESERVED_PIECE)
        }
        self._plain = PlainText(model.encode, added | reserved)

    @classmethod
    def read(cls, folder: Path) -> SentencePieceTokenizer:
        """Read ``tokenizer.model`` and ``tokenizer_config.json``.

        Raises:
            DeeplayerError: a file is missing or damaged.
        """
        path, config_path = folder / "tokenizer.model", folder / "tokenizer_config.json"
        config = read_json(config_path)
        try:
            data = path.read_bytes()
            model = sentencepiece.SentencePieceProcessor(model_proto=data)
        except (OSError, RuntimeError) as error:
            raise DeeplayerError(f"cannot read {path} ({error}): download the checkpoint again") from error
        try:
            tokens = {int(id): token for id, token in config["added_tokens_decoder"].items()}
            added = {token["content"]: id for id, token in tokens.items()}
            special = frozenset(id for id, token in tokens.items() if token["special"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DeeplayerError(
                f"{config_path} does not list its added tokens: download the checkpoint again"
            ) from error
        bos = [model.bos_id()] if config.get("add_bos_token", True) else []
        return cls(model, added, special, bos, hashlib.sha256(data).hexdigest())

    def encode(self, text: str) -> list[int]:
        """See ``Tokenizer.encode``."""
        return self._bos + self.encode_piece(text)

    def encode_piece(self, text: str) -> list[int]:
        """See ``Tokenizer.encode_piece``."""
        ids: list[int] = []
        for part in self._split.split(text):
            ids += [self._added[part]] if part in self._added else self._model.encode(part)
        return ids

    def encode_expression(self, text: str) -> list[int]:
        """See ``Tokenizer.encode_expression``."""
        return self._plain.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """See ``Tokenizer.decode``."""
        size = len(self._model)
        text: str = self._model.decode([id for id in ids if id not in self._special and id < size])
        for spaced, joined in _CLEAN_UP:
            text = text.replace(spaced, joined)
        return text

    def token_id(self, token: str) -> int:
        """See ``Tokenizer.token_id``."""
        if token not in self._added:
            raise DeeplayerError(_no_token(token))
        return self._added[token]


class FastTokenizer:
    """A tokenizer of the tokenizers library (``tokenizer.json``).

    Args:
        backend: the tokenizer, as the library reads it.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.sha256 = hashlib.sha256(backend.to_str().encode()).hexdigest()
        added = {token.content: id for id, token in backend.get_added_tokens_decoder().items()}
        unknown = json.loads(backend.to_str())["model"].get("unk_token")
        self.unknown_id: int | None = added.get(unknown)
        self._added = added
        # Any text may be unknown to the vocabulary, so the unknown token is allowed.
        self._plain = PlainText(self.encode_piece, added, allowed={self.unknown_id})

    @classmethod
    def read(cls, folder: Path) -> FastTokenizer:
        """Read ``tokenizer.json``, or ``vocab.json`` and ``merges.txt`` of a Qwen2 checkpoint without it.

        Raises:
            DeeplayerError: a file is missing or damaged.
        """
        path = folder / "tokenizer.json"
        try:
            if path.is_file() or not (folder / "vocab.json").is_file():
                return cls(Backend.from_str(read_text(path)))
            return cls(Qwen2Tokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer)
        except DeeplayerError:
            raise
        except Exception as error:  # the tokenizers library raises nothing more specific
            raise DeeplayerError(
                f"cannot read the tokenizer in {folder} ({error}): download the checkpoint again"
            ) from error

    def encode(self, text: str) -> list[int]:
        """See ``Tokenizer.encode``."""
        return self._backend.encode(text).ids

    def encode_piece(self, text: str) -> list[int]:
        """See ``Tokenizer.encode_piece``."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_expression(self, text: str) -> list[int]:
        """See ``Tokenizer.encode_expression``."""
        return self._plain.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """See ``Tokenizer.decode``."""
        return self._backend.decode(list(ids), skip_special_tokens=True)

    def token_id(self, token: str) -> int:
        """See ``Tokenizer.token_id``."""
        if token not in self._added:
            raise DeeplayerError(_no_token(token))
        return self._added[token]


class PlainText:
    """Encodes text without producing forbidden tokens.

    The text is cut after the first character of every literal of a forbidden token, also where literals overlap. The
    parts are encoded separately. So no part contains a literal.

    Args:
        encode: encodes text into ids, without tokens for the beginning or the end of a sequence.
        forbidden: ids of the forbidden tokens, by their literal text.
        allowed: ids that are not forbidden, even if ``forbidden`` has them.
    """

    def __init__(
        self, encode: Callable[[str], list[int]], forbidden: dict[str, int], allowed: Iterable[int | None] = ()
    ) -> None:
        self._encode = encode
        self._forbidden = frozenset(forbidden.values()) - frozenset(allowed)
        self._literals = re.compile(f"(?={_any_of(forbidden)})")

    def encode(self, text: str) -> list[int]:
        """Encode a text into ids, none of them forbidden.

        Raises:
            RowError: the text contains an unpaired surrogate.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RowError("expression_invalid", f"expression {text!r} is not valid Unicode") from error
        cuts = [0, *(match.start() + 1 for match in self._literals.finditer(text)), len(text)]
        return [id for start, end in pairwise(cuts) for id in self._encode_part(text[start:end])]

    def _encode_part(self, text: str) -> list[int]:
        ids = self._encode(text)
        if self._forbidden.isdisjoint(ids):
            return ids
        # A normaliser (lower case, Unicode composition) made a literal of text that had none: cut the text again.
        middle = len(text) // 2
        return self._encode_part(text[:middle]) + self._encode_part(text[middle:]) if middle else []


def _any_of(literals: Iterable[str]) -> str:
    """Return a pattern that matches any of the literals, the longest first."""
    return "|".join(re.escape(literal) for literal in sorted(literals, key=len, reverse=True))


def _no_token(token: str) -> str:
    return f"the checkpoint's tokenizer has no {token!r}: it is not InternVL's"
