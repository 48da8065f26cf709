"""Files that want to run code, use up memory, or lead out of their folder; and files that are merely broken."""

from __future__ import annotations

import json
import math
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
from datetime import date

import numpy as np
import pytest

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.formats.imports.coco import read_coco
from deeplayer_cli.formats.imports.images import ImageFinder, write_image
from deeplayer_cli.formats.imports.json_stream import array_items, object_members
from deeplayer_cli.formats.imports.label_studio import read_label_studio
from deeplayer_cli.formats.imports.named import read_table, table_rows
from deeplayer_cli.formats.imports.recognise import FORMATS, recognise
from tests.formats.layouts import jpeg, write_refer
from tests.formats.test_imports import import_files, rows_of


class Calls:
    """Makes a file when it is unpickled."""

    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


class State:
    def __reduce__(self):
        return list, (), {"x": Calls(os.mkdir, "pwned")}


REF = {"ref_id": 1, "ann_id": 100, "image_id": 0, "split": "val", "sentences": [{"sent": "x", "sent_id": 1}]}
HOSTILE = {
    "os.system": [Calls(os.system, "mkdir pwned")],
    "eval": [Calls(eval, "__import__('os').mkdir('pwned')")],
    "exec": Calls(exec, "import os; os.mkdir('pwned')"),
    "getattr": [Calls(getattr, "x", "upper")],
    "subprocess": [Calls(subprocess.check_call, ["mkdir", "pwned"])],
    "nested": [REF | {"sentences": [{"sent": Calls(os.mkdir, "pwned"), "sent_id": 1}]}],
    "as a key": [{Calls(os.mkdir, "pwned"): 1, "sentences": []}],
    "state": [State()],
    "numpy": [REF | {"ann_id": np.int64(3)}],
    "numpy array": np.zeros(3),
    "a class": [date(2020, 1, 1)],
    "a function": [print],
    "a set": [{1, 2}],
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", HOSTILE)
def test_pickles_run_nothing(name, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_refer(tmp_path)
    path.write_bytes(pickle.dumps(HOSTILE[name], protocol))
    with pytest.raises(DeeplayerError, match=r"refs\(unc\)\.p is refused: .*reading it could run code"):
        import_files([path], tmp_path / "out.jsonl", None, None)
    assert not (tmp_path / "pwned").exists() and not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'mkdir pwned'\ntR.",  # GLOBAL and REDUCE by hand
        b"(S'mkdir pwned'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'mkdir pwned'\no.",  # OBJ
        b"\x80\x02cos\nsystem\nU\x0bmkdir pwned\x85\x81.",  # NEWOBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0bmkdir pwned\x85R.",  # STACK_GLOBAL
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02Pabc\n.",  # PERSID
        b"\x80\x02]}b.",  # BUILD
    ],
)
def test_no_instruction_but_plain_ones(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_refer(tmp_path)
    path.write_bytes(content)
    with pytest.raises(DeeplayerError, match="is refused"):
        import_files([path], tmp_path / "out.jsonl", None, None)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02]r\xff\xff\xff\x7f.",  # a memo of two thousand million places
        b"\x80\x02]p2147483647\n.",
        b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",  # a string of 2**62 bytes
        b"\x80\x02\x8b\xff\xff\xff\x7f.",  # an integer of two thousand million bytes
        b"\x80\x02",
        b"\x80\x02].",
        b"(lp0\n.",
        b"\x80\x02}.",
        b"not a pickle",
        b"",
        b"." * 100,
        b"I" + b"9" * 5000 + b"\n.",
    ],
    ids=lambda content: repr(content[:12]),
)
def test_broken_pickles_take_no_memory(content, tmp_path):
    path = write_refer(tmp_path)
    path.write_bytes(content)
    tracemalloc.start()
    try:
        import_files([path], tmp_path / "out.jsonl", None, None)
    except DeeplayerError:
        pass
    else:
        assert rows_of(tmp_path / "out.jsonl") == [], "an empty list of refs"
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 100 * 2**20


def test_lists_that_are_endless_when_written_stay_out(tmp_path):
    bomb = []
    for _ in range(60):
        bomb = [bomb, bomb]
    path = write_refer(tmp_path)
    sentences = [{"sent": bomb, "sent_id": 1}, {"sent": "a dog", "sent_id": bomb}]
    path.write_bytes(pickle.dumps([REF | {"split": bomb, "sentences": sentences}]))
    summary = import_files([path], tmp_path / "out.jsonl", None, None)
    (row,) = rows_of(tmp_path / "out.jsonl")
    assert row["expression"] == "a dog" and row["split"] is None and summary.left_out["bad_expression"][0] == 1


