"""Falls back to the unpruned model: rows with unsure answers are asked again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from deeplayer_cli.runtime.model_runner import ModelRunner
    from deeplayer_cli.runtime.scheduler import Task
    from deeplayer_cli.schema import Prediction


def with_fallback(
    answered: Iterable[dict[int, Prediction]], tasks: Sequence[Task], unpruned: ModelRunner, least_score: float
) -> Iterator[dict[int, Prediction]]:
    """Hold back unsure predictions; when all tasks are answered, ask those tasks again without pruning.

    A prediction is unsure if it has no box, or a score below ``least_score``. Error rows are not asked again.

    Args:
        answered: predictions of the tasks by index, batch by batch.
        tasks: the tasks.
        unpruned: answers without pruning.
        least_score: the lowest score of an answer that stays.

    Yields:
        Predictions by index, batch by batch. Those of the unpruned model say so in ``fallback``.
    """
    unsure: dict[int, Prediction] = {}
    for predictions in answered:
        now = {index: one for index, one in predictions.items() if _is_unsure(one, least_score)}
        unsure |= now
        yield {index: one for index, one in predictions.items() if index not in now}
    for predictions in unpruned.answer([task for task in tasks if task.index in unsure]):
        yield {index: _marked(one, unsure[index]) for index, one in predictions.items()}


def _is_unsure(prediction: Prediction, least_score: float) -> bool:
    if prediction.status == "error":
        return False
    return prediction.score is None or prediction.score < least_score


def _marked(prediction: Prediction, pruned: Prediction) -> Prediction:
    """The unpruned answer as a row of the run; an error row stays as it is."""
    row = replace(prediction, method=pruned.method, layer=pruned.layer)
    if row.status == "error":
        return row
    return replace(row, share=None, fallback={"score": pruned.score, "kept_tokens": pruned.kept_tokens})
