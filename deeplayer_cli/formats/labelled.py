"""Predictions to labelled images: what every export starts from."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from deeplayer_cli.boxes import clip_box, turn_box
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.schema.row_ids import Ids
from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from deeplayer_cli.boxes import Box, Resolution
    from deeplayer_cli.schema import Id, Prediction

DEFAULT_LABEL = "label"

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


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
        images: that were answered, in the order of their first row; some may have no box.
        left_out: rows without a box in the export, by reason.
        folder: that the images' paths start from, if it was taken off; None if they are as the rows write them.
    """

    images: list[LabelledImage]
    left_out: Counter[str]
    folder: str | None = None

    @property
    def with_boxes(self) -> list[LabelledImage]:
        """The images with at least one box."""
        return [image for image in self.images if image.boxes]

    @property
    def labels(self) -> list[str]:
        """All labels, sorted."""
        return sorted({box.label for image in self.images for box in image.boxes})

    def reasons(self) -> str:
        """How many rows were left out, by reason: ``2 rows in error, 1 row without a box``."""
        return ", ".join(f"{counted(rows, 'row')} {reason}" for reason, rows in self.left_out.items())

    def summary(self) -> str:
        """One line: what is in the export, and what is not."""
        n_boxes = sum(len(image.boxes) for image in self.images)
        said = (
            f"{counted(n_boxes, 'box', 'boxes')} with {counted(len(self.labels), 'label')} on "
            f"{counted(len(self.with_boxes), 'image')}"
        )
        if self.left_out:
            said += f"; left out: {self.reasons()}"
        return said if self.folder is None else f"{said}; image paths start from {self.folder}"


def label_images(
    predictions: Iterable[Prediction],
    labelling: Labelling,
    *,
    image_root: str | None = None,
    turn: Callable[[Prediction], int] = lambda row: 1,
) -> Labelled:
    """Collect the boxes of each image.

    A box is clipped to its image, its corners are ordered, and it is left out if no area remains. The rows themselves
    keep the box as the model wrote it.

    Args:
        predictions: the rows.
        labelling: how they become labels.
        image_root: absolute image paths are written from this folder on; None for the folder that all have in common.
        turn: the EXIF orientation to turn a row's boxes by.

    Raises:
        DeeplayerError: an id comes twice, an image lies outside of ``image_root``, or no row with a box has the field
            of the label.
    """
    images: dict[str, LabelledImage] = {}
    contents: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    seen = Ids()
    for number, row in enumerate(predictions, start=1):
        if not seen.add(row.id):
            raise DeeplayerError(f"id {row.id!r} comes twice, again in row {number}: remove one of the two rows")
        reason = _reason_to_leave_out(row, labelling)
        if row.image is None or not row.width or not row.height:
            left_out[reason or f"without {'an image' if row.image is None else 'the size of their image'}"] += 1
            continue
        boxes, resolution_wh = _boxes_of(row, labelling, turn(row))
        source_id = row.meta.get("image_id")
        own = source_id if isinstance(source_id, int) and not isinstance(source_id, bool) else None
        image = images.setdefault(row.image, LabelledImage(row.image, resolution_wh, own))
        if row.image_id is not None and contents.setdefault(row.image, row.image_id) != row.image_id:
            left_out[reason or "about another image with the name of an earlier one"] += 1
        elif image.resolution_wh != resolution_wh:
            left_out[reason or "with another size of their image than an earlier row"] += 1
        elif reason or not boxes:
            left_out[reason or "whose box lies outside of the image"] += 1
        else:
            image.boxes += boxes
    field = labelling.label_field
    if field is not None and left_out[_without_label(field)] and not any(image.boxes for image in images.values()):
        way_out = f"; give --label-field {field[5:]}" if field.startswith("meta.") else ""
        raise DeeplayerError(
            f"no row with a box has a value for {field!r}: it is no field of the row or of its meta{way_out}"
        )
    any_absolute = any(PurePosixPath(image).is_absolute() for image in images)
    folder = (image_root or _common_folder(list(images))) if any_absolute else None
    if folder is not None:
        for image in images.values():
            image.image = _below(image.image, folder)
    return Labelled(list(images.values()), left_out, folder)


