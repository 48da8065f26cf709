"""YOLO: one text file an image, ``class cx cy w h`` in fractions of the image, and ``data.yaml``."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from deeplayer_cli.boxes import Box, Resolution
    from deeplayer_cli.formats.labelled import Labelled


def write_yolo(labelled: Labelled, folder: Path) -> None:
    """Write ``labels/IMAGE.txt`` for each image and ``data.yaml`` with the class names.

    Raises:
        DeeplayerError: two images would share a label file, because their names differ in the suffix only.
    """
    classes = {name: number for number, name in enumerate(labelled.labels)}
    written: dict[PurePosixPath, str] = {}
    for image in labelled.images:
        name = label_file(image.image)
        if name in written:
            raise DeeplayerError(f"{written[name]} and {image.image} would share {name}: YOLO names labels by the stem")
        written[name] = image.image
        lines = [
            " ".join(
                [str(classes[box.label]), *(f"{number:.6f}" for number in to_cxcywh(box.xyxy, image.resolution_wh))]
            )
            for box in image.boxes
        ]
        path = folder / "labels" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    names = "".join(f"  {number}: {json.dumps(name)}\n" for name, number in classes.items())
    (folder / "data.yaml").write_text(f"path: .\ntrain: images\nval: images\nnames:\n{names}", encoding="utf-8")


def label_file(image: str) -> PurePosixPath:
    """Where the labels of an image go, below ``labels/``: its path without a leading ``images/``, as ``.txt``."""
    parts = [part for part in PurePosixPath(image).parts if part not in ("/", "..", ".")]
    parts = parts[1:] if parts[0] == "images" and len(parts) > 1 else parts
    return PurePosixPath(*parts).with_suffix(".txt")


def to_cxcywh(box: Box, resolution_wh: Resolution) -> tuple[float, float, float, float]:
    """Centre, width and height as fractions of the image."""
    (x1, y1, x2, y2), (width, height) = box, resolution_wh
    return (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
