"""COCO: detection results, and a whole dataset (https://cocodataset.org/#format-data)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from deeplayer_cli.boxes import Box
    from deeplayer_cli.formats.labelled import Labelled, LabelledImage


def write_coco(labelled: Labelled, path: Path) -> None:
    """Write a dataset: ``images``, ``annotations`` with ``bbox`` as xywh in pixels, and ``categories``."""
    images, categories = image_ids(labelled.images), category_ids(labelled)
    annotations: list[dict[str, object]] = []
    for image, image_id in zip(labelled.images, images, strict=True):
        for box in image.boxes:
            xywh = to_xywh(box.xyxy)
            annotation: dict[str, object] = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": categories[box.label],
                "bbox": xywh,
                "area": round(xywh[2] * xywh[3], 2),
                "iscrowd": 0,
                "caption": box.expression,
            }
            annotations.append(annotation if box.score is None else annotation | {"score": box.score})
    dataset = {
        "images": [
            {
                "id": image_id,
                "file_name": image.image,
                "width": image.resolution_wh[0],
                "height": image.resolution_wh[1],
            }
            for image, image_id in zip(labelled.images, images, strict=True)
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
    }
    path.write_bytes(orjson.dumps(dataset, option=orjson.OPT_INDENT_2))


def write_coco_results(labelled: Labelled, path: Path) -> None:
    """Write detection results for COCO's evaluation: ids as `write_coco` numbers them."""
    images, categories = image_ids(labelled.images), category_ids(labelled)
    results = [
        {
            "image_id": image_id,
            "category_id": categories[box.label],
            "bbox": to_xywh(box.xyxy),
            "score": 1.0 if box.score is None else box.score,
        }
        for image, image_id in zip(labelled.images, images, strict=True)
        for box in image.boxes
    ]
    path.write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2))


def image_ids(images: Sequence[LabelledImage]) -> list[int]:
    """The images' own ids, if all have one and no two the same; otherwise 1, 2, 3, ..."""
    own = [image.source_id for image in images if image.source_id is not None]
    return own if len(set(own)) == len(images) else list(range(1, len(images) + 1))


def category_ids(labelled: Labelled) -> dict[str, int]:
    """Ids of the labels, from 1, in the order of their names."""
    return {name: number for number, name in enumerate(labelled.labels, start=1)}


def to_xywh(box: Box) -> list[float]:
    """Corner, width and height in pixels, to two decimals."""
    x1, y1, x2, y2 = box
    return [round(number, 2) for number in (x1, y1, x2 - x1, y2 - y1)]
