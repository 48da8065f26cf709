"""YOLO: one text file an image, ``class cx cy w h`` in fractions of the image, and ``data.yaml``."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from deeplayer_cli.formats.labelled import label_files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from deeplayer_cli.boxes import Box, Resolution
    from deeplayer_cli.formats.labelled import Labelled, LabelledImage


def write_yolo(labelled: Labelled, folder: Path) -> None:
    """Write ``labels/IMAGE.txt`` for each image with a box, and ``data.yaml`` with the class names.

    Raises:
        DeeplayerError: two images would share a label file, because their names differ in the suffix only.
    """
    (folder / "labels").mkdir()  # without any box too, so that no older labels stay
    classes = {name: number for number, name in enumerate(labelled.labels)}
    for image, name in zip(labelled.with_boxes, _label_files(labelled.with_boxes), strict=True):
        lines = [
            " ".join(
                [str(classes[box.label]), *(f"{number:.6f}" for number in to_cxcywh(box.xyxy, image.resolution_wh))]
            )
            for box in image.boxes
        ]
        path = folder / "labels" / name
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    names = "".join(f"  {number}: {_in_yaml(name)}\n" for name, number in classes.items())
    # Without a line `path`, ultralytics starts from the folder of this file; `path: .` is its working directory.
    (folder / "data.yaml").write_text(f"train: images\nval: images\nnames:\n{names}", encoding="utf-8")


def image_place(labelled: Labelled, folder: Path) -> str:
    """Say where trainers look for the first image that has a box: at the path of its labels, below ``images``."""
    image = labelled.with_boxes[0].image
    (labels,) = _label_files(labelled.with_boxes[:1])
    place = folder / "images" / labels.with_suffix(PurePosixPath(image).suffix)
    return f"{place} is where trainers look for {image}: copy or link all images in this way"


def _label_files(images: Sequence[LabelledImage]) -> list[PurePosixPath]:
    """Paths without any folder ``images``: ultralytics puts ``labels`` in the place of the last one of a path."""
    return label_files(images, ".txt", anywhere=True)


def _in_yaml(text: str) -> str:
    """A double-quoted string: as in JSON, but characters beyond the first 65,536 are no surrogate pairs in YAML."""
    escaped = (f"\\U{ord(c):08x}" if ord(c) > 0xFFFF else json.dumps(c)[1:-1] for c in text)
    return f'"{"".join(escaped)}"'


def to_cxcywh(box: Box, resolution_wh: Resolution) -> tuple[float, float, float, float]:
    """Centre, width and height as fractions of the image."""
    (x1, y1, x2, y2), (width, height) = box, resolution_wh
    return (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