def test_what_python_2_wrote(tmp_path):
    """Byte strings, in protocol 0, as ``pickle.dump(refs, open(name, 'w'))`` wrote them."""
    path = write_refer(tmp_path)
    path.write_bytes(
        b"(lp0\n(dp1\nS'ref_id'\np2\nI7\nsS'ann_id'\np3\nI100\nsS'image_id'\np4\nI0\nsS'split'\np5\nS'val'\np6\ns"
        b"S'sentences'\np7\n(lp8\n(dp9\nS'sent'\np10\nS'left dog'\np11\nsS'sent_id'\np12\nL8L\nsasa."
    )
    import_files([path], tmp_path / "out.jsonl", None, None)
    (row,) = rows_of(tmp_path / "out.jsonl")
    assert (row["expression"], row["ref_id"], row["sent_id"], row["box"]) == ("left dog", 7, 8, [10, 20, 60, 60])


def test_refs_that_name_nothing_are_bad_rows(tmp_path):
    path = write_refer(tmp_path)
    refs = [REF, REF | {"image_id": 99}, REF | {"ann_id": [1]}, REF | {"sentences": 3}, REF | {"sentences": [{}]}]
    path.write_bytes(pickle.dumps(refs))
    summary = import_files([path], tmp_path / "out.jsonl", None, None)
    assert summary.n_rows == 1 and summary.left_out["bad_row"][0] == 4
    path.with_name("instances.json").unlink()
    with pytest.raises(DeeplayerError, match=r"needs .*instances\.json beside it: the boxes are there"):
        import_files([path], tmp_path / "other.jsonl", None, None)


BROKEN = {
    "parquet": b"PAR1 and nothing more",
    "coco": b'{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"id": 1, "image_id": 1, "bbox": [1,',
    "coco without ids": b'{"images": [{"file_name": "a.jpg"}], "annotations": []}',
    "labelstudio": b'[{"data": {"image": "a.jpg"}}, {"data"',
    "json": b'[{"image": "a.jpg", "expression": "x"}, ',
    "nested": b"[" * 200_000,
    "not UTF-8": b'[{"image": "\xff\xfe"}]',
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_ends_it_with_a_sentence(name, tmp_path):
    pytest.importorskip("pyarrow")
    path, output = tmp_path / "broken", tmp_path / "out.jsonl"
    path.write_bytes(BROKEN[name])
    output.write_bytes(b"precious")
    with pytest.raises(DeeplayerError, match="broken"):
        import_files([path], output, None, None)
    assert output.read_bytes() == b"precious" and sorted(one.name for one in tmp_path.iterdir()) == [
        "broken",
        "out.jsonl",
    ]


ODD = {
    "coco": {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]},
            {"id": 2, "image_id": 9, "category_id": 1, "bbox": [1, 2, 3, 4]},
            {"id": 3, "image_id": 1, "category_id": 9, "bbox": [1, 2, 3, 4]},
            {"id": 4, "image_id": [1], "category_id": 1, "bbox": [1, 2, 3, 4]},
            {"id": 5, "image_id": 1, "category_id": 1, "bbox": "abc"},
            7,
        ],
    },
    "labelstudio": [
        {
            "data": {"image": "a.jpg"},
            "annotations": [
                {"result": [{"type": "rectanglelabels", "original_width": 10, "original_height": 10,
                             "value": {"x": 10, "y": 10, "width": 50, "height": 50, "rectanglelabels": ["cat"]}}]}
            ],
        },
        {"data": {}},
        {"data": {"image": "a.jpg"}, "annotations": [{"result": [{"type": "rectanglelabels"}]}]},
        "nothing",
        {"data": {"image": "a.jpg"}, "annotations": 3},
        {"data": {"image": "b.jpg"}, "annotations": [{"result": [
            {"type": "rectanglelabels", "original_width": 10, "original_height": 10,
             "value": {"x": 1, "y": 1, "width": 5, "height": 5, "rotation": 45, "rectanglelabels": ["cat"]}}]}]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_items_are_bad_rows(name, tmp_path):
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(ODD[name]))
    assert recognise(path).name == name
    summary = import_files([path], tmp_path / "out.jsonl", None, None)
    assert summary.n_rows == 1 and sum(n_rows for n_rows, _ in summary.left_out.values()) == 5


def test_xml_does_not_grow(tmp_path):
    for name in ("Sentences", "Annotations"):
        (tmp_path / name).mkdir()
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    (tmp_path / "Sentences" / "1.txt").write_text("[/EN#1/people a man] .")
    (tmp_path / "Annotations" / "1.xml").write_text(f'<!DOCTYPE a [<!ENTITY l0 "lol">{laughs}]><a>&l9;</a>')
    (tmp_path / "Sentences" / "2.txt").write_text("[/EN#1/people a man] .")
    with pytest.raises(
        DeeplayerError, match=r"no row is a request.*image 1 has no usable annotations: .*amplification"
    ):
        import_files([tmp_path], tmp_path / "out.jsonl", None, None)


def test_paths_do_not_lead_out_of_the_given_folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "secret.jpg").write_bytes(jpeg(0))
    finder = ImageFinder(tmp_path / "images")
    for image in ("../secret.jpg", str(tmp_path / "secret.jpg"), "..", "", "a\0b", "x" * 5000, "/"):
        assert finder.find(image) is None
    for name in ("../../up.jpg", "..", "", ".", "a/b\0.jpg", "x" * 300, "/etc/passwd"):
        assert write_image(jpeg(0), tmp_path / "inside", name).parent == tmp_path / "inside"
    assert {path.parent for path in tmp_path.rglob("*.jpg")} == {tmp_path, tmp_path / "inside"}


