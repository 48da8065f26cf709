"""``--max-failures``: the limit of error rows at which a run stops."""

from __future__ import annotations

import re
from dataclasses import dataclass

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.schema.values import counted

_LEAST_ROWS = 50


@dataclass(frozen=True, slots=True)
class FailureLimit:
    """The most error rows that a run may have.

    Attributes:
        rows: the limit as a number of rows.
        share: the limit as a share of the rows so far, from 0 to 1. The first 50 rows count as 50, so that the first
            failure does not end a run; a source of fewer rows counts as it is.
    """

    rows: int | None = None
    share: float | None = None

    @classmethod
    def parse(cls, text: str | None) -> FailureLimit:
        """Read ``20`` or ``5%``; None is no limit.

        Raises:
            DeeplayerError: the text is neither.
        """
        if text is None:
            return cls()
        found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)(%?)", text, re.ASCII)
        if found and found[2] and float(found[1]) <= 100:
            return cls(share=float(found[1]) / 100)
        if found and not found[2] and "." not in found[1]:
            return cls(rows=int(found[1]))
        raise DeeplayerError(f"--max-failures must be a number of rows or a percentage, such as 20 or 5%, not {text!r}")

    def refuse(self, rows: int, errors: int, n_all: int | None, reason: str) -> None:
        """Refuse to go on with too many error rows.

        Args:
            rows: number of rows answered so far.
            errors: number of error rows among them.
            n_all: number of rows that the run will answer; None if it is not known.
            reason: the message of the newest error row.

        Raises:
            DeeplayerError: ``errors`` is above the limit.
        """
        least = _LEAST_ROWS if n_all is None else min(_LEAST_ROWS, n_all)
        limit = self.share * max(rows, least) if self.share is not None else self.rows
        if limit is None or errors <= limit:
            return
        allowed = f"--max-failures allows {self.rows if self.share is None else f'{100 * self.share:.4g}%'}"
        rule = "--strict and --max-failures 0 allow none" if self.rows == 0 else allowed
        raise DeeplayerError(f"{errors:,} of {counted(rows, 'row')} failed, and {rule}; the last: {reason}")
