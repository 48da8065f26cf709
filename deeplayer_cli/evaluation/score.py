"""Scores predictions. Every row with a gold box counts in the denominator; failures count as wrong."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, fields
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import orjson

from deeplayer_cli.boxes import CORRECT_IOU, centre_inside, to_xyxy
from deeplayer_cli.errors import DeeplayerError, did_you_mean, not_one_of
from deeplayer_cli.evaluation.gold_check import GoldCheck, unlike_ids
from deeplayer_cli.evaluation.image_keys import ImageKeys, image_numbers
from deeplayer_cli.evaluation.ranking import ScoreQuality
from deeplayer_cli.schema import Prediction, overlap
from deeplayer_cli.schema.answer_rules import ANSWER_RULES, parse_answer

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from deeplayer_cli.boxes import Box, BoxFormat
    from deeplayer_cli.schema import BadRequest, Id, Request, Status

ACCURACIES = {"acc@0.5": CORRECT_IOU, "acc@0.25": 0.25, "acc@0.75": 0.75}
"""The smallest IoU that each accuracy counts as right."""

CENTRE_ACCURACY = "centre_acc"

NO_VALUE = "(none)"
"""The name of the group of rows without a value in the field that rows are grouped by."""

_MOST_NAMES = 12  # in a sentence
_FIELDS = frozenset(item.name for item in fields(Prediction))

Z95 = NormalDist().inv_cdf(0.975)
"""Half of a 95% interval of a normal distribution, in standard deviations."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of rows, from 0.0 to 1.0, with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one group of rows.

    Attributes:
        n: number of all rows: ``n_ok + n_no_box + n_error``.
        n_ok: number of rows with a box.
        n_no_box: number of rows whose answer holds no box.
        n_error: number of error rows.
        n_without_gold: number of rows without a gold box. All other rows are scored; failures count as wrong.
        n_images: number of different images among the scored rows; copies of a file are one image.
        rates: the accuracies by name: those of `ACCURACIES`, the share of scored rows whose IoU is large enough, and
            ``centre_acc``, the share whose box has its centre in the gold box. Empty if no row is scored.
        mean_iou: mean IoU of the scored rows; None if there is none.
        score_quality: how well ``score`` tells right boxes from wrong ones (IoU 0.5), among the scored rows that have
            one; None if not both are there.
    """

    n: int
    n_ok: int
    n_no_box: int
    n_error: int
    n_without_gold: int
    n_images: int
    rates: Mapping[str, Rate]
    mean_iou: float | None
    score_quality: ScoreQuality | None = None

    def to_dict(self) -> dict[str, object]:
        """The figures as JSON values. Shares are from 0 to 1; ``..._ci95`` are their 95% intervals."""
        row: dict[str, object] = {
            "n": self.n,
            "n_ok": self.n_ok,
            "n_no_box": self.n_no_box,
            "n_error": self.n_error,
            "n_without_gold": self.n_without_gold,
            "n_images": self.n_images,
        }
        for name in (*ACCURACIES, CENTRE_ACCURACY):
            rate = self.rates.get(name)
            row[name] = None if rate is None else rate.value
            row[f"{name}_ci95"] = None if rate is None else [rate.low, rate.high]
        quality = None if self.score_quality is None else self.score_quality.to_dict()
        return row | {"mean_iou": self.mean_iou, "score_quality": quality}


@dataclass(frozen=True, slots=True)
class Report:
    """The result of `score`.

    Attributes:
        overall: the figures of all rows.
        rule: the rule by which the answers were read again; None if the stored boxes were scored.
        by: the field that rows are grouped by, if any.
        groups: the figures of each group, sorted by the field's value.
        n_unanswered: number of gold boxes without a prediction; no figure includes them.
        n_joined: number of predictions that have a gold box in the given ``gold``; None without it.
        warnings: what looks wrong about the gold boxes and their ids, one sentence each.
    """

    overall: Summary
    rule: str | None = None
    by: str | None = None
    groups: Mapping[str, Summary] = field(default_factory=dict)
    n_unanswered: int = 0
    n_joined: int | None = None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The report as JSON values: the overall figures, then the figures of the groups."""
        row = {"rule": self.rule, **self.overall.to_dict(), "n_unanswered": self.n_unanswered}
        if self.by is not None:
            row |= {"by": self.by, "groups": {name: summary.to_dict() for name, summary in self.groups.items()}}
        return row


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The outcome of one row."""

    status: Status
    image: Hashable
    iou: float | None
    centre: bool
    score: float | None


def score(
    predictions: Iterable[Prediction],
    *,
    rule: str | None = None,
    gold: Mapping[Id, Box] | None = None,
    by: str | None = None,
    box_format: BoxFormat | None = None,
) -> Report:
    """Compare predicted boxes with gold boxes.

    Args:
        predictions: the rows, each id once.
        rule: read the stored answers again by this rule of `deeplayer_cli.schema.answer_rules.ANSWER_RULES`.
        gold: gold boxes by id; they replace the rows' own gold boxes.
        by: also score each value of this field of the prediction or of its ``meta``.
        box_format: how the gold boxes are written; None for corners in pixels. A warning says if it is doubtful.

    Raises:
        DeeplayerError: the rule is unknown, an id comes twice, no row has the field ``by``, an answer cannot be read
            again, or ``box_format`` needs the size of an image that a row does not have.
    """
    if rule is not None and rule not in ANSWER_RULES:
        raise DeeplayerError(not_one_of("--rule", rule, ANSWER_RULES))
    seen: set[Id] = set()
    check, images = GoldCheck(box_format), ImageKeys()
    groups: defaultdict[str, list[_Outcome]] = defaultdict(list)
    known: dict[str, None] = {}
    for number, prediction in enumerate(predictions, start=1):
        if prediction.id in seen:
            raise DeeplayerError(
                f"id {prediction.id!r} comes twice, again in row {number}: each id can be scored only once, so remove "
                "one of the two rows"
            )
        seen.add(prediction.id)
        known |= own_fields(prediction)
        written = prediction.gold if gold is None else gold.get(prediction.id)
        box = gold_in_pixels(written, box_format, prediction)
        check.add(prediction, written, prediction.box)
        groups[NO_VALUE if by is None else group_name(prediction, by)].append(
            _judge(prediction, images.add(prediction), box, rule)
        )
    if by is not None and seen and set(groups) == {NO_VALUE}:
        raise DeeplayerError(no_such_field(by, known))
    return Report(
        overall=_summarise([outcome for group in groups.values() for outcome in group], images),
        rule=rule,
        by=by,
        groups={} if by is None else {name: _summarise(groups[name], images) for name in sorted(groups)},
        n_unanswered=0 if gold is None else len(gold.keys() - seen),
        n_joined=None if gold is None else len(gold.keys() & seen),
        warnings=(*check.warnings(), *([] if gold is None else unlike_ids(seen - gold.keys(), gold.keys() - seen))),
    )


def gold_in_pixels(gold: Box | None, box_format: BoxFormat | None, prediction: Prediction) -> Box | None:
    """Convert a row's gold box to corners in pixels; without ``box_format`` it is that already.

    Raises:
        DeeplayerError: the format needs the size of the image, and the row does not have it.
    """
    if gold is None or box_format is None or prediction.status == "error":  # an error row is wrong whatever its gold
        return gold
    try:
        return to_xyxy(
            gold, box_format, (prediction.width, prediction.height) if prediction.width and prediction.height else None
        )
    except ValueError as error:
        raise DeeplayerError(f"the gold box of row {prediction.id!r}: {error}, and the row has none") from error


def group_name(row: Prediction | Request | BadRequest, by: str) -> str:
    """The group that a row belongs to: its value of the field ``by`` of the row or of its ``meta``, as text."""
    value = getattr(row, by, None) if by in _FIELDS else row.meta.get(by)
    if value is None:
        return NO_VALUE
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def require_fields(rows: Iterable[Prediction | Request | BadRequest], names: Iterable[str]) -> None:
    """Refuse fields that no row has; it reads on until all have a value.

    A field of predictions passes, even if requests lack it: it comes with the answer.

    Args:
        rows: of a source or of a prediction file; if there are none, nothing is refused.
        names: the fields.

    Raises:
        DeeplayerError: no row has a value for one of them; the sentence names the fields that the rows have.
    """
    missing, known = [name for name in names if name not in _FIELDS], dict[str, None]()
    is_empty = True
    for row in rows:
        missing, is_empty = [name for name in missing if row.meta.get(name) is None], False
        if not missing:
            return
        known |= own_fields(row)
    if missing and not is_empty:
        raise DeeplayerError(no_such_field(missing[0], known))


def own_fields(row: Prediction | Request | BadRequest) -> dict[str, None]:
    """The fields of a row's ``meta`` that have a value, in their order."""
    return {name: None for name, value in row.meta.items() if value is not None}


