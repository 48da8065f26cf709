"""FiftyOne: ``labels.json`` of a ``FiftyOneImageDetectionDataset``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from deeplayer_cli.formats.labelled import label_files

if TYPE_CHECKING:
    from pathlib import Path

    from deeplayer_cli.boxes import Resolution
    from deeplayer_cli.formats.labelled import Labelled, LabelledBox


def write_fiftyone(labelled: Labelled, path: Path) -> None:
    """Write classes, and for each image its boxes as xywh in fractions of the image.

    Images are named by their path without its suffix: load with
    ``fo.Dataset.from_dir(data_path=..., labels_path=..., dataset_type=fo.types.FiftyOneImageDetectionDataset)``.

    Raises:
        DeeplayerError: two images would share a name, because theirs differ in the suffix only.
    """
    names = [str(name) for name in label_files(labelled.images, "", beside="")]
    labels = {
        name: [_detection(box, image.resolution_wh) for box in image.boxes]
        for name, image in zip(names, labelled.images, strict=True)
    }
    path.write_bytes(orjson.dumps({"classes": labelled.labels, "labels": labels}, option=orjson.OPT_INDENT_2))


def _detection(box: LabelledBox, resolution_wh: Resolution) -> dict[str, object]:
    (x1, y1, x2, y2), (width, height) = box.xyxy, resolution_wh
    bounding_box = [round(number, 6) for number in (x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height)]
    found: dict[str, object] = {"label": box.label, "bounding_box": bounding_box}
    return found if box.score is None else found | {"confidence": box.score}