def test_documents_are_read_an_item_at_a_time(tmp_path):
    path = tmp_path / "large.json"
    with path.open("w") as stream:
        stream.write('{"info": {"year": 2014}, "images": [')
        stream.write(",".join(f'{{"id": {n}, "file_name": "{n:0200}.jpg"}}' for n in range(50_000)))
        stream.write('], "annotations": [], "last": 12345}')
    tracemalloc.start()
    found = [name for name, _ in object_members(path)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.count("images") == 50_000 and found[0] == "info" and found[-1] == "last"
    assert path.stat().st_size > 10 * 2**20 and peak < 4 * 2**20


@pytest.mark.parametrize("chunk", [1, 2, 7])
def test_values_may_be_cut_anywhere(chunk, tmp_path, monkeypatch):
    monkeypatch.setattr("deeplayer_cli.formats.imports.json_stream._CHUNK", chunk)
    values = [1, 23.5, -4e10, 'a \\ " ] }', None, True, [1, [2, {}]], {"a": [1, 2], "b": {"c": "d"}}, "ü🐕"]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(values, indent=1), encoding="utf-8-sig")
    assert list(array_items(path)) == values
    path.write_text(json.dumps({"a": values, "b": 12, "c": [], "d": {}}))
    assert list(object_members(path)) == [*(("a", value) for value in values), ("b", 12), ("d", {})]


def test_predictions_are_no_requests(tmp_path):
    row = {"id": 1, "image": "a.png", "expression": "x", "status": "ok", "box": [1, 2, 3, 4], "gold": None}
    path = tmp_path / "boxes.jsonl"
    path.write_text(json.dumps(row | {"answer": "x"}) + "\n")
    with pytest.raises(DeeplayerError, match=r"boxes\.jsonl:1: the row is a prediction"):
        import_files([path], tmp_path / "out.jsonl", None, None)


def test_a_lone_quote_in_a_table_swallows_no_rows(tmp_path):
    (tmp_path / "rows.csv").write_text('image,expression\na.png,x\na.png,"y\na.png,z\n')
    *rows, last = table_rows(tmp_path / "rows.csv")
    assert rows == [(2, {"image": "a.png", "expression": "x"})] and last == (3, {"": "unexpected end of data"})


def test_a_table_with_two_columns_of_one_name_is_refused(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("image,expression,image,,\na.png,x,b.png,,\n")
    with pytest.raises(DeeplayerError, match=r"rows\.csv:1: column 'image' comes twice"):
        import_files([path], tmp_path / "out.jsonl", None, None)
    path.write_text("image,expression,,\na.png,x,,\n")
    assert import_files([path], tmp_path / "out.jsonl", None, None).n_rows == 1, "columns without a name are no columns"


@pytest.mark.parametrize("number", ["inf", "nan", "-1e999"])
def test_numbers_of_a_table_that_are_not_finite(number, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(f"image,expression,x1,y1,x2,y2,width,height\na.png,x,1,2,{number},4,{number},9\n")
    (row,) = read_table(path)
    assert row.resolution_wh is None and row.box == [1, 2, number, 4]


def test_a_coco_size_that_is_none_costs_its_row_only(tmp_path):
    sizes = [{"width": "9", "height": 9}, {"width": 1e300, "height": [9]}]
    images = [{"id": number, "file_name": "a.png", **size} for number, size in enumerate(sizes)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 2, 3, 4]} for n in range(2)]
    path = tmp_path / "coco.json"
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}))
    with pytest.raises(DeeplayerError, match=r"no row is a request, such as: .*coco"):
        import_files([path], tmp_path / "out.jsonl", None, None)


