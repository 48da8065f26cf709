"""Each format in its exact layout gives the same requests; conventions are never guessed; pickles run nothing."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import pickle
from collections import Counter

import orjson
import pytest
from PIL import Image

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.formats.imports.example import BOX_FORMATS, to_xyxy
from deeplayer_cli.formats.imports.importing import import_files
from deeplayer_cli.formats.imports.readers import recognise
from deeplayer_cli.formats.imports.splits import EXPRESSIONS, check_splits, name_dataset, name_split

SIZE = (200, 100)
NAMES = ("COCO_train2014_000000000009.jpg", "COCO_train2014_000000000025.jpg")
# Two refs about the first image, one about the second: (image, sentences, xywh).
REFS = [(0, ("left dog", "brown dog"), (10.0, 20.0, 50.0, 40.0)), (0, ("cat",), (100.0, 5.0, 80.0, 90.0))]
REFS += [(1, ("woman in red", "lady"), (0.0, 0.0, 20.5, 99.0))]
EXPECTED = [
    (image, sentence, (x, y, x + width, y + height))
    for image, sentences, (x, y, width, height) in REFS
    for sentence in sentences
]


@pytest.fixture
def coco(tmp_path):
    """COCO's images where people have them."""
    folder = tmp_path / "coco" / "train2014"
    folder.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        Image.new("RGB", SIZE, (90 * number, 0, 0)).save(folder / name)
    return tmp_path / "coco"


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


def write_array(folder):
    path = folder / "rows.json"
    rows = [
        {"image": NAMES[image], "expression": sentence, "box": box}
        for image, all_of_it, box in REFS
        for sentence in all_of_it
    ]
    path.write_text(json.dumps(rows))
    return path


