"""Predictions: the rows of an output file, to JSON and from JSON."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import orjson

from deeplayer_cli.boxes import box_iou
from deeplayer_cli.schema.answer_rules import echo_end, parse_answer
from deeplayer_cli.schema.tiles import TileLayout
from deeplayer_cli.schema.values import Id, find_non_finite, four_numbers, in_text, is_id, show

if TYPE_CHECKING:
    from deeplayer_cli.boxes import Box, Resolution
    from deeplayer_cli.errors import RowError
    from deeplayer_cli.schema.request import BadRequest, Request

Status = Literal["ok", "no_box", "error"]
STATUSES: tuple[Status, ...] = get_args(Status)

_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("image", "expression", "answer", "method", "image_id", "source"), str),
    **dict.fromkeys(("width", "height", "visual_tokens", "kept_tokens", "layer"), int),
    **dict.fromkeys(("score", "iou"), (int, float)),
    **dict.fromkeys(("error", "fallback"), dict),
    "kept": list,
    "share": str,
    "positions": str,
}
_CALLED: dict[type | tuple[type, ...], str] = {
    str: "a string",
    int: "an integer",
    (int, float): "a number",
    dict: "an object",
    list: "a list",
}

_OPTIONAL_FIELDS = frozenset({"error", "kept", "tiles", "fallback", "share", "positions"})


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answered request: one line of the output, its keys in the order of these fields.

    Attributes:
        id: the request's id.
        image: the image as the request writes it.
        expression: the request's expression.
        status: ``"ok"``, ``"no_box"`` (answered, but without a box) or ``"error"``.
        box: the first box by the official rule behind the repeated expression, unclipped, in pixels.
        boxes: all boxes of the answer.
        score: the probability that no edge of ``box`` is off by more than half of the box's side, as the model sees it.
        gold: the gold box of the request, in pixels.
        iou: intersection over union of ``box`` and ``gold``; 0.0 without a box, None without gold.
        answer: the decoded text, stripped.
        width: of the stored image, in pixels.
        height: of the stored image, in pixels.
        visual_tokens: number of visual tokens of the image.
        kept_tokens: number of visual tokens in the last layer.
        method: name of the pruning method.
        layer: layer K, counted from 1.
        image_id: a digest of the image file's content; None if the image was not read.
        source: where the request came from: ``FOLDER/FILE:LINE``.
        meta: the request's other fields, untouched.
        error: ``type`` and ``message``, on error rows only.
        kept: indices of the kept visual tokens, if requested.
        tiles: where visual tokens lie in the image, if ``kept`` was requested.
        fallback: ``score`` and ``kept_tokens`` of the pruned answer, if that was unsure and this is the answer without
            pruning.
        share: ``"union"`` if all rows of an image kept the union of their kept tokens; then this answer depends on all
            of these rows.
        positions: ``"renumber"`` if the layers after a drop numbered the positions of what was left without gaps.
    """

    id: Id
    image: str | None
    expression: str | None
    status: Status
    box: Box | None = None
    boxes: tuple[Box, ...] = ()
    score: float | None = None
    gold: Box | None = None
    iou: float | None = None
    answer: str | None = None
    width: int | None = None
    height: int | None = None
    visual_tokens: int | None = None
    kept_tokens: int | None = None
    method: str | None = None
    layer: int | None = None
    image_id: str | None = None
    source: str | None = None
    meta: dict[str, object] = field(default_factory=dict)
    error: dict[str, str] | None = None
    kept: list[int] | None = None
    tiles: TileLayout | None = None
    fallback: dict[str, float | None] | None = None
    share: str | None = None
    positions: str | None = None

    @classmethod
    def answered(
        cls,
        request: Request,
        answer: str,
        resolution_wh: Resolution,
        *,
        score: float | None = None,
        visual_tokens: int | None = None,
        kept_tokens: int | None = None,
        method: str | None = None,
        layer: int | None = None,
        image_id: str | None = None,
        share: str | None = None,
        positions: str | None = None,
    ) -> Prediction:
        """Make the prediction of an answer: read its boxes, and compare the first with gold.

        The official rule reads what follows the repeated expression; without an echo, it reads the whole answer.

        Args:
            request: the answered request.
            answer: the decoded text, stripped.
            resolution_wh: width and height of the stored image, in pixels.
            score: of the first box, see `Prediction`.
            visual_tokens: number of visual tokens of the image.
            kept_tokens: number of visual tokens in the last layer.
            method: name of the pruning method.
            layer: layer K, counted from 1.
            image_id: the digest of the image file's content.
            share: ``"union"`` if all rows of the image kept the union of their kept tokens.
            positions: ``"renumber"`` if position ids were numbered anew after a drop.
        """
        boxes = parse_answer(answer[echo_end(answer, request.expression) :], resolution_wh)
        box = boxes[0] if boxes else None
        return cls(
            id=request.id,
            image=request.image,
            expression=request.expression,
            status="ok" if boxes else "no_box",
            box=box,
            boxes=boxes,
            score=score,
            gold=request.gold,
            iou=overlap(box, request.gold),
            answer=answer,
            width=resolution_wh[0],
            height=resolution_wh[1],
            visual_tokens=visual_tokens,
            kept_tokens=kept_tokens,
            method=method,
            layer=layer,
            image_id=image_id,
            source=request.where,
            meta=request.meta,
            share=share,
            positions=positions,
        )

    @classmethod
    def failed(
        cls,
        request: Request | BadRequest,
        error: RowError,
        *,
        method: str | None = None,
        layer: int | None = None,
        image_id: str | None = None,
    ) -> Prediction:
        """Make the ``error`` prediction of a request; with a gold box, its IoU is 0.0, so it counts as wrong."""
        return cls(
            id=request.id,
            image=request.image,
            expression=request.expression,
            status="error",
            gold=request.gold,
            iou=overlap(None, request.gold),
            method=method,
            layer=layer,
            image_id=image_id,
            source=request.where,
            meta=request.meta,
            error={"type": error.kind, "message": in_text(error.message)},  # which may quote a path
        )

    def to_json(self) -> bytes:
        """Return one line of JSON with its newline; predicted boxes have two decimals.

        JSON has no NaN or infinity: a prediction that contains one becomes an error row that names the field.
        """
        place = find_non_finite(_as_row(self))
        row = self if place is None else self._without_numbers(place)
        return orjson.dumps(_as_row(row), option=orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def from_json(cls, line: bytes) -> Prediction:
        """Read a line that `to_json` wrote; keys that are not fields of a prediction are ignored.

        Boxes that are those of the answer, but for rounding, get back all their digits: an IoU near a threshold must
        not depend on rounding.

        Raises:
            ValueError: the line is not a prediction; the message gives the reason.
        """
        row = orjson.loads(line)
        if not isinstance(row, dict) or not {"id", "status"} <= row.keys():
            is_request = isinstance(row, dict) and {"image", "expression"} <= row.keys()
            way_out = "; this is a request, which `deeplayer ground` answers" if is_request else ""
            raise ValueError(f"a prediction is an object with id and status{way_out}")
        row = {item.name: row[item.name] for item in fields(cls) if item.name in row}
        if not is_id(row["id"]):
            raise ValueError(f"id must be a string or an integer, not {show(row['id'])}")
        if row["status"] not in STATUSES:
            raise ValueError(f"status must be ok, no_box or error, not {show(row['status'])}")
        boxes = row.get("boxes") or []
        if not isinstance(boxes, list):
            raise ValueError(f"boxes must be a list, not {show(boxes)}")
        if not isinstance(row.get("meta", {}), dict):
            raise ValueError(f"meta must be an object, not {show(row['meta'])}")
        for name, kinds in _TYPES.items():
            value = row.get(name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, kinds)):
                raise ValueError(f"{name} must be {_CALLED[kinds]}, not {show(value)}")
        if not 0 <= (row.get("iou") or 0) <= 1:
            raise ValueError(f"iou must be from 0 to 1, not {show(row['iou'])}")
        row |= {name: four_numbers(name, row[name]) for name in ("box", "gold") if row.get(name) is not None}
        row |= {"boxes": tuple(four_numbers("boxes", box) for box in boxes)}
        row |= _exact_boxes(row)
        row |= _both_boxes(row)
        if not all(type(index) is int and index >= 0 for index in row.get("kept") or []):
            raise ValueError(f"kept must be a list of indices, not {show(row['kept'])}")
        if row.get("tiles") is not None:
            row["tiles"] = TileLayout.from_json(row["tiles"])
        row |= {"image": row.get("image"), "expression": row.get("expression")}
        return cls(**row)

    def _without_numbers(self, place: str) -> Prediction:
        """Return the error row of a number at ``place`` that is not finite, without any value that may contain it."""
        gold = self.gold if find_non_finite(self.gold) is None else None
        return replace(
            self,
            status="error",
            box=None,
            boxes=(),
            score=None,
            gold=gold,
            iou=overlap(None, gold),
            meta=self.meta if find_non_finite(self.meta) is None else {},
            error={"type": "not_finite", "message": f"{place} is not a finite number"},
        )


