"""Each format in its exact layout gives the same requests; box formats are never guessed; pickles run nothing."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import orjson
import pytest
from PIL import Image

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.formats.imports.importing import ImportOptions, ImportSummary
from deeplayer_cli.formats.imports.importing import import_files as import_with
from deeplayer_cli.formats.imports.recognise import recognise
from deeplayer_cli.formats.imports.splits import EXPRESSIONS, SplitCounts, check_splits, name_dataset, name_split
from tests.formats.layouts import EXPECTED, LAYOUTS, NAMES, SIZE, jpeg, json_lines, write_array, write_internvl


def import_files(sources, output, images, box_format) -> ImportSummary:
    options = ImportOptions("auto", images, output.with_name(f"{output.name}.images"), box_format)
    return import_with(sources, output, options)


@pytest.fixture
def coco(tmp_path):
    """COCO's images where people have them."""
    folder = tmp_path / "coco" / "train2014"
    folder.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        Image.new("RGB", SIZE, (90 * number, 0, 0)).save(folder / name)
    return tmp_path / "coco"


def rows_of(path):
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_format_gives_the_same_requests(name, coco, tmp_path):
    write, form, box_format = LAYOUTS[name]
    path, output = write(tmp_path), tmp_path / "out.jsonl"
    assert recognise(path).name == form and recognise(path, form).name == form
    summary = import_files([path], output, coco, box_format)
    rows = rows_of(output)
    assert summary.n_rows == len(rows) == len(EXPECTED) and not summary.left_out
    for row, (number, expression, box) in zip(rows, EXPECTED, strict=True):
        with Image.open(row["image"]) as image:
            assert image.size == SIZE
            assert round(image.convert("RGB").getpixel((0, 0))[0] / 90) == number
        assert row["expression"] == expression and row["box"] == pytest.approx(box, abs=0.011)


STANDARD = "refcoco val has 5 expressions, and the standard split has 10,834"


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("InternVL", {"dataset": "refcoco", "split": "val", "image_id": 9}),
        ("lmms-lab", {"dataset": "refcoco", "split": "val", "image_id": 9, "question_id": "0"}),
        ("jxu124", {"dataset": "refcoco", "split": "val", "image_id": 0, "ref_id": 0, "ann_id": 0}),
        ("VLMEvalKit", {"dataset": "refcoco", "split": "val", "category": "RefCOCO val"}),
        (
            "refer",
            {"dataset": "refcoco", "split": "val", "image_id": 0, "ref_id": 0, "ann_id": 100, "partition": "unc"},
        ),
        ("MDETR", {"dataset": "refcoco", "split": "val", "image_id": 0, "ann_id": 0}),
        ("COCO", {"label": "left dog", "image_id": 0, "ann_id": 0}),
        ("Label Studio", {"label": "left dog", "task_id": 0}),
        ("Flickr30k", {"dataset": "flickr30k-entities", "split": "val", "phrase_type": "people/other"}),
        ("requests", {"id": "0-left dog"}),
    ],
)
def test_what_belongs_to_a_row_comes_along(name, fields, coco, tmp_path):
    output = tmp_path / "out.jsonl"
    summary = import_files([LAYOUTS[name][0](tmp_path)], output, coco, LAYOUTS[name][2])
    first = rows_of(output)[0]
    assert {field: first.get(field) for field in fields} == fields
    assert summary.warnings == ([STANDARD] if fields.get("dataset") == "refcoco" and "split" in fields else [])


@pytest.mark.parametrize(
    ("name", "possible"),
    [("TSV", "xywh$"), ("JSON lines", "xywh or cxcywh"), ("JSON array", "xywh or cxcywh")],
)
def test_a_box_format_is_asked_for(name, possible, tmp_path):
    path = LAYOUTS[name][0](tmp_path)
    with pytest.raises(DeeplayerError, match=f"give --box-format; by the numbers they can be .*{possible}"):
        import_files([path], tmp_path / "out.jsonl", None, None)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_given_format_must_be_the_files(tmp_path):
    path = write_array(tmp_path)
    with pytest.raises(DeeplayerError, match=r"is no COCO JSON; it looks like JSON array: give --from-format auto"):
        recognise(path, "coco")
    with pytest.raises(DeeplayerError, match=r"--from-format must be auto, flickr30k, .* or csv, not 'voc'"):
        recognise(path, "voc")


@pytest.mark.parametrize(
    ("numbers", "doubt"), [((50.0, 50.0, 20.0, 30.0), "30 can be xywh"), ((0.1, 0.1, 0.5, 0.6), "30 can be unit")]
)
def test_boxes_that_contradict_their_format_end_it(numbers, doubt, tmp_path):
    path = tmp_path / "refcoco_val.jsonl"
    path.write_bytes(json_lines([{"image": "a.jpg", "sent": "x", "bbox": numbers, "width": 200, "height": 100}] * 30))
    with pytest.raises(DeeplayerError, match=f"30 of 30 gold boxes cannot be .*{doubt}.* give --box-format"):
        import_files([path], tmp_path / "out.jsonl", None, None)
    assert not (tmp_path / "out.jsonl").exists()
    box_format = "xywh" if numbers[0] > 1 else "unit"
    assert import_files([path], tmp_path / "out.jsonl", None, box_format).n_rows == 30