def no_such_field(name: str, known: Iterable[str]) -> str:
    """The sentence that refuses a field that no row has; ``known`` are those that rows have, see `own_fields`."""
    known = list(known)
    names = ", ".join(known[:_MOST_NAMES]) + (", ..." if len(known) > _MOST_NAMES else "")
    fields_of_rows = f"the rows have {names}" if known else "the rows have no fields of their own"
    return f"no row has a value for {name!r}; {fields_of_rows}{did_you_mean(name, known)}"


def clustered_interval(right: Sequence[float], images: Sequence[Hashable]) -> tuple[float, float]:
    """95% interval of the share of right rows, clustered by image.

    Rows of one image tend to be right or wrong together, so n rows count as fewer independent rows. The interval is
    Wilson's score interval for this effective number of rows, ``p (1 - p) / variance``, at most n (as in Korn and
    Graubard 1998, Survey Methodology 24, 193-201). The variance is the cluster-robust one,
    ``sum_g (sum_i (x_gi - p))^2 / n^2`` over images g and their rows i (Miller 2024, "Adding Error Bars to Evals",
    arXiv:2411.00640). With one row per image, this is the usual Wilson interval.

    If all rows are right, or all are wrong, or all have one image, the variance is 0. In this case the effective number
    is the number of images. Unlike ``p +- 1.96 standard errors``, the interval never leaves [0, 1] and never shrinks to
    a point. With only a few images it is still a little too narrow.

    Args:
        right: for each row, whether it is right, or another value from 0 to 1; at least one row.
        images: the image of each row.

    Returns:
        The lower and the upper bound.
    """
    x = np.asarray(right, dtype=np.float64)
    n, p = len(x), float(x.mean())
    sums = np.bincount(image_numbers(images), weights=x - p)
    variance = float((sums**2).sum()) / n**2
    spread = p * (1 - p)
    silent = spread == 0 or len(sums) == 1
    effective = float(len(sums)) if silent else max(1.0, spread / max(variance, spread / n))
    return wilson_interval(p, effective)


