"""The counts of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deeplayer_cli.boxes import CORRECT_IOU
from deeplayer_cli.runtime.failure_kinds import FailureKinds
from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from deeplayer_cli.pruning import Method
    from deeplayer_cli.schema import Prediction


@dataclass(frozen=True)
class MeanKeep:
    """Returns the share of an image's visual tokens that a layer sees on average; it can travel, unlike a model.

    Attributes:
        method: the pruning method.
        n_layers: number of decoder layers of the model.
        is_known: whether the number of kept tokens follows from the number of visual tokens.
    """

    method: Method
    n_layers: int
    is_known: bool

    def __call__(self, n_visual: int, n_kept: int) -> float:
        """Return the share of ``n_visual`` visual tokens, if ``n_kept`` of them stay."""
        return self.method.mean_keep(n_visual, self.n_layers, None if self.is_known else n_kept)


@dataclass
class Totals:
    """Counts over a run's predictions.

    Attributes:
        mean_keep: returns the share of an image's visual tokens that a layer sees on average, for the numbers of visual
            and of kept tokens.
        rows: number of rows.
        no_box: number of rows answered without a box.
        errors: number of error rows.
        judged: number of rows with an IoU.
        correct: number of rows whose IoU is at least 0.5.
        visual: number of visual tokens, over all rows.
        kept: number of kept visual tokens, over all rows.
        seen: number of visual tokens that a layer sees on average, over all rows.
        fallbacks: number of rows that were asked again without pruning.
        failures: why rows failed.
    """

    mean_keep: Callable[[int, int], float]
    rows: int = 0
    no_box: int = 0
    errors: int = 0
    judged: int = 0
    correct: int = 0
    visual: int = 0
    kept: int = 0
    seen: float = 0.0
    fallbacks: int = 0
    failures: FailureKinds = field(default_factory=FailureKinds)

    @classmethod
    def from_predictions(cls, predictions: Iterable[Prediction], mean_keep: Callable[[int, int], float]) -> Totals:
        """Count all given predictions."""
        totals = cls(mean_keep)
        for prediction in predictions:
            totals.add(prediction)
        return totals

    def add(self, prediction: Prediction) -> None:
        """Count one prediction."""
        self.rows += 1
        self.no_box += prediction.status == "no_box"
        self.errors += prediction.status == "error"
        self.failures.add(prediction)
        if prediction.iou is not None:
            self.judged += 1
            self.correct += prediction.iou >= CORRECT_IOU
        if prediction.visual_tokens is not None and prediction.kept_tokens is not None:
            self.visual += prediction.visual_tokens
            self.kept += prediction.kept_tokens
            kept = prediction.kept_tokens
            if prediction.fallback is not None:  # asked a second time, with every token in every layer
                kept = int(prediction.fallback["kept_tokens"] or 0)
                self.fallbacks += 1
                self.seen += prediction.visual_tokens
            self.seen += self.mean_keep(prediction.visual_tokens, kept) * prediction.visual_tokens

    @property
    def counts(self) -> dict[str, int]:
        """Rows by status; their sum is ``rows``."""
        ok = self.rows - self.no_box - self.errors
        return {"rows": self.rows, "ok": ok, "no_box": self.no_box, "error": self.errors}

    @property
    def accuracy(self) -> str:
        """Acc@0.5 so far, failures counted as wrong."""
        return f"Acc@0.5 {self.correct / self.judged:.1%}" if self.judged else "no gold boxes"

    def summary(self, seconds: float) -> str:
        """Return the summary of a run of so many seconds, as one line."""
        ok = self.counts["ok"]
        parts = [
            f"{counted(self.rows, 'row')} in {seconds:.1f} s: {ok:,} with a box, {self.no_box:,} without, "
            f"{counted(self.errors, 'error')}"
        ]
        if self.visual:
            parts.append(
                f"kept {self.kept / self.visual:.1%} of visual tokens (mean over layers {self.seen / self.visual:.1%})"
            )
        if self.fallbacks:
            parts.append(f"{counted(self.fallbacks, 'row')} asked again without pruning")
        if self.judged:
            parts.append(f"{self.accuracy} on {counted(self.judged, 'row')} with gold")
        return ", ".join(parts)