def test_bad_rows_are_left_out_and_counted(tmp_path):
    path = tmp_path / "refcoco_val.jsonl"
    good = {"image": "a.jpg", "sent": "x", "bbox": [1, 2, 3, 4], "width": 9, "height": 9}
    rows = [
        good,
        good | {"bbox": [5, 5, 5, 9]},
        good | {"sent": ""},
        good | {"bbox": None},
        good | {"bbox": [9, 9, 3, 3]},
    ]
    path.write_bytes(json_lines(rows) + b"{broken\n\n[1]\n")
    summary = import_files([path], tmp_path / "out.jsonl", None, None)
    assert [row.get("box") for row in rows_of(tmp_path / "out.jsonl")] == [[1, 2, 3, 4], None]
    assert {kind: n_rows for kind, (n_rows, _) in summary.left_out.items()} == {
        "bad_box": 2,
        "bad_expression": 1,
        "bad_json": 1,
        "bad_row": 1,
    }
    assert f"{tmp_path.name}/refcoco_val.jsonl:2: box must be" in summary.left_out["bad_box"][1]
    assert "refcoco_val.jsonl:6: the row is not JSON" in summary.left_out["bad_json"][1]


def test_a_table_with_two_boxes_a_row_keeps_the_rows_whose_boxes_agree(tmp_path):
    table, output = tmp_path / "boxes.csv", tmp_path / "out.jsonl"
    table.write_text('image,expression,box,x1,y1,x2,y2\na.jpg,x,"1,2,3,4",1,2,3,4\na.jpg,y,"1,2,3,4",1,2,30,4\n')
    summary = import_files([table], output, None, "xyxy")
    assert [(row["expression"], row["box"]) for row in rows_of(output)] == [("x", [1, 2, 3, 4])]
    n_rows, first = summary.left_out["bad_box"]
    assert n_rows == 1
    assert "boxes.csv:3: box is [1.0, 2.0, 3.0, 4.0] in pixels, but x1, y1, x2, y2 are" in first


def test_rows_of_a_table_with_too_many_or_too_few_fields_are_bad_rows(tmp_path):
    table, output = tmp_path / "boxes.csv", tmp_path / "out.jsonl"
    header, good = "x1,y1,x2,y2,image,expression\n", "1,2,3,4,a.jpg,dog\n"
    table.write_text(f"{header}{good}1,2,3,4,a.jpg,the dog, on the left\n1,2,3,,a.jpg,dog\n,,,,a.jpg,cat,,\n")
    summary = import_files([table], output, None, None)
    assert [(row["expression"], row.get("box")) for row in rows_of(output)] == [("dog", [1, 2, 3, 4]), ("cat", None)]
    said = {kind: first.partition("boxes.csv:")[2] for kind, (_, first) in summary.left_out.items()}
    assert said == {
        "bad_row": "3: the row has 7 fields, and the header 6: put quotes around a field with ',' in it",
        "bad_box": "4: the row has a part of a box, and no y2: fill it in, or leave the whole box empty",
    }


def test_the_size_of_an_image_is_no_part_of_a_box_where_the_row_has_a_whole_one(tmp_path):
    table, output = tmp_path / "boxes.csv", tmp_path / "out.jsonl"
    table.write_text("image,expression,x1,y1,x2,y2,x,y,w,h\na.jpg,dog,1,2,3,4,,,640,480\n")
    assert not import_files([table], output, None, None).left_out
    assert [row["box"] for row in rows_of(output)] == [[1, 2, 3, 4]]


def test_a_table_with_a_header_only_replaces_nothing(tmp_path):
    table, output = tmp_path / "boxes.csv", tmp_path / "out.jsonl"
    table.write_text("image,expression\n")
    output.write_text("kept")
    with pytest.raises(DeeplayerError, match=r"boxes\.csv: there are no rows to import"):
        import_files([table], output, None, None)
    assert output.read_text() == "kept"


def test_box_and_bbox_of_a_row_must_agree(tmp_path):
    path, output = tmp_path / "rows.csv", tmp_path / "out.jsonl"
    path.write_text(
        "file_name,expression,box,bbox\na.jpg,dog,,1 2 3 4\na.jpg,cat,1 2 3 4,1.2 2 3 4\na.jpg,bird,1 2 3 4,1 2 2 2\n"
    )
    left_out = import_files([path], output, None, "xyxy").left_out
    assert [row["box"] for row in rows_of(output)] == [[1, 2, 3, 4], [1, 2, 3, 4]]
    assert "rows.csv:4: box is [1.0, 2.0, 3.0, 4.0], but bbox is [1.0, 2.0, 2.0, 2.0]" in left_out["bad_box"][1]


