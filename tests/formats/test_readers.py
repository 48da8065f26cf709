"""Exports in the targets' own libraries, where they are installed: the boxes are the same within rounding."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from deeplayer_cli.formats.labelled import Labelling, label_images
from tests.formats.test_exports import LABELS, SIZES, boxes_of, row, same_boxes, written

PLAIN = ("cat", "the dog", "ümlaut")


@pytest.fixture
def images(tmp_path):
    """A folder of images, as labelling tools have them."""
    for name, size in SIZES.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(path)
    return tmp_path / "photos"


@pytest.fixture
def labelled():
    rng = np.random.default_rng(1)
    rows = []
    for number, image in enumerate(list(SIZES) * 3):
        width, height = SIZES[image]
        x1, y1 = rng.uniform(0, width / 2), rng.uniform(0, height / 2)
        box = (x1, y1, x1 + width / 3, y1 + height / 3)
        rows.append(row(number, image, box, meta={"label": PLAIN[number % 3]}))
    return label_images(rows, Labelling())


def detections(dataset, folder):
    """(image, label, xyxy) of every box of a dataset of supervision."""
    return [
        (str(path).removeprefix(f"{folder}/"), dataset.classes[class_id], tuple(map(float, xyxy)))
        for path, _, found in dataset
        for xyxy, class_id in zip(found.xyxy, found.class_id, strict=True)
    ]


def test_supervision_reads_coco(labelled, images, tmp_path):
    sv = pytest.importorskip("supervision")
    path = written(labelled, "coco", tmp_path)
    dataset = sv.DetectionDataset.from_coco(str(images), str(path))
    same_boxes(detections(dataset, images), labelled, within=0.011)


def test_supervision_reads_yolo(labelled, images, tmp_path):
    sv = pytest.importorskip("supervision")
    folder = written(labelled, "yolo", tmp_path)
    flat, names = tmp_path / "flat", {}  # supervision wants all images, and all labels, in one folder each
    flat.mkdir()
    for image in labelled.images:
        names[image.image.rsplit("/", 1)[-1]] = image.image
        shutil.copy(images / image.image, flat)
    for path in list((folder / "labels").rglob("*.txt")):
        path.rename(folder / path.name)
    dataset = sv.DetectionDataset.from_yolo(str(flat), str(folder), str(folder / "data.yaml"))
    found = [(names[image], label, box) for image, label, box in detections(dataset, flat)]
    same_boxes(found, labelled, within=0.01)


def test_supervision_reads_voc(labelled, images, tmp_path):
    sv = pytest.importorskip("supervision")
    folder = written(labelled, "voc", tmp_path) / "Annotations"
    flat, names = tmp_path / "flat", {}
    flat.mkdir()
    for image in labelled.images:
        names[image.image.rsplit("/", 1)[-1]] = image.image
        shutil.copy(images / image.image, flat)
    for path in list(folder.rglob("*.xml")):
        path.rename(folder / path.name)
    dataset = sv.DetectionDataset.from_pascal_voc(str(flat), str(folder))
    found = [(names[image], label, box) for image, label, box in detections(dataset, flat)]
    same_boxes(found, labelled, within=0.51)


def test_ultralytics_reads_yolo(labelled, images, tmp_path):
    pytest.importorskip("ultralytics")
    data = pytest.importorskip("ultralytics.data.utils", exc_type=ImportError)
    folder = written(labelled, "yolo", tmp_path)
    for image in labelled.images:
        target = folder / "images" / image.image.removeprefix("images/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(images / image.image, target)
    described = data.check_det_dataset(str(folder / "data.yaml"), autodownload=False)
    assert list(described["names"].values()) == sorted(PLAIN) and described["nc"] == 3
    paths = {image.image: str(folder / "images" / image.image.removeprefix("images/")) for image in labelled.images}
    found = []
    for image, label_path in zip(paths, data.img2label_paths(list(paths.values())), strict=True):
        if min(SIZES[image]) < 10:
            continue  # ultralytics refuses small images
        _, labels, (height, width), *_, message = data.verify_image_label(
            (paths[image], label_path, "", False, 3, 0, 0, False)
        )
        assert message == ""
        for number, cx, cy, w, h in np.asarray(labels, dtype=float):
            box = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
            found.append((image, described["names"][int(number)], box))
    same_boxes(found, labelled, within=0.01)


def test_label_studio_takes_the_tasks_and_exports_the_same_boxes(labelled, tmp_path):
    interface = pytest.importorskip("label_studio_sdk.label_interface", exc_type=ImportError)
    from label_studio_sdk.converter.converter import Converter, Format

    from deeplayer_cli.formats.exports import exports

    for path, write in exports()["labelstudio"].outputs(tmp_path / "tasks.json"):
        write(labelled, path)
    config = (tmp_path / "tasks.config.xml").read_text()
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    checked = interface.LabelInterface(config)
    checked.validate()
    for task in tasks:
        assert checked.validate_task({"data": task["data"]})
        for prediction in task["predictions"]:
            assert checked.validate_prediction(prediction, return_errors=True) == []
    # A labeller who accepts every prediction, and exports as COCO.
    done = [
        {"id": number, "data": task["data"]}
        | {"annotations": [{"id": number, "completed_by": {"id": 1}, "result": task["predictions"][0]["result"]}]}
        for number, task in enumerate(tasks)
    ]
    (tmp_path / "done.json").write_text(json.dumps(done))
    converter = Converter(config=config, project_dir=str(tmp_path), download_resources=False)
    converter.convert(str(tmp_path / "done.json"), str(tmp_path / "coco"), Format.COCO, is_dir=False)
    result = json.loads((tmp_path / "coco" / "result.json").read_text())
    names = {one["id"]: one["name"] for one in result["categories"]}
    of_size = {size: name for name, size in SIZES.items()}  # the converter gives images other names
    images = {image["id"]: of_size[image["width"], image["height"]] for image in result["images"]}
    found = []
    for one in result["annotations"]:
        x, y, w, h = one["bbox"]
        found.append((images[one["image_id"]], names[one["category_id"]], (x, y, x + w, y + h)))
    same_boxes(found, labelled, within=0.01)


def test_our_own_import_reads_our_own_exports(tmp_path):
    """COCO, Label Studio and CSV come back as requests with the same boxes."""
    from deeplayer_cli.formats.imports.importing import ImportOptions, import_files

    rows = [row(n, image, (2.0, 1.5, 20.25, 8.0), meta={"label": LABELS[n]}) for n, image in enumerate(SIZES)]
    labelled = label_images(rows, Labelling())
    for name in ("coco", "labelstudio", "csv"):
        output = tmp_path / f"{name}.jsonl"
        summary = import_files([written(labelled, name, tmp_path)], output, ImportOptions())
        assert summary.n_rows == 3 and not summary.left_out, name
        found = [json.loads(line) for line in output.read_text().splitlines()]
        assert [(one["image"], one["label"]) for one in found] == [(i, label) for i, label, _ in boxes_of(labelled)]
        assert all(one["box"] == pytest.approx([2.0, 1.5, 20.25, 8.0], abs=0.02) for one in found)