def overlap(box: Box | None, gold: Box | None) -> float | None:
    """Return the IoU of a predicted and a gold box; 0.0 without a predicted box, None without a gold box."""
    if gold is None:
        return None
    return box_iou(box, gold) if box is not None else 0.0


def _rounded(box: Box) -> Box:
    x1, y1, x2, y2 = box
    return round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2)


def _both_boxes(row: dict[str, Any]) -> dict[str, object]:
    """Return ``box`` and ``boxes``; files of other programs may have only one of the two.

    Raises:
        ValueError: the row has a box, and its status says that it has none.
    """
    box, boxes = row.get("box"), row["boxes"]
    if row["status"] != "ok" and (box is not None or boxes):
        raise ValueError(f"status is {row['status']}, but the row has a box: make it ok, or remove the box")
    if box is None:
        return {"box": boxes[0]} if boxes else {}
    return {} if boxes else {"boxes": (box,)}


def _exact_boxes(row: dict[str, Any]) -> dict[str, object]:
    """Return ``box`` and ``boxes`` as the answer has them, if the row has the same ones, rounded."""
    answer, expression, width, height = (row.get(name) for name in ("answer", "expression", "width", "height"))
    if not row["boxes"] or answer is None or expression is None or width is None or height is None:
        return {}
    exact = parse_answer(answer[echo_end(answer, expression) :], (width, height))
    if row["boxes"] != tuple(map(_rounded, exact)) or row.get("box") != row["boxes"][0]:
        return {}
    return {"box": exact[0], "boxes": exact}


def _as_row(prediction: Prediction) -> dict[str, object]:
    row = {item.name: getattr(prediction, item.name) for item in fields(prediction)}
    row["boxes"] = tuple(map(_rounded, prediction.boxes))
    row["box"] = None if prediction.box is None else _rounded(prediction.box)
    return {name: value for name, value in row.items() if value is not None or name not in _OPTIONAL_FIELDS}