WRITERS = {
    "InternVL JSON Lines": (write_internvl, None),
    "lmms-lab and jxu124 parquet": (write_lmms, None),
    "jxu124": (write_jxu, None),
    "VLMEvalKit TSV": (write_vlmevalkit, None),
    "refer's refs(...).p": (write_refer, None),
    "COCO JSON": (write_coco, None),
    "Label Studio tasks": (write_label_studio, None),
    "CSV or TSV with named columns": (write_csv, "xyxy"),
    "JSON array": (write_array, "xywh"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_requests(name, coco, tmp_path):
    write, box_format = WRITERS[name]
    path, output = write(tmp_path), tmp_path / "requests.jsonl"
    assert recognise(path).name == name.replace("jxu124", "lmms-lab and jxu124 parquet", 1) or "parquet" in name
    summary = import_files([path], output, coco, box_format)
    rows = [orjson.loads(line) for line in output.read_bytes().splitlines()]
    assert summary.n_rows == len(rows) == len(EXPECTED)
    colours = [(90 * image, sentence, box) for image, sentence, box in EXPECTED]
    found = []
    for row in rows:
        with Image.open(row["image"]) as image:
            assert image.size == SIZE
            found.append(
                (90 * round(image.convert("RGB").getpixel((0, 0))[0] / 90), row["expression"], tuple(row["box"]))
            )
    for (colour, sentence, box), (wanted_colour, wanted, wanted_box) in zip(found, colours, strict=True):
        assert (colour, sentence) == (wanted_colour, wanted) and box == pytest.approx(wanted_box, abs=0.011)
    if name in ("InternVL JSON Lines", "jxu124", "VLMEvalKit TSV", "refer's refs(...).p"):
        assert {(row["dataset"], row["split"]) for row in rows} == {("refcoco", "val")}
        assert summary.warnings == ["refcoco val has 5 expressions, and the standard split has 10,834"]


@pytest.mark.parametrize("name", ["CSV or TSV with named columns", "JSON array"])
def test_a_convention_is_asked_for(name, tmp_path):
    path = WRITERS[name][0](tmp_path)
    with pytest.raises(DeeplayerError, match=r"does not say how its boxes are written: give --box-format xyxy, xywh"):
        import_files([path], tmp_path / "out.jsonl", None, None)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("numbers", "doubt"),
    [((50.0, 50.0, 20.0, 30.0), "have x2 <= x1 or y2 <= y1, as xywh would"), ((0.1, 0.1, 0.5, 0.6), "lie in 0..1")],
)
def test_boxes_that_contradict_their_format_end_it(numbers, doubt, tmp_path):
    path = tmp_path / "refcoco_val.jsonl"
    path.write_bytes(json_lines([{"image": "a.jpg", "sent": "x", "bbox": numbers, "width": 200, "height": 100}] * 30))
    with pytest.raises(DeeplayerError, match=f"{doubt}.* give --box-format"):
        import_files([path], tmp_path / "out.jsonl", None, None)
    assert not (tmp_path / "out.jsonl").exists()
    box_format = "xywh" if numbers[0] > 1 else "unit"
    assert import_files([path], tmp_path / "out.jsonl", None, box_format).n_rows == 30


def test_conventions():
    box = (20.0, 10.0, 60.0, 50.0)
    written = {
        "xyxy": box,
        "xywh": (20, 10, 40, 40),
        "cxcywh": (40, 30, 40, 40),
        "per-mille": (100, 100, 300, 500),
        "unit": (0.1, 0.1, 0.3, 0.5),
    }
    assert set(written) == set(BOX_FORMATS)
    for box_format, numbers in written.items():
        assert to_xyxy(numbers, box_format, SIZE) == pytest.approx(box)
    with pytest.raises(DeeplayerError, match="need the image's width and height"):
        to_xyxy((0.1, 0.1, 0.3, 0.5), "unit", None)
    with pytest.raises(DeeplayerError, match="four numbers, not"):
        to_xyxy((1, 2, 3), "xyxy", None)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize("content", [[Hostile()], {"refs": 1}, [1], b"not a pickle", [print]])
def test_pickles_run_nothing(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_refer(tmp_path)
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
    with pytest.raises(DeeplayerError, match=r"refs\(unc\)\.p is not a file of refs"):
        import_files([path], tmp_path / "out.jsonl", None, None)
    assert not (tmp_path / "pwned").exists()


def test_images_that_are_not_there_are_counted(coco, tmp_path):
    path = write_internvl(tmp_path)
    (coco / "train2014" / NAMES[1]).unlink()
    summary = import_files([path], tmp_path / "out.jsonl", coco, None)
    assert summary.warnings[-1].startswith("1 images of 2 rows were not found in")
    assert summary.warnings[-1].endswith(NAMES[1])


def test_counts_of_the_standard_splits():
    right = Counter(dict(EXPRESSIONS))
    assert check_splits(right, Counter()) == []
    val, umd = ("refcoco", "val"), ("refcocog", "val")
    (mixed,) = check_splits(Counter({val: 23_962}), Counter({val: 8_811}))
    assert "8,811 objects: this file mixes the standard split with a Google split" in mixed
    (mixed,) = check_splits(Counter({umd: 14_000}), Counter({umd: 7_573}))
    assert "mixes" in mixed
    (short,) = check_splits(Counter({val: 10_833}), Counter({val: 3_811}))
    assert short == "refcoco val has 10,833 expressions, and the standard split has 10,834"


@pytest.mark.parametrize(
    ("text", "dataset", "split"),
    [
        ("refcoco_val", "refcoco", "val"),
        ("refcoco+_testA", "refcoco+", "testA"),
        ("RefCOCOplus/testB-00000", "refcoco+", "testB"),
        ("RefCOCO+ test-A", "refcoco+", "testA"),
        ("refcocog_test", "refcocog", "test"),
        ("photos", None, None),
    ],
)
def test_names_of_splits(text, dataset, split):
    assert (name_dataset(text), name_split(text)) == (dataset, split)


def test_what_is_in_no_format_is_named(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"\x00\x01")
    with pytest.raises(DeeplayerError, match=r"a\.bin is in none of the formats that can be imported: lmms-lab"):
        recognise(path)
    with pytest.raises(DeeplayerError, match="cannot be read"):
        recognise(tmp_path / "gone.json")
