"""Notice questions that a model cannot understand: by words outside of its vocabulary, and by the image's size."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deeplayer_cli.boxes import Resolution
    from deeplayer_cli.checkpoints import Checkpoint
    from deeplayer_cli.schema import Request

logger = logging.getLogger("deeplayer")


class ScopeCheck:
    """Says once that a model does not know the words of an expression, and once that it does not know such images.

    Args:
        checkpoint: the model, its tokenizer, and its scope if it states one.
        strict: refuse an expression with unknown words instead.
    """

    def __init__(self, checkpoint: Checkpoint, *, strict: bool) -> None:
        self._name, self._tokenizer, self._scope = checkpoint.name, checkpoint.tokenizer, checkpoint.scope
        self._strict = strict
        self._n_strange = 0
        self._warned_of_size = False

    def check(self, request: Request, ids: Sequence[int], resolution_wh: Resolution) -> None:
        """Check a request.

        Args:
            request: of the row.
            ids: token ids of its expression.
            resolution_wh: width and height of its image.

        Raises:
            DeeplayerError: the model does not know a word, and the check is strict.
        """
        if self._tokenizer.unknown_id in ids:
            self._tell_words(request)
        elif request.gold is None:  # with a gold box, the accuracy says whether the model knows such images
            self._tell_size(request, resolution_wh)

    def summary(self) -> str | None:
        """Return how many boxes mean nothing, as a sentence; None if it is at most one, of which `check` has spoken."""
        if self._n_strange < 2:
            return None
        return f"the boxes of {counted(self._n_strange, 'row')} mean nothing: {self._name} does not know their words"

    def _tell_size(self, request: Request, resolution_wh: Resolution) -> None:
        if self._scope and resolution_wh not in self._scope.image_sizes and not self._warned_of_size:
            self._warned_of_size = True
            logger.warning(
                "%s: %s knows %s only, and none of them has %d x %d pixels: on other pictures, such as photographs, "
                "its boxes mean nothing (said once)",
                *(request.where, self._name, self._scope.knows, *resolution_wh),
            )

    def _tell_words(self, request: Request) -> None:
        words = dict.fromkeys(request.expression.split())
        strange = [word for word in words if self._tokenizer.unknown_id in self._tokenizer.encode_expression(word)]
        named = ", ".join(map(repr, strange or [request.expression]))
        knows = f"knows {self._scope.knows} only, and not" if self._scope else "does not know"
        said = f"{request.where}: {self._name} {knows} the word{'s' if len(strange) > 1 else ''} {named}"
        if self._strict:
            raise DeeplayerError(f"{said}: use another --model, or leave out --strict for boxes that mean nothing")
        self._n_strange += 1
        if self._n_strange == 1:
            logger.warning("%s: boxes of such rows mean nothing; use another --model (said once)", said)
