"""Predictions to labelled images: what every export starts from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deeplayer_cli.boxes import clip_box

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deeplayer_cli.boxes import Box, Resolution
    from deeplayer_cli.schema import Id, Prediction

DEFAULT_LABEL = "label"


@dataclass(frozen=True)
class LabelledBox:
    """One box with its label.

    Attributes:
        id: of the row.
        xyxy: in pixels, corners ordered and inside the image.
        label: its class.
        expression: what was asked.
        score: of the row; None without one.
    """

    id: Id
    xyxy: Box
    label: str
    expression: str
    score: float | None


@dataclass
class LabelledImage:
    """An image with the boxes of all its rows.

    Attributes:
        image: its path, as the rows write it.
        resolution_wh: width and height in pixels, in the frame of the boxes.
        source_id: ``image_id`` in the rows' ``meta``, if it is a number, as COCO's are.
        boxes: in the order of the rows.
    """

    image: str
    resolution_wh: Resolution
    source_id: int | None = None
    boxes: list[LabelledBox] = field(default_factory=list)


@dataclass(frozen=True)
class Labelling:
    """How predictions become labels.

    Attributes:
        label_field: the field of a row or of its ``meta`` that holds the class; None for ``meta.label``, or else the
            expression.
        all_boxes: export every box of an answer, not only the first.
        min_score: rows with a lower score are left out.
    """

    label_field: str | None = None
    all_boxes: bool = False
    min_score: float = 0.0


@dataclass(frozen=True)
class Labelled:
    """What predictions came to.

    Attributes:
        images: with at least one box, in the order of their first row.
        left_out: rows without a box in the export, by reason.
    """

    images: list[LabelledImage]
    left_out: Counter[str]

    @property
    def labels(self) -> list[str]:
        """All labels, sorted."""
        return sorted({box.label for image in self.images for box in image.boxes})

    def summary(self) -> str:
        """One line: what is in the export, and what is not."""
        n_boxes = sum(len(image.boxes) for image in self.images)
        said = f"{n_boxes} boxes with {len(self.labels)} labels on {len(self.images)} images"
        if self.left_out:
            said += "; left out: " + ", ".join(f"{rows} rows {reason}" for reason, rows in self.left_out.items())
        return said


def label_images(predictions: Iterable[Prediction], labelling: Labelling) -> Labelled:
    """Collect the boxes of each image.

    A box is clipped to its image, its corners are ordered, and it is left out if no area remains. The rows themselves
    keep the box as the model wrote it.
    """
    images: dict[str, LabelledImage] = {}
    left_out: Counter[str] = Counter()
    for row in predictions:
        reason = _reason_to_leave_out(row, labelling)
        boxes = [] if reason else _boxes_of(row, labelling)
        if not boxes:
            left_out[reason or "whose box lies outside of the image"] += 1
            continue
        name, width, height = str(row.image), row.width or 0, row.height or 0
        source_id = row.meta.get("image_id")
        image = images.setdefault(
            name, LabelledImage(name, (width, height), source_id if isinstance(source_id, int) else None)
        )
        image.boxes += boxes
    return Labelled(list(images.values()), left_out)


def _reason_to_leave_out(row: Prediction, labelling: Labelling) -> str | None:
    if row.status == "error" or row.image is None or not row.width or not row.height:
        return "in error"
    if row.status == "no_box":
        return "without a box"
    if row.score is not None and row.score < labelling.min_score:
        return f"with a score below {labelling.min_score:g}"
    return None


def _boxes_of(row: Prediction, labelling: Labelling) -> list[LabelledBox]:
    wanted = row.boxes if labelling.all_boxes else row.boxes[:1]
    resolution = (row.width or 0, row.height or 0)
    clipped = [ordered_box(clip_box(box, resolution)) for box in wanted]
    label, expression = _label_of(row, labelling.label_field), str(row.expression)
    return [
        LabelledBox(row.id, box, label, expression, row.score) for box in clipped if box[0] < box[2] and box[1] < box[3]
    ]


def ordered_box(box: Box) -> Box:
    """The box with its corners in order: x1 <= x2 and y1 <= y2."""
    x1, y1, x2, y2 = box
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _label_of(row: Prediction, label_field: str | None) -> str:
    if label_field is None:
        return str(row.meta.get(DEFAULT_LABEL, row.expression))
    value = getattr(row, label_field, None) if label_field in {"expression", "method", "id"} else None
    return str(row.meta.get(label_field) if value is None else value)
