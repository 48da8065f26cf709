"""Label Studio: tasks with predictions, for ``Import`` (https://labelstud.io/guide/predictions)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from pathlib import Path

    from deeplayer_cli.formats.labelled import Labelled, LabelledBox, LabelledImage

FROM_NAME, TO_NAME = "label", "image"
"""Names of the tags in the labelling configuration: ``<RectangleLabels name="label" toName="image">``."""


def write_label_studio(labelled: Labelled, path: Path, url_prefix: str = "") -> None:
    """Write one task an image; boxes are in percent of the image.

    Args:
        labelled: what to write.
        path: of the file.
        url_prefix: put in front of each image's path, such as ``/data/local-files/?d=photos/``.
    """
    tasks = [
        {
            "data": {"image": f"{url_prefix}{image.image}"},
            "predictions": [
                {
                    "model_version": "deeplayer",
                    "score": _mean_score(image),
                    "result": [_result(box, image, number) for number, box in enumerate(image.boxes)],
                }
            ],
        }
        for image in labelled.images
    ]
    path.write_bytes(orjson.dumps(tasks, option=orjson.OPT_INDENT_2))


def _mean_score(image: LabelledImage) -> float | None:
    scores = [box.score for box in image.boxes if box.score is not None]
    return sum(scores) / len(scores) if scores else None


def _result(box: LabelledBox, image: LabelledImage, number: int) -> dict[str, object]:
    (x1, y1, x2, y2), (width, height) = box.xyxy, image.resolution_wh
    return {
        "id": f"box{number}",
        "type": "rectanglelabels",
        "from_name": FROM_NAME,
        "to_name": TO_NAME,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": box.score,
        "value": {
            "x": 100 * x1 / width,
            "y": 100 * y1 / height,
            "width": 100 * (x2 - x1) / width,
            "height": 100 * (y2 - y1) / height,
            "rotation": 0,
            "rectanglelabels": [box.label],
        },
    }
