"""Label Studio: tasks with predictions, for ``Import`` (https://labelstud.io/guide/predictions)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote
from xml.etree import ElementTree

import orjson

from deeplayer_cli.formats.labelled import in_xml

if TYPE_CHECKING:
    from pathlib import Path

    from deeplayer_cli.formats.labelled import Labelled, LabelledBox, LabelledImage

FROM_NAME, TO_NAME = "label", "image"
"""Names of the tags in the labelling configuration: ``<RectangleLabels name="label" toName="image">``."""


def write_label_studio(labelled: Labelled, path: Path, url_prefix: str = "") -> None:
    """Write one task an image, also for an image without a box; boxes are in percent of the image.

    Args:
        labelled: what to write.
        path: of the file.
        url_prefix: put in front of each image's path, such as ``/data/local-files/?d=photos/``; the path is then
            written as in a URL.
    """
    tasks = [
        {
            "data": {TO_NAME: _address(image.image, url_prefix)},
            "predictions": [_prediction(image)] if image.boxes else [],
        }
        for image in labelled.images
    ]
    path.write_bytes(orjson.dumps(tasks, option=orjson.OPT_INDENT_2))


def write_label_config(labelled: Labelled, path: Path) -> None:
    """Write the labelling configuration of a project for these tasks, for its settings: every label by name."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name=TO_NAME, value=f"${TO_NAME}")
    labels = ElementTree.SubElement(view, "RectangleLabels", name=FROM_NAME, toName=TO_NAME)
    for label in sorted({in_xml(label) for label in labelled.labels}):
        ElementTree.SubElement(labels, "Label", value=label)
    ElementTree.indent(view)
    path.write_text(ElementTree.tostring(view, encoding="unicode") + "\n", encoding="utf-8")


def _address(image: str, url_prefix: str) -> str:
    return f"{url_prefix}{quote(image)}" if url_prefix else image


def _prediction(image: LabelledImage) -> dict[str, object]:
    results = [_result(box, image, number) for number, box in enumerate(image.boxes)]
    prediction: dict[str, object] = {"model_version": "deeplayer", "result": results}
    scores = [box.score for box in image.boxes if box.score is not None]
    return prediction | ({"score": sum(scores) / len(scores)} if scores else {})


def _result(box: LabelledBox, image: LabelledImage, number: int) -> dict[str, object]:
    (x1, y1, x2, y2), (width, height) = box.xyxy, image.resolution_wh
    percent = {"x": x1 / width, "y": y1 / height, "width": (x2 - x1) / width, "height": (y2 - y1) / height}
    result: dict[str, object] = {
        "id": f"box{number}",
        "type": "rectanglelabels",
        "from_name": FROM_NAME,
        "to_name": TO_NAME,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {name: round(100 * share, 4) for name, share in percent.items()}
        | {"rotation": 0, "rectanglelabels": [in_xml(box.label)]},
    }
    return result if box.score is None else result | {"score": box.score}