def test_a_table_with_semicolons_is_read_as_spreadsheets_write_it(tmp_path):
    table, output = tmp_path / "boxes.csv", tmp_path / "out.jsonl"
    rows = ['a.jpg;"dog; left";1,2,3,4', "a.jpg;the dog, on the right;1", "a.jpg;x;1,5;y", "a.jpg;y;1,5,2,5"]
    table.write_text("\r\n".join(["image;expression;bbox", *rows]), encoding="utf-8-sig")
    summary = import_files([table], output, None, "xyxy")
    assert [(row["expression"], row["box"]) for row in rows_of(output)] == [("dog; left", [1, 2, 3, 4])]
    assert "boxes.csv:3: " in summary.left_out["bad_box"][1]
    assert "put quotes around a field with ';' in it" in summary.left_out["bad_row"][1]


def test_images_inside_a_file_are_told_apart_by_content(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    row = {"question_id": "1", "answer": ["x"], "bbox": [1.0, 1.0, 9.0, 9.0], "file_name": "../../same.jpg"}
    rows = [row | {"image": {"bytes": jpeg(number), "path": None}} for number in (0, 1, 0)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    import_files([tmp_path / "a.parquet"], tmp_path / "out.jsonl", None, None)
    first, second, third = (row["image"] for row in rows_of(tmp_path / "out.jsonl"))
    assert first == third != second and len(list((tmp_path / "out.jsonl.images").iterdir())) == 2
    assert all(name.startswith(str(tmp_path / "out.jsonl.images" / "same-")) for name in (first, second))


def test_phrases_of_several_boxes_get_the_box_around_them(tmp_path):
    root = LAYOUTS["Flickr30k"][0](tmp_path)
    xml = root / "Annotations" / NAMES[1].replace(".jpg", ".xml")
    corners = "<xmin>101</xmin><ymin>1</ymin><xmax>151</xmax><ymax>51</ymax>"
    more = f"<object><name>101</name><bndbox>{corners}</bndbox></object>"
    xml.write_text(xml.read_text().replace("</annotation>", f"{more}</annotation>"))
    import_files([root], tmp_path / "out.jsonl", None, None)
    last = rows_of(tmp_path / "out.jsonl")[-1]
    assert last["box"] == [0, 0, 150, 99] and last["boxes"] == [[0, 0, 20.5, 99], [100, 0, 150, 50]]


def test_images_that_are_not_there_are_counted(coco, tmp_path):
    path = write_internvl(tmp_path)
    (coco / "train2014" / NAMES[1]).unlink()
    summary = import_files([path], tmp_path / "out.jsonl", coco, None)
    assert summary.warnings[-1].startswith(f"{coco}: 1 image of 2 rows not found, the first is")
    assert summary.warnings[-1].endswith(NAMES[1])


def test_a_split_that_mixes_two_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    shared = {"image": "a.jpg", "dataset": "refcoco", "split": "val"}
    rows = [shared | {"expression": f"{n} {k}", "ref_id": n} for n in range(8_811) for k in range(2)]
    path.write_bytes(json_lines(rows))
    summary = import_files([path], tmp_path / "out.jsonl", None, None)
    assert summary.n_rows == 17_622
    assert summary.warnings[0].startswith(
        "refcoco val has 8,811 objects: this file mixes the standard split with a Google"
    )


@pytest.mark.parametrize(("split", "count"), EXPRESSIONS.items())
def test_the_standard_count_of_a_split_is_right_and_one_less_is_not(split, count):
    counts = SplitCounts()
    for n in range(count - 1):
        counts.add({"dataset": split[0], "split": split[1], "ref_id": n // 3}, "a.jpg", None)
    assert counts.warnings() == [
        f"{' '.join(split)} has {count - 1:,} expressions, and the standard split has {count:,}"
    ]
    counts.add({"dataset": split[0], "split": split[1], "ref_id": count}, "a.jpg", None)
    assert counts.warnings() == []


def test_a_folder_of_images_must_be_there(tmp_path):
    with pytest.raises(DeeplayerError, match=r"nowhere is no folder of images"):
        import_files([write_internvl(tmp_path)], tmp_path / "out.jsonl", tmp_path / "nowhere", None)


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


def test_a_file_comes_once(tmp_path):
    path = write_internvl(tmp_path)
    with pytest.raises(DeeplayerError, match="is given twice: name it once"):
        import_files([path, tmp_path / "." / path.name], tmp_path / "out.jsonl", None, None)


def test_what_is_in_no_format_is_named(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"\x00\x01")
    with pytest.raises(DeeplayerError, match=r"a\.bin is in none of the formats that can be imported: Flickr30k"):
        recognise(path)
    os.mkfifo(tmp_path / "pipe")
    for once in (tmp_path / "pipe", Path("-")):
        with pytest.raises(DeeplayerError, match=r"can be read only once, .*: name a file"):
            recognise(once)
    with pytest.raises(DeeplayerError, match="cannot be read"):
        recognise(tmp_path / "gone.json")
    table = tmp_path / "a.csv"
    table.write_text("image|Expression\na.png|x\n")
    with pytest.raises(
        DeeplayerError, match=r'a\.csv has the columns \["image\|Expression"\]: a table needs one with the'
    ):
        recognise(table)
    path.write_bytes(b"")
    with pytest.raises(DeeplayerError, match=r"a\.bin is empty: there is nothing to import"):
        recognise(path)
