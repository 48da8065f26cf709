"""The interface of a run's output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from deeplayer_cli.schema import BadRequest, Id, Prediction, Request


class Sink(Protocol):
    """Takes the predictions of a run; a context manager, closed when the run ends."""

    @property
    def path(self) -> Path | None:
        """The file that a later run can continue; None for a stream."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def unanswered(self, row: Request | BadRequest) -> bool:
        """Whether a row must still be answered.

        Raises:
            DeeplayerError: the sink has an answer with this row's id, but for another image or expression.
        """

    def lacks(self, row_id: Id) -> bool:
        """Whether the row with this id must still be answered."""

    def write(self, prediction: Prediction) -> None:
        """Write one row.

        Raises:
            DeeplayerError: writing fails.
        """

    def predictions(self) -> Iterator[Prediction] | None:
        """Read all rows, including those of earlier runs; None for a stream, which cannot be read again."""

    def outdated(self, row: Request | BadRequest) -> bool:
        """Whether it has an answer to this row, but with another gold box or other fields than the row has now."""

    def finish(
        self,
        counts: Mapping[str, int],
        profile: Mapping[str, object] | None = None,
        part: Mapping[str, object] | None = None,
    ) -> None:
        """Record that the run has finished.

        Args:
            counts: all rows by status.
            profile: where the time of this run went, if it was requested.
            part: the part of the input that the run was asked for; None or empty for all of it.
        """
