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
    """Says once that a model does not know what it is asked about, and counts such rows.

    Args:
        checkpoint: the model, its tokenizer, and its scope if it states one.
        strict: refuse such a row instead.
    """

    def __init__(self, checkpoint: Checkpoint, *, strict: bool) -> None:
        self._name, self._tokenizer, self._scope = checkpoint.name, checkpoint.tokenizer, checkpoint.scope
        self._strict = strict
        self._n_outside = 0

    def check(self, request: Request, ids: Sequence[int], resolution_wh: Resolution) -> None:
        """Check a request.

        Args:
            request: of the row.
            ids: token ids of its expression.
            resolution_wh: width and height of its image.

        Raises:
            DeeplayerError: the model does not know the words or the image, and the check is strict.
        """
        reasons = self._reasons(request, ids, resolution_wh)
        if not reasons:
            return
        knows = f"knows {self._scope.knows} only, and not" if self._scope else "does not know"
        said = f"{request.where}: {self._name} {knows} {' or '.join(reasons)}"
        if self._strict:
            raise DeeplayerError(f"{said}: use another --model, or leave out --strict for boxes that mean nothing")
        self._n_outside += 1
        if self._n_outside == 1:
            logger.warning("%s: boxes of such rows mean nothing; use another --model (said once)", said)

    def summary(self) -> str | None:
        """Return how many boxes mean nothing, as a sentence; None if it is at most one, of which `check` has spoken."""
        if self._n_outside < 2:
            return None
        return f"the boxes of {counted(self._n_outside, 'row')} mean nothing: {self._name} does not know their subject"

    def _reasons(self, request: Request, ids: Sequence[int], resolution_wh: Resolution) -> list[str]:
        reasons = []
        unknown = self._tokenizer.unknown_id
        if unknown is not None and unknown in ids:
            words = dict.fromkeys(request.expression.split())
            strange = [word for word in words if unknown in self._tokenizer.encode_expression(word)]
            named = ", ".join(map(repr, strange or [request.expression]))
            reasons.append(f"the word{'s' if len(strange) != 1 else ''} {named}")
        if self._scope and resolution_wh not in self._scope.image_sizes:
            reasons.append("images of {} x {} pixels".format(*resolution_wh))
        return reasons
