"""Predictions in the formats of other tools: read back by those tools' own readers, or by their documented layout."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image, ImageOps

from deeplayer_cli.boxes import inverse_orientation, turn_box
from deeplayer_cli.errors import DeeplayerError, RowError
from deeplayer_cli.formats.exports import exports
from deeplayer_cli.formats.frames import BoxFrames
from deeplayer_cli.formats.labelled import Labelling, in_xml, label_images
from deeplayer_cli.formats.yolo import image_place
from deeplayer_cli.schema import Prediction

SIZES = {"images/a.jpg": (640, 480), "b.png": (33, 77), "deep/er/c.webp": (1000, 10)}
LABELS = ("cat", 'a "quoted", <odd> & long label', "ümlaut")


def row(number, image, box, **changes):
    width, height = SIZES[image]
    values = {
        "status": "ok",
        "box": box,
        "boxes": (box,),
        "score": number / 10,
        "width": width,
        "height": height,
        "meta": {"label": LABELS[number % 3]},
    }
    return Prediction(number, image, f"thing {number}", **(values | changes))


@pytest.fixture
def predictions():
    rng = random.Random(0)
    rows = []
    for number, image in enumerate(list(SIZES) * 3):
        width, height = SIZES[image]
        x1, y1 = rng.uniform(0, width / 2), rng.uniform(0, height / 2)
        rows.append(row(number, image, (x1, y1, x1 + width / 3, y1 + height / 3)))
    return rows


@pytest.fixture
def labelled(predictions):
    return label_images(predictions, Labelling())


def written(labelled, name, tmp_path, **options):
    target = exports(**options)[name]
    path = tmp_path / name
    if target.is_folder:
        path.mkdir()
    target.write(labelled, path)
    return path


def boxes_of(labelled):
    """(image, label, xyxy) of every box."""
    return [(image.image, box.label, box.xyxy) for image in labelled.images for box in image.boxes]


def same_boxes(found, labelled, within):
    expected = sorted(boxes_of(labelled))
    assert len(found) == len(expected) == 9
    for (image, label, box), (wanted_image, wanted_label, wanted) in zip(sorted(found), expected, strict=True):
        assert (image, label) == (wanted_image, wanted_label)
        assert box == pytest.approx(wanted, abs=within)


def test_coco_opens_in_pycocotools(labelled, predictions, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    dataset = coco.COCO(str(written(labelled, "coco", tmp_path)))
    files = {image["id"]: image["file_name"] for image in dataset.loadImgs(dataset.getImgIds())}
    names = {one["id"]: one["name"] for one in dataset.loadCats(dataset.getCatIds())}
    found = [
        (files[one["image_id"]], names[one["category_id"]], xyxy(one["bbox"]))
        for one in dataset.loadAnns(dataset.getAnnIds())
    ]
    same_boxes(found, labelled, within=0.011)
    results = dataset.loadRes(str(written(labelled, "coco-results", tmp_path)))
    assert sorted(one["score"] for one in results.loadAnns(results.getAnnIds())) == sorted(r.score for r in predictions)


def xyxy(xywh):
    x, y, width, height = xywh
    return x, y, x + width, y + height


def test_coco_is_what_its_page_says(labelled, tmp_path):
    dataset = json.loads(written(labelled, "coco", tmp_path).read_text())
    assert [image["id"] for image in dataset["images"]] == [1, 2, 3]
    assert [(one["id"], one["name"]) for one in dataset["categories"]] == list(enumerate(sorted(LABELS), start=1))
    ids = [one["id"] for one in dataset["annotations"]]
    assert ids == list(range(1, 10)) and all(one["iscrowd"] == 0 < one["area"] for one in dataset["annotations"])


def test_cocos_own_image_ids_stay(predictions, tmp_path):
    known = {name: number for number, name in enumerate(SIZES, start=500)}
    for one in predictions:
        one.meta["image_id"] = known[one.image]
    dataset = json.loads(written(label_images(predictions, Labelling()), "coco", tmp_path).read_text())
    assert {image["file_name"]: image["id"] for image in dataset["images"]} == known


def test_yolo_has_a_line_a_box(labelled, tmp_path):
    folder = written(labelled, "yolo", tmp_path)
    names = [json.loads(line.split(": ", 1)[1]) for line in (folder / "data.yaml").read_text().splitlines()[3:]]
    assert names == sorted(LABELS)
    found = []
    for image, (width, height) in SIZES.items():
        path = folder / "labels" / image.removeprefix("images/").rsplit(".", 1)[0]
        for line in path.with_suffix(".txt").read_text().splitlines():
            number, *values = line.split()
            cx, cy, w, h = map(float, values)
            assert all(0 <= value <= 1 for value in (cx, cy, w, h))
            box = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
            found.append((image, names[int(number)], box))
    same_boxes(found, labelled, within=0.002)


@pytest.mark.parametrize(("name", "folder"), [("yolo", "labels"), ("voc", "Annotations")])
def test_without_boxes_the_folder_is_empty(name, folder, tmp_path):
    """So that an export that replaces an earlier one leaves no old labels."""
    assert list((written(label_images([], Labelling()), name, tmp_path) / folder).iterdir()) == []


def test_yolo_label_files_are_not_shared(tmp_path):
    SIZES["b.jpg"] = (10, 10)
    try:
        both = label_images([row(1, "b.png", (0, 0, 5, 5)), row(2, "b.jpg", (0, 0, 5, 5))], Labelling())
    finally:
        del SIZES["b.jpg"]
    with pytest.raises(DeeplayerError, match=r"b\.png and b\.jpg would share b\.txt"):
        written(both, "yolo", tmp_path)


def test_yolo_labels_lie_where_trainers_look_for_them(tmp_path):
    """ultralytics puts ``labels`` in the place of the last ``images`` in the path of an image."""
    paths = ["train/images/1.jpg", "images/a/images/images", "images/images.jpg"]
    found = label_images([row(0, "b.png", (1.0, 1.0, 9.0, 9.0))], Labelling())
    found.images[:] = [replace(found.images[0], image=path) for path in paths]
    folder = written(found, "yolo", tmp_path)
    for path, place in zip(paths, ["images/train/1.jpg", "images/a/images", "images/images.jpg"], strict=True):
        found.images[:] = [replace(found.images[0], image=path)]
        assert image_place(found, folder).startswith(f"{folder / place} is where")
        labels = "/labels/".join(str(folder / place).rsplit("/images/", 1))
        assert Path(labels).with_suffix(".txt").is_file()


def test_label_studio_is_in_percent(labelled, tmp_path):
    tasks = json.loads(written(labelled, "labelstudio", tmp_path, url_prefix="/data/?d=").read_text())
    assert [task["data"]["image"] for task in tasks] == [f"/data/?d={image}" for image in SIZES]
    found = []
    for task, image in zip(tasks, SIZES, strict=True):
        (prediction,) = task["predictions"]
        assert 0 <= prediction["score"] <= 1
        for result in prediction["result"]:
            value, width, height = result["value"], result["original_width"], result["original_height"]
            assert (width, height) == SIZES[image] and result["type"] == "rectanglelabels"
            x, y = value["x"] / 100 * width, value["y"] / 100 * height
            box = (x, y, x + value["width"] / 100 * width, y + value["height"] / 100 * height)
            found.append((image, *value["rectanglelabels"], box))
    same_boxes(found, labelled, within=0.002)


def test_voc_counts_pixels_from_one(labelled, tmp_path):
    folder, found = written(labelled, "voc", tmp_path), []
    for path in (folder / "Annotations").rglob("*.xml"):
        root = ElementTree.parse(path).getroot()
        image = "/".join(part for part in (root.findtext("folder"), root.findtext("filename")) if part != ".")
        assert (int(root.findtext("size/width")), int(root.findtext("size/height"))) == SIZES[image]
        for thing in root.iter("object"):
            x1, y1, x2, y2 = (int(thing.findtext(f"bndbox/{tag}")) for tag in ("xmin", "ymin", "xmax", "ymax"))
            assert x1 >= 1 and y1 >= 1
            found.append((image, thing.findtext("name"), (x1 - 1, y1 - 1, x2, y2)))
    same_boxes(found, labelled, within=0.51)


def test_xml_keeps_what_it_may_hold():
    kept = "caf\u00e9\u00a0noir \u200b\u3000\U0001f408\t\n\ue000"
    assert in_xml(f"{kept}\0\x1b\x0b\ufffe\ud800") == f"{kept}     "
    assert ElementTree.fromstring(f"<a>{kept}</a>").text == kept


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_tables_are_flat(labelled, tmp_path, suffix):
    path = tmp_path / f"boxes.{suffix}"
    exports()["csv"].write(labelled, path)
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t" if suffix == "tsv" else ","))
    found = [(one["image"], one["label"], tuple(float(one[c]) for c in ("x1", "y1", "x2", "y2"))) for one in rows]
    same_boxes(found, labelled, within=0.0051)
    assert {one["expression"] for one in rows} == {f"thing {number}" for number in range(9)}


def test_fiftyone_is_in_fractions(labelled, tmp_path):
    content = json.loads(written(labelled, "fiftyone", tmp_path).read_text())
    stems = {image.rsplit(".", 1)[0]: image for image in SIZES}
    found = []
    for stem, detections in content["labels"].items():
        width, height = SIZES[stems[stem]]
        for one in detections:
            x, y, w, h = one["bounding_box"]
            found.append((stems[stem], one["label"], (x * width, y * height, (x + w) * width, (y + h) * height)))
    same_boxes(found, labelled, within=0.002)
    assert content["classes"] == sorted(LABELS)


def test_boxes_are_clipped_and_ordered_and_the_rest_is_counted():
    rows = [
        row(0, "b.png", (30.0, 70.0, -5.0, 200.0)),
        row(1, "b.png", (40.0, 1.0, 50.0, 9.0)),  # wholly outside: the image is 33 wide
        row(2, "b.png", (1.0, 1.0, 9.0, 9.0), score=0.05),
        row(3, "b.png", None, status="no_box", boxes=()),
        Prediction(4, "gone.png", "x", "error"),
        row(5, "b.png", (1.0, 1.0, 9.0, 9.0), boxes=((1.0, 1.0, 9.0, 9.0), (2.0, 2.0, 8.0, 8.0))),
    ]
    found = label_images(rows, Labelling(min_score=0.0))
    assert found.images[0].boxes[0].xyxy == (0.0, 70.0, 30.0, 77.0)
    found = label_images(rows[1:], Labelling(min_score=0.06))
    assert found.left_out == Counter(
        {"whose box lies outside of the image": 1, "with a score below 0.06": 1, "without a box": 1, "in error": 1}
    )
    assert len(boxes_of(found)) == 1 and len(boxes_of(label_images(rows[5:], Labelling(all_boxes=True)))) == 2
    assert found.summary().startswith("1 box with 1 label on 1 image; left out: 1 row whose box lies outside")


@pytest.mark.parametrize(("field", "label"), [(None, "cat"), ("expression", "thing 0"), ("kind", "place")])
def test_the_label_is_a_field(field, label):
    one = row(0, "b.png", (1.0, 1.0, 9.0, 9.0))
    one.meta["kind"] = "place"
    assert label_images([one], Labelling(label_field=field)).labels == [label]


def test_an_id_that_comes_twice_is_refused():
    rows = [row(number, "b.png", (1.0, 1.0, 9.0, 9.0)) for number in (1, 2, 1)]
    with pytest.raises(DeeplayerError, match="id 1 comes twice, again in row 3: remove one of the two rows"):
        label_images(rows, Labelling())


def test_rows_without_the_field_of_the_label_are_left_out():
    rows = [row(0, "b.png", (1.0, 1.0, 9.0, 9.0)), row(1, "b.png", (1.0, 1.0, 9.0, 9.0), meta={"kind": None})]
    rows[0].meta["kind"] = "place"
    found = label_images(rows, Labelling("kind"))
    assert found.labels == ["place"] and found.left_out == {"without a value for 'kind'": 1}
    with pytest.raises(DeeplayerError, match="no row with a box has a value for 'nosuch'"):
        label_images(rows, Labelling("nosuch"))
    with pytest.raises(DeeplayerError, match=r"'meta\.kind'.*; give --label-field kind$"):
        label_images(rows, Labelling("meta.kind"))
    assert label_images([row(1, "b.png", (1.0, 1.0, 9.0, 9.0), meta={"label": None})], Labelling()).labels == [
        "thing 1"
    ]


def test_a_row_without_the_size_of_its_image_is_counted_as_such():
    found = label_images([row(0, "b.png", (1.0, 1.0, 9.0, 9.0), width=0)], Labelling())
    assert found.left_out == {"without the size of their image": 1} and not found.images


@pytest.mark.parametrize("image", [".", "..", "/", "a\0.png"])
@pytest.mark.parametrize("name", ["yolo", "voc"])
def test_images_that_name_no_file_have_no_labels(image, name, tmp_path):
    found = label_images([replace(row(0, "b.png", (1.0, 1.0, 9.0, 9.0)), image=image)], Labelling())
    found.images[0].image = image
    with pytest.raises(DeeplayerError, match="names no file"):
        written(found, name, tmp_path)


def test_rows_that_disagree_about_the_size_of_their_image_are_left_out():
    rows = [row(0, "b.png", (1.0, 1.0, 9.0, 9.0)), row(1, "b.png", (1.0, 1.0, 9.0, 9.0), width=999)]
    found = label_images(rows, Labelling())
    assert len(boxes_of(found)) == 1
    assert found.left_out == {"with another size of their image than an earlier row": 1}


def test_two_images_of_one_name_are_not_one():
    """Paths start from the folder of each source, so that two sources can call two images by one name."""
    box = (1.0, 1.0, 9.0, 9.0)
    rows = [row(n, "b.png", box, image_id=content) for n, content in enumerate(["0a", "0b", "0a", None])]
    found = label_images(rows, Labelling())
    assert len(found.images) == 1 and len(boxes_of(found)) == 3
    assert found.left_out == {"about another image with the name of an earlier one": 1}


def test_odd_labels_are_read_back(tmp_path):
    yaml = pytest.importorskip("yaml")
    label = "\x1b]0;a\nb\u2028\U0001f600"
    found = label_images([row(0, "b.png", (1.0, 1.0, 9.0, 9.0), meta={"label": label})], Labelling())
    folder = written(found, "yolo", tmp_path)
    assert yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))["names"] == {0: label}
    _, (config, write) = exports()["labelstudio"].outputs(tmp_path / "tasks.json")
    write(found, config)
    tasks = json.loads(written(found, "labelstudio", tmp_path).read_text())
    shown = [one.get("value") for one in ElementTree.parse(config).getroot().iter("Label")]
    assert tasks[0]["predictions"][0]["result"][0]["value"]["rectanglelabels"] == shown == [label.replace("\x1b", " ")]


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/null"])
def test_nothing_lies_beside_a_stream(name):
    assert [str(path) for path, _ in exports()["labelstudio"].outputs(Path(name))] == [name]


def test_images_without_a_box_are_tasks_and_images_all_the_same(tmp_path):
    rows = [row(0, "b.png", (1.0, 1.0, 9.0, 9.0)), row(1, "images/a.jpg", None, status="no_box", boxes=())]
    found = label_images([*rows, Prediction(2, "gone.png", "x", "error")], Labelling())
    assert [image.image for image in found.images] == ["b.png", "images/a.jpg"]
    tasks = json.loads(written(found, "labelstudio", tmp_path).read_text())
    assert [len(task["predictions"]) for task in tasks] == [1, 0]
    assert len(json.loads(written(found, "coco", tmp_path).read_text())["images"]) == 2
    assert [path.name for path in written(found, "yolo", tmp_path).rglob("*.txt")] == ["b.txt"]


def test_the_labelling_configuration_names_every_label(labelled, tmp_path):
    ((_, _), (path, write)) = exports()["labelstudio"].outputs(tmp_path / "tasks.json")
    write(labelled, path)
    assert path == tmp_path / "tasks.config.xml"
    view = ElementTree.parse(path).getroot()
    assert [label.get("value") for label in view.iter("Label")] == sorted(LABELS)
    assert view.find("Image").get("value") == "$image" and view.find("RectangleLabels").get("toName") == "image"


def test_addresses_are_written_as_in_a_url(tmp_path):
    SIZES["a b#1+é.png"] = (10, 10)
    try:
        found = label_images([row(1, "a b#1+é.png", (0, 0, 5, 5))], Labelling())
    finally:
        del SIZES["a b#1+é.png"]
    (task,) = json.loads(written(found, "labelstudio", tmp_path, url_prefix="/data/local-files/?d=").read_text())
    assert task["data"]["image"] == "/data/local-files/?d=a%20b%231%2B%C3%A9.png"


def test_absolute_paths_are_written_from_their_common_folder_on():
    rows = [Prediction(n, path, "x", "ok", (0, 0, 5, 5), ((0, 0, 5, 5),), width=9, height=9)
            for n, path in enumerate(["/data/photos/a.png", "/data/photos/more/b.png"])]  # fmt: skip
    found = label_images(rows, Labelling())
    assert [image.image for image in found.images] == ["a.png", "more/b.png"]
    assert found.summary().endswith("; image paths start from /data/photos")
    found = label_images(rows, Labelling(), image_root="/data")
    assert [image.image for image in found.images] == ["photos/a.png", "photos/more/b.png"]
    with pytest.raises(DeeplayerError, match=r"/data/photos/a\.png does not lie in /data/photos/more: .*--image-root"):
        label_images(rows, Labelling(), image_root="/data/photos/more")
    relative = replace(rows[0], image="photos/a.png")
    assert label_images([relative, rows[1]], Labelling()).images[0].image == "photos/a.png"
    alone = label_images([relative], Labelling(), image_root="/data")
    assert alone.images[0].image == "photos/a.png" and "start from" not in alone.summary()


def test_narrow_boxes_keep_a_pixel_in_voc(tmp_path):
    found = label_images([row(0, "b.png", (10.6, 10.6, 10.9, 10.9))], Labelling())
    (path,) = (written(found, "voc", tmp_path) / "Annotations").rglob("*.xml")
    corners = [int(one.text) for one in ElementTree.parse(path).getroot().find("object/bndbox")]
    assert corners == [12, 12, 12, 12]


def test_thin_boxes_at_the_edge_stay_in_the_image_in_voc(tmp_path):
    found = label_images([row(0, "b.png", (32.8, 76.6, 33.0, 77.0))], Labelling())
    (path,) = (written(found, "voc", tmp_path) / "Annotations").rglob("*.xml")
    corners = [int(one.text) for one in ElementTree.parse(path).getroot().find("object/bndbox")]
    assert corners == [33, 77, 33, 77] == [*SIZES["b.png"]] * 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_as_pillow_turns_images(orientation, tmp_path):
    stored = Image.new("L", (40, 30))
    stored.paste(255, (5, 3, 17, 9))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        turned = ImageOps.exif_transpose(image)
    box, size = turn_box((5, 3, 17, 9), orientation, (40, 30))
    assert (box, size) == (turned.getbbox(), turned.size)
    assert turn_box(box, inverse_orientation(orientation), size) == ((5, 3, 17, 9), (40, 30))

    one = Prediction(1, "a.png", "x", "ok", (5, 3, 17, 9), ((5, 3, 17, 9),), width=40, height=30)
    frames = BoxFrames("turned", lambda row: tmp_path / "a.png", is_turned=False)
    (found,) = label_images([one], Labelling(), turn=frames.turn).images
    assert (found.boxes[0].xyxy, found.resolution_wh) == (box, size)
    assert (frames.summary() is None) == (orientation == 1)
    back = Prediction(1, "a.png", "x", "ok", box, (box,), width=size[0], height=size[1])
    frames = BoxFrames("stored", lambda row: tmp_path / "a.png", is_turned=True)
    (found,) = label_images([back], Labelling(), turn=frames.turn).images
    assert (found.boxes[0].xyxy, found.resolution_wh) == ((5, 3, 17, 9), (40, 30))


def test_frames_are_said(tmp_path):
    def gone(row):
        raise RowError("image_missing", "a.png does not exist")

    box = (5, 3, 17, 9)
    one = Prediction(1, "a.png", "x", "ok", box, (box,), width=40, height=30, image_id="content")
    frames = BoxFrames("run", gone, is_turned=False)
    assert frames.turn(one) == 1
    said = "1 image not found, or changed since the run, so it is not known whether EXIF turns them"
    assert frames.summary().startswith(said)
    with pytest.raises(DeeplayerError, match=r"--exif turned needs the images: a\.png does not exist"):
        BoxFrames("turned", gone, is_turned=False).turn(one)
    assert BoxFrames("turned", gone, is_turned=True).turn(one) == 1, "they are in that frame already"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    frames = BoxFrames("run", lambda row: tmp_path / "a.jpg", is_turned=False)
    for row in (one, replace(one, id=2), replace(one, id=3, image="copy.jpg")):
        frames.turn(row)
    assert frames.summary() == (
        "EXIF turns 2 of the images: their boxes are in pixels of the stored images; for Label Studio, browsers, "
        "OpenCV and ultralytics, give --exif turned"
    )
