"""What a run needs of whatever its predictions go to."""

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
        """Whether a row is still to be answered.

        Raises:
            DeeplayerError: the sink holds an answer to another question under this row's id.
        """

    def lacks(self, row_id: Id) -> bool:
        """Whether the row with this id is still to be answered."""

    def write(self, prediction: Prediction) -> None:
        """Write one row.

        Raises:
            DeeplayerError: the system refuses.
        """

    def predictions(self) -> Iterator[Prediction] | None:
        """All rows that it holds, those of earlier runs included; None where what was written is gone."""

    def finish(self, counts: Mapping[str, int], profile: Mapping[str, object] | None = None) -> None:
        """Note that the run has finished.

        Args:
            counts: all rows by status.
            profile: where the time of this run went, if that was asked for.
        """