def wilson_interval(p: float, effective: float) -> tuple[float, float]:
    """Wilson's 95% score interval of a share ``p`` of an effective number of rows."""
    centre = (p + Z95**2 / (2 * effective)) / (1 + Z95**2 / effective)
    half = Z95 * (p * (1 - p) / effective + Z95**2 / (4 * effective**2)) ** 0.5 / (1 + Z95**2 / effective)
    return max(0.0, centre - half), min(1.0, centre + half)


def _judge(prediction: Prediction, image: Hashable, gold: Box | None, rule: str | None) -> _Outcome:
    box, status = prediction.box, prediction.status
    if rule is not None and status != "error":
        box = _read_again(prediction, rule)
        status = "no_box" if box is None else "ok"
    centre = gold is not None and box is not None and centre_inside(box, gold)
    score = prediction.score if rule is None else None  # the score is of the stored box
    return _Outcome(status, image, overlap(box, gold), centre, score)


def _read_again(prediction: Prediction, rule: str) -> Box | None:
    answer, width, height = prediction.answer, prediction.width, prediction.height
    if answer is None or width is None or height is None:
        raise DeeplayerError(
            f"the answer of id {prediction.id!r} cannot be read again by rule {rule!r}: "
            "the row lacks its answer, width or height"
        )
    return next(iter(parse_answer(answer, (width, height), rule)), None)


def _summarise(outcomes: Sequence[_Outcome], keys: ImageKeys) -> Summary:
    statuses = [outcome.status for outcome in outcomes]
    scored = [(outcome, outcome.iou) for outcome in outcomes if outcome.iou is not None]
    images = keys.joined(outcome.image for outcome, _ in scored)
    judged = {name: [iou >= threshold for _, iou in scored] for name, threshold in ACCURACIES.items()}
    judged[CENTRE_ACCURACY] = [outcome.centre for outcome, _ in scored]
    rated = [(outcome.score, iou >= CORRECT_IOU) for outcome, iou in scored if outcome.score is not None]
    return Summary(
        n=len(outcomes),
        n_ok=statuses.count("ok"),
        n_no_box=statuses.count("no_box"),
        n_error=statuses.count("error"),
        n_without_gold=len(outcomes) - len(scored),
        n_images=len(set(images)),
        rates={name: _rate(right, images) for name, right in judged.items()} if scored else {},
        mean_iou=sum(iou for _, iou in scored) / len(scored) if scored else None,
        score_quality=ScoreQuality.from_rows(*zip(*rated, strict=True)) if rated else None,
    )


def _rate(right: Sequence[bool], images: Sequence[Hashable]) -> Rate:
    return Rate(sum(right) / len(right), *clustered_interval(right, images))
