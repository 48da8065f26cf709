"""Small files in the exact layout of each format, all about the same expressions."""

from __future__ import annotations

import base64
import csv
import io
import json
import pickle
from typing import TYPE_CHECKING

import orjson
import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = (200, 100)
NAMES = ("COCO_train2014_000000000009.jpg", "COCO_train2014_000000000025.jpg")
# Two refs about the first image, one about the second: (image, sentences, xywh).
REFS = [(0, ("left dog", "brown dog"), (10.0, 20.0, 50.0, 40.0)), (0, ("cat",), (100.0, 5.0, 80.0, 90.0))]
REFS += [(1, ("woman in red", "lady"), (0.0, 0.0, 20.5, 99.0))]
EXPECTED: list[tuple[int, str, tuple[float, ...]]] = [
    (image, sentence, (x, y, x + width, y + height))
    for image, sentences, (x, y, width, height) in REFS
    for sentence in sentences
]


def jpeg(number):
    stream = io.BytesIO()
    Image.new("RGB", SIZE, (90 * number, 0, 0)).save(stream, "JPEG")
    return stream.getvalue()


def xyxy(box):
    x, y, width, height = box
    return [x, y, x + width, y + height]


def json_lines(rows):
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


def write_internvl(folder):
    path = folder / "refcoco_val.jsonl"
    rows = [
        {
            "image": f"data/coco/train2014/{NAMES[image]}",
            "sent": sentence,
            "bbox": xyxy(box),
            "width": 200,
            "height": 100,
        }
        for image, sentences, box in REFS
        for sentence in sentences
    ]
    path.write_bytes(json_lines(rows))
    return path


