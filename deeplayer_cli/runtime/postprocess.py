"""Turn the answers of the model into predictions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from deeplayer_cli.runtime.box_score import NumberStep, box_score
from deeplayer_cli.schema import Prediction, TileLayout
from deeplayer_cli.schema.answer_rules import coordinate_spans, echo_end

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deeplayer_cli.engine import Answer
    from deeplayer_cli.errors import RowError
    from deeplayer_cli.images.loader import LoadedImage
    from deeplayer_cli.pruning import Method
    from deeplayer_cli.runtime.box_score import NumberTokens
    from deeplayer_cli.runtime.scheduler import Task
    from deeplayer_cli.runtime.settings import Settings
    from deeplayer_cli.schema import BadRequest, Request

    Decode = Callable[[Sequence[int]], str]


def to_prediction(
    task: Task, answer: Answer, decode: Decode, numbers: NumberTokens, method: Method, settings: Settings
) -> Prediction:
    """Make the prediction of an answer.

    Args:
        task: the answered task.
        answer: of the model.
        decode: turns token ids into text.
        numbers: the watched tokens of the answer.
        method: the pruning method.
        settings: of the run.
    """
    text = decode(answer.token_ids)
    prediction = Prediction.answered(
        task.request,
        text.strip(),
        task.image.resolution_wh,
        score=score_of(answer, text, task.request.expression, decode, numbers),
        visual_tokens=task.n_visual,
        kept_tokens=len(answer.kept),
        method=method.name,
        layer=method.layer,
        image_id=task.image.digest,
        share="union" if settings.share == "union" else None,
        positions="renumber" if method.renumbers and method.prunes(task.n_visual) else None,
    )
    if not settings.with_kept:
        return prediction
    tiles = TileLayout.from_counts(task.image.grid, len(task.image.tiles), task.n_visual)
    return replace(prediction, kept=answer.kept, tiles=tiles)


def failed_prediction(
    method: Method, request: Request | BadRequest, error: RowError, image: LoadedImage | None
) -> Prediction:
    """Make the error row of a request, with the name and the layer of its method, and its image if that was read."""
    image_id = None if image is None else image.digest
    return Prediction.failed(request, error, method=method.name, layer=method.layer, image_id=image_id)


def score_of(answer: Answer, text: str, expression: str, decode: Decode, numbers: NumberTokens) -> float | None:
    """Return the `box_score` of the first box in ``text``, with four decimals; None without a box.

    The box is the first one behind the repeated ``expression``, as in `Prediction.answered`.

    Args:
        answer: of the model.
        text: its decoded text.
        expression: of the request.
        decode: turns token ids into text.
        numbers: the watched tokens of the answer.
    """
    spans = coordinate_spans(text, echo_end(text, expression))
    if not spans:
        return None
    ends = [len(decode(answer.token_ids[: n + 1])) for n in range(len(answer.token_ids))]
    places = list(zip([0, *ends], ends, strict=False))
    watched = answer.watched.numpy()
    steps = [
        [
            NumberStep(answer.token_ids[n], answer.probabilities[n], watched[n])
            for n, (start, end) in enumerate(places)
            if start < span_end and span_start < end
        ]
        for span_start, span_end in spans
    ]
    return round(box_score([text[start:end] for start, end in spans], steps, numbers), 4)
