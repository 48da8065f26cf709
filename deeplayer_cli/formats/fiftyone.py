"""FiftyOne: ``labels.json`` of a ``FiftyOneImageDetectionDataset``."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from deeplayer_cli.formats.labelled import Labelled


def write_fiftyone(labelled: Labelled, path: Path) -> None:
    """Write classes, and for each image its boxes as xywh in fractions of the image.

    Images are named by their path without its suffix: load with
    ``fo.Dataset.from_dir(data_path=..., labels_path=..., dataset_type=fo.types.FiftyOneImageDetectionDataset)``.
    """
    labels = {
        str(PurePosixPath(image.image).with_suffix("")): [
            {
                "label": box.label,
                "bounding_box": [
                    box.xyxy[0] / image.resolution_wh[0],
                    box.xyxy[1] / image.resolution_wh[1],
                    (box.xyxy[2] - box.xyxy[0]) / image.resolution_wh[0],
                    (box.xyxy[3] - box.xyxy[1]) / image.resolution_wh[1],
                ],
                "confidence": box.score,
            }
            for box in image.boxes
        ]
        for image in labelled.images
    }
    path.write_bytes(orjson.dumps({"classes": labelled.labels, "labels": labels}, option=orjson.OPT_INDENT_2))