def write_lmms(folder):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (folder / "RefCOCO").mkdir()
    path = folder / "RefCOCO" / "val-00000-of-00001.parquet"
    rows = [
        {
            "question_id": str(number),
            "image": {"bytes": jpeg(image), "path": f"{number}.jpg"},
            "question": "Please carefully observe the area circled in the image and come up with a caption.",
            "answer": list(sentences),
            "segmentation": [0.0],
            "bbox": list(box),
            "iscrowd": 0,
            "file_name": NAMES[image].replace(".jpg", f"_{number}.jpg"),
        }
        for number, (image, sentences, box) in enumerate(REFS)
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def write_jxu(folder):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = folder / "refcoco-validation.parquet"
    rows = [
        {
            "sent_ids": [0],
            "file_name": NAMES[image].replace(".jpg", f"_{number}.jpg"),
            "ann_id": number,
            "ref_id": number,
            "image_id": image,
            "split": "val",
            "sentences": [{"raw": one, "sent": one, "sent_id": 0, "tokens": one.split()} for one in sentences],
            "category_id": 1,
            "raw_anns": json.dumps({"bbox": list(box), "id": number}),
            "raw_image_info": json.dumps({"width": 200, "height": 100, "file_name": NAMES[image]}),
            "image_path": f"coco/train2014/{NAMES[image]}",
            "bbox": xyxy(box),
        }
        for number, (image, sentences, box) in enumerate(REFS)
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def write_vlmevalkit(folder):
    path, index, first = folder / "RefCOCO.tsv", 0, {}
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t")
        writer.writerow(["index", "image", "question", "answer", "category"])
        for image, sentences, box in REFS:
            x1, y1, x2, y2 = xyxy(box)
            for sentence in sentences:
                # A picture that came before is given by the index of its row.
                content = str(first[image]) if image in first else base64.b64encode(jpeg(image)).decode()
                first.setdefault(image, index)
                unit = [x1 / 200, y1 / 100, x2 / 200, y2 / 100]
                writer.writerow([index, content, sentence, json.dumps(unit), "RefCOCO val"])
                index += 1
    return path


def write_refer(folder):
    (folder / "refcoco").mkdir()
    path = folder / "refcoco" / "refs(unc).p"
    refs = [
        {
            "ref_id": number,
            "ann_id": number + 100,
            "category_id": 1,
            "file_name": NAMES[image].replace(".jpg", f"_{number}.jpg"),
            "image_id": image,
            "split": "val",
            "sent_ids": [number],
            "sentences": [{"raw": one, "sent": one, "sent_id": 7, "tokens": one.split()} for one in sentences],
        }
        for number, (image, sentences, _) in enumerate(REFS)
    ]
    path.write_bytes(pickle.dumps(refs, protocol=2))
    instances = {
        "images": [{"id": n, "file_name": name, "width": 200, "height": 100} for n, name in enumerate(NAMES)],
        "annotations": [{"id": n + 100, "image_id": image, "bbox": box} for n, (image, _, box) in enumerate(REFS)],
        "categories": [{"id": 1, "name": "thing"}],
    }
    path.with_name("instances.json").write_text(json.dumps(instances))
    return path


def write_coco(folder):
    path = folder / "instances.json"
    sentences = sorted({sentence for _, all_of_it, _ in REFS for sentence in all_of_it})
    annotations = [(image, sentence, box) for image, all_of_it, box in REFS for sentence in all_of_it]
    content = {
        "images": [{"id": n, "file_name": name, "width": 200, "height": 100} for n, name in enumerate(NAMES)],
        "annotations": [
            {"id": n, "image_id": image, "category_id": sentences.index(sentence), "bbox": box, "iscrowd": 0}
            for n, (image, sentence, box) in enumerate(annotations)
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(sentences)],
    }
    path.write_text(json.dumps(content))
    return path


def write_label_studio(folder):
    path = folder / "project-1.json"

    def result(sentence, box):
        x, y, width, height = box
        value = {"x": x / 2, "y": y, "width": width / 2, "height": height, "rotation": 0, "rectanglelabels": [sentence]}
        return {"type": "rectanglelabels", "original_width": 200, "original_height": 100, "value": value}

    tasks = [
        {
            "id": number,
            "data": {"image": f"/data/local-files/?d=train2014/{name}"},
            "annotations": [
                {"result": [result(s, box) for image, all_of_it, box in REFS if image == number for s in all_of_it]}
            ],
        }
        for number, name in enumerate(NAMES)
    ]
    path.write_text(json.dumps(tasks))
    return path


def write_csv(folder):
    path = folder / "boxes.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "expression", "x1", "y1", "x2", "y2"])
        writer.writerows(
            [NAMES[image], sentence, *xyxy(box)] for image, all_of_it, box in REFS for sentence in all_of_it
        )
    return path


def write_columns(folder):
    path = folder / "boxes.data"  # neither the name nor the suffix says what it is
    rows = [["file_name", "phrase", "bbox", "width", "height"]]
    rows += [[NAMES[image], one, " ".join(map(str, box)), *SIZE] for image, all_of_it, box in REFS for one in all_of_it]
    path.write_text("".join("\t".join(map(str, row)) + "\r\n" for row in rows))
    return path


def write_lines(folder):
    path = folder / "rows.ndjson"
    rows = [
        {"image_path": NAMES[image], "caption": sentence, "bbox": box}
        for image, all_of_it, box in REFS
        for sentence in all_of_it
    ]
    path.write_bytes(json_lines(rows))
    return path


def write_requests(folder):
    path = folder / "requests-before.jsonl"
    rows = [
        {"id": f"{image}-{sentence}", "image": NAMES[image], "expression": sentence, "box": xyxy(box)}
        for image, all_of_it, box in REFS
        for sentence in all_of_it
    ]
    path.write_bytes(json_lines(rows))
    return path


def write_mdetr(folder):
    """MDETR's finetune_refcoco_val.json: an image for each expression, which is its caption."""
    path = folder / "finetune_refcoco_val.json"
    images, annotations = [], []
    for image, all_of_it, box in REFS:
        for sentence in all_of_it:
            number = len(images)
            images.append(
                {"file_name": NAMES[image], "height": 100, "width": 200, "id": number, "original_id": image}
                | {"caption": sentence, "dataset_name": "refcoco", "tokens_negative": [[0, 4]]}
            )
            annotations.append(
                {"area": 1.0, "iscrowd": 0, "image_id": number, "category_id": 1, "id": number, "bbox": list(box)}
                | {"tokens_positive": [[0, 4]]}
            )
    content = {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": []}
    path.write_text(json.dumps(content))
    return path


def write_flickr(folder):
    root = folder / "entities"
    for name in ("Sentences", "Annotations"):
        (root / name).mkdir(parents=True)
    for number, image in enumerate(NAMES):
        name, things, words, chain = image.removesuffix(".jpg"), "", "", 100 * number
        for of, sentences, box in REFS:
            if of != number:
                continue
            chain += 1
            x1, y1, x2, y2 = (corner + 1 for corner in xyxy(box))  # the files count pixels from 1
            corners = f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
            things += f"<object><name>{chain}</name><bndbox>{corners}</bndbox></object>"
            words += "".join(
                f"[/EN#{chain}/people/other {one}] stand near [/EN#0/notvisual it] .\n" for one in sentences
            )
        things += "<object><name>999</name><scene>1</scene><nobndbox>0</nobndbox></object>"
        size = "<size><width>200</width><height>100</height><depth>3</depth></size>"
        xml = f"<annotation><filename>{image}</filename>{size}{things}</annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(xml)
        (root / "Sentences" / f"{name}.txt").write_text(words)
    (root / "val.txt").write_text("\n".join(name.removesuffix(".jpg") for name in NAMES))
    return root


def write_array(folder):
    path = folder / "rows.json"
    rows = [
        {"image": NAMES[image], "expression": sentence, "box": box}
        for image, all_of_it, box in REFS
        for sentence in all_of_it
    ]
    path.write_text(json.dumps(rows))
    return path


LAYOUTS: dict[str, tuple[Callable[[Path], Path], str, str | None]] = {
    "InternVL": (write_internvl, "internvl", None),
    "lmms-lab": (write_lmms, "parquet", None),
    "jxu124": (write_jxu, "parquet", None),
    "VLMEvalKit": (write_vlmevalkit, "vlmevalkit", None),
    "refer": (write_refer, "refer", None),
    "COCO": (write_coco, "coco", None),
    "MDETR": (write_mdetr, "coco", None),
    "Label Studio": (write_label_studio, "labelstudio", None),
    "Flickr30k": (write_flickr, "flickr30k", None),
    "CSV": (write_csv, "csv", None),
    "TSV": (write_columns, "csv", "xywh"),
    "JSON lines": (write_lines, "jsonl", "xywh"),
    "JSON array": (write_array, "json", "xywh"),
    "requests": (write_requests, "requests", None),
}
"""For each layout: what writes it into a folder, the format it is recognised as, and a box format to be given."""
