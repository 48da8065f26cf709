"""``--max-failures``: the limit of error rows at which a run stops."""

from __future__ import annotations

import re
from dataclasses import dataclass

from deeplayer_cli.errors import DeeplayerError

_ROWS_BEFORE_A_SHARE_COUNTS = 50


@dataclass(frozen=True, slots=True)
class FailureLimit:
    """The most error rows that a run may have.

    Attributes:
        rows: the limit as a number of rows.
        share: the limit as a share of the rows so far, from 0 to 1; checked from row 50 on.
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

    def refuse(self, rows: int, errors: int) -> None:
        """Refuse to go on with too many error rows.

        Args:
            rows: number of rows answered so far.
            errors: number of error rows among them.

        Raises:
            DeeplayerError: ``errors`` is above the limit.
        """
        too_many = self.rows is not None and errors > self.rows
        if self.share is not None and rows >= _ROWS_BEFORE_A_SHARE_COUNTS:
            too_many = errors > self.share * rows
        if too_many:
            allowed = f"{self.share:.4g} of all" if self.rows is None else self.rows
            raise DeeplayerError(f"{errors} of {rows} rows have failed, and --max-failures allows {allowed}")