def _common_folder(paths: Sequence[str]) -> str | None:
    """The folder that all paths lie in, if all are absolute."""
    folders = [PurePosixPath(path).parent for path in paths]
    if not folders or not all(folder.is_absolute() for folder in folders):
        return None
    first = folders[0]
    return str(next(one for one in (first, *first.parents) if all(folder.is_relative_to(one) for folder in folders)))


def _below(image: str, folder: str) -> str:
    """An absolute path from a folder on; a relative one as it is."""
    path = PurePosixPath(image)
    if not path.is_absolute():
        return image
    if not path.is_relative_to(folder):
        raise DeeplayerError(f"{image} does not lie in {folder}: name a folder of all images with --image-root")
    return str(path.relative_to(folder))


def _reason_to_leave_out(row: Prediction, labelling: Labelling) -> str | None:
    if row.status == "error":
        return "in error"
    if row.status == "no_box":
        return "without a box"
    if row.score is not None and row.score < labelling.min_score:
        return f"with a score below {labelling.min_score:g}"
    if _label_of(row, labelling.label_field) is None:
        return _without_label(labelling.label_field)
    return None


def _without_label(label_field: str | None) -> str:
    return "without an expression" if label_field is None else f"without a value for {label_field!r}"


def _boxes_of(row: Prediction, labelling: Labelling, orientation: int) -> tuple[list[LabelledBox], Resolution]:
    wanted = row.boxes if labelling.all_boxes else row.boxes[:1]
    stored = (row.width or 0, row.height or 0)
    label, expression = str(_label_of(row, labelling.label_field)), str(row.expression)
    found = []
    _, resolution_wh = turn_box((0, 0, 0, 0), orientation, stored)
    for raw in wanted:
        box, _ = turn_box(ordered_box(clip_box(raw, stored)), orientation, stored)
        if box[0] < box[2] and box[1] < box[3]:
            found.append(LabelledBox(row.id, box, label, expression, row.score))
    return found, resolution_wh


def ordered_box(box: Box) -> Box:
    """The box with its corners in order: x1 <= x2 and y1 <= y2."""
    x1, y1, x2, y2 = box
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _label_of(row: Prediction, label_field: str | None) -> str | None:
    value = getattr(row, label_field, None) if label_field in {"expression", "method", "id"} else None
    if value is None:
        value = row.meta.get(label_field or DEFAULT_LABEL)
    if value is None and label_field is None:
        value = row.expression
    return None if value is None else str(value)


def in_xml(text: str) -> str:
    """The text with spaces for the characters that XML 1.0 forbids (https://www.w3.org/TR/xml/#charsets)."""
    return _NOT_IN_XML.sub(" ", text)


def label_files(
    images: Sequence[LabelledImage], suffix: str, beside: str = "images", *, anywhere: bool = False
) -> list[PurePosixPath]:
    """Where the labels of each image go, in formats with a name for each image: its path with another suffix.

    Args:
        images: in order.
        suffix: of the label files.
        beside: the folder of images that the folder of labels lies beside; it is left out where a path begins with it.
        anywhere: leave out every folder of that name, also further down in a path.

    Raises:
        DeeplayerError: two images would share a label file, because their names differ in the suffix only; or an image
            names no file.
    """
    taken: dict[PurePosixPath, str] = {}
    for image in images:
        parts = [part for part in PurePosixPath(image.image).parts if part not in ("/", "..", ".")]
        if not parts or "\0" in image.image:
            raise DeeplayerError(f"image {image.image!r} names no file, so it can have no file of labels")
        folders = parts[:-1]
        if anywhere:
            folders = [part for part in folders if part != beside]
        elif folders and folders[0] == beside:
            del folders[0]
        name = PurePosixPath(*folders, parts[-1]).with_suffix(suffix)
        if name in taken:
            raise DeeplayerError(
                f"{taken[name]} and {image.image} would share {name}: this format names labels by the stem"
            )
        taken[name] = image.image
    return list(taken)