@pytest.mark.parametrize("annotations", [5, ["x"], [{"result": ["x"]}], [{"result": 5}]])
def test_a_label_studio_task_of_another_shape_costs_its_rows_only(annotations, tmp_path):
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps([{"id": 7, "data": {"image": "a.png"}, "annotations": annotations}]))
    (row,) = read_label_studio(path)
    assert str(row.error) == "task 7 is not as Label Studio exports tasks: its data or its results have another form"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_id": 5}, "annotation 3 has the image_id 5, and nothing in the file has this id"),
        ({"category_id": "cat"}, 'annotation 3 has the category_id "cat", and nothing in the file has this id'),
        ({"image_id": 2}, "annotation 3 has the image_id 2, and that image has no 'file_name'"),
        ({"image_id": [1]}, "annotation 3 is not written as COCO writes them"),
    ],
)
def test_an_annotation_that_names_nothing_is_told_in_words(changes, said, tmp_path):
    coco = {"images": [{"id": 1, "file_name": "a.png"}, {"id": 2}], "categories": [{"id": 1, "name": "cat"}]}
    annotation = {"id": 3, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
    path = tmp_path / "coco.json"
    without_box = {name: value for name, value in annotation.items() if name != "bbox"}
    path.write_text(json.dumps(coco | {"annotations": [annotation | changes, without_box]}))
    named, missing = read_coco(path)
    assert named.error.message == said and missing.error.message == "annotation 3 has no 'bbox'"


def test_nothing_is_recognised_in_random_bytes(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "random"
    for start in (b"", b"{", b"[", b"PAR1", b"\x80\x04", b"a,b\n", b"\xef\xbb\xbf"):
        path.write_bytes(start + rng.bytes(3000))
        for form in FORMATS:
            try:
                list(form.read(path)) if form.name != "flickr30k" and form.recognises(path) else None
            except DeeplayerError:
                continue


def test_a_pickle_runs_nothing_in_the_real_command(tmp_path):
    path = write_refer(tmp_path)
    path.write_bytes(pickle.dumps(HOSTILE["os.system"]))
    command = [sys.executable, "-m", "deeplayer_cli", "data", "import", str(path), "-o", str(tmp_path / "out.jsonl")]
    finished = subprocess.run(command, capture_output=True, cwd=tmp_path, timeout=100)
    assert finished.returncode == 2 and b"Traceback" not in finished.stderr and not (tmp_path / "pwned").exists()


RECTANGLE = {"x": 1, "y": 2, "width": 3, "height": 4, "rectanglelabels": ["cat"]}


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"x": "a"}, "bad_box", 'task 7: a rectangle must be four finite numbers, not x "a", y 2, width 3, height 4'),
        ({"height": math.inf}, "bad_box", "four finite numbers"),
        ({"width": None}, "bad_box", "width null"),
        ({"rectanglelabels": "cat"}, "bad_row", 'rectanglelabels must be a list of labels, not "cat"'),
        ({"rotation": 9}, "bad_box", "rotated box"),
    ],
)
def test_a_wrong_rectangle_of_label_studio_costs_its_row_only(changes, kind, said, tmp_path):
    size = {"original_width": 9, "original_height": 9, "type": "rectanglelabels"}
    results = [{"value": RECTANGLE | more, **size} for more in (changes, {})]
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps([{"id": 7, "data": {"image": "a.png"}, "annotations": [{"result": results}]}]))
    bad, good = read_label_studio(path)
    assert bad.error.kind == kind and said in bad.error.message
    assert good.expression == "cat" and good.box == pytest.approx([0.01, 0.02, 0.04, 0.06])


def test_a_number_too_large_for_json_is_said_with_its_place(tmp_path):
    coco = {"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "cat"}]}
    coco["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, math.inf]}]
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(coco).replace("Infinity", "1e999"))
    with pytest.raises(DeeplayerError, match=r"coco\.json:1: box\.3 is infinite or not a number"):
        import_files([path], tmp_path / "out.jsonl", None, None)
