"""The HTML page: what stands in it, and that nothing from a row becomes markup."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation import score
from deeplayer_cli.report.caption import FURTHER, PREDICTED
from deeplayer_cli.report.caption import GOLD as GOLD_COLOUR
from deeplayer_cli.report.method_styles import _FREE, _STYLES, BASELINE
from deeplayer_cli.report.page import PageOptions, write_page
from deeplayer_cli.report.page.chart import draw_charts, round_values
from deeplayer_cli.report.page.formatting import colour_class
from deeplayer_cli.report.page.render import embedded_json
from deeplayer_cli.report.page.runs import read_page_runs
from deeplayer_cli.schema import Prediction, TileLayout
from deeplayer_cli.sinks import RunRecord

GOLD = (10.0, 10.0, 50.0, 50.0)
TEMPLATE = Path(__file__).parents[3] / "deeplayer_cli/report/page/templates/chart.html.jinja"
NASTY = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "--><img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "]]>&lt;b&gt;&amp;",
    "{{ 7 * 7 }}{% raw %}",
    "\u2028\u2029\u202e\x00\x1b[31m",
    "javascript:alert(1)",
]


class Page(HTMLParser):
    """The elements of a page with their attributes, the text of each, and its JSON."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.inside: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.cells: list[list[str]] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.data, self.pictures = (json.loads(text) for text in self.scripts[:2])
        self.runs = [run["label"] for run in self.data["runs"]]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside.append(tag)
        if tag in ("script", "style"):
            (self.scripts if tag == "script" else self.styles).append("")
        elif tag == "tr":
            self.cells.append([])
        elif tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if "script" in self.inside or "style" in self.inside:
            (self.scripts if "script" in self.inside else self.styles)[-1] += data
        elif ("td" in self.inside or "th" in self.inside) and data.strip():
            self.cells[-1][-1] += f"{data.strip()} "

    def row(self, heading):
        return next([cell.strip() for cell in row] for row in self.cells if row and row[0].strip() == heading)


def prediction(row_id, *, right=True, **fields):
    box = GOLD if right else (60.0, 60.0, 70.0, 70.0)
    given = {"image": "a.png", "expression": f"thing {row_id}", "status": "ok", "box": box, "boxes": (box,)}
    given |= {"gold": GOLD, "width": 80, "height": 80, "score": 0.5, "answer": "[[1]]", "method": "deep-layer"}
    return Prediction(row_id, **(given | fields))


def write(path, rows, **settings):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(row.to_json() for row in rows))
    if settings:
        base = {"method": "deep-layer", "keep": 0.1, "keep_tokens": None, "layer": None}
        RunRecord(base | settings, {}, None).save(path)
    return path


def draw_image(path, size=(80, 80)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "teal").save(path)
    return path


@pytest.fixture
def rows():
    splits = ["testA", "testB"]
    return [prediction(n, right=n % 4 != 0, meta={"split": splits[n % 2], "ref_id": n}) for n in range(40)]


@pytest.fixture
def page(tmp_path, rows):
    def make(*files, **options):
        output = tmp_path / "page.html"
        given = files or (write(tmp_path / "boxes.jsonl", rows),)
        gold = options.pop("gold", None)
        summary = write_page(list(given), output, PageOptions(**options), gold)
        return Page(output), summary

    return make


def test_the_tables_have_the_numbers_of_score(page, rows):
    found, summary = page()
    assert (summary.n_runs, summary.n_rows, len(summary.pictures)) == (1, 40, 1)
    scored = score(rows, by="split")
    for heading, expected in {"boxes": scored.overall, **scored.groups}.items():
        rates = [expected.rates[name] for name in ("acc@0.5", "acc@0.25", "acc@0.75", "centre_acc")]
        shares = [f"{rate.value:.1%} {100 * rate.low:.0f} to {100 * rate.high:.0f}" for rate in rates]
        assert found.row(heading)[1:9] == [str(expected.n), "0", "0", *shares, f"{expected.mean_iou:.3f}"]
    assert found.row("testA")[4].startswith("50.0%") and found.row("testB")[4].startswith("100.0%")


def test_without_gold_boxes_there_is_no_accuracy(tmp_path, page):
    rows = [prediction(n, gold=None, meta={"label": "cat" if n % 2 else "dog"}) for n in range(4)]
    one, _ = page(write(tmp_path / "a.jsonl", rows))
    assert one.row("Run") == ["Run", "Rows", "No box", "Errors", "Tokens kept"]
    assert one.row("cat") == ["cat", "2", "0", "0"]
    two, _ = page(tmp_path / "a.jsonl", write(tmp_path / "b.jsonl", rows))
    assert two.row("Rows with a box") == ["Rows with a box", "cat", "dog"] and two.row("a") == ["a", "4", "0", "0", "–"]
    assert "%" not in "".join(cell for row in [*one.cells, *two.cells] for cell in row)


def test_rows_keep_their_values_as_json(page, rows):
    found, _ = page()
    assert found.runs == ["boxes"]
    assert found.data["fields"] == [{"name": "split", "values": ["testA", "testB"]}]  # ref_id has too many values
    first = found.data["rows"][0]
    assert first["expression"] == "thing 0" and first["gold"] == list(GOLD) and first["groups"] == [0]
    assert first["answers"] == [
        {"status": "ok", "iou": 0.0, "score": 0.5, "box": [60.0, 60.0, 70.0, 70.0], "text": "[[1]]"}
    ]
    assert [row["id"] for row in found.data["rows"]] == [str(row.id) for row in rows]


@pytest.mark.parametrize("text", NASTY)
def test_text_of_strangers_is_inert(tmp_path, page, text):
    clean = page()[0]
    fields = {"expression": text, "answer": text, "image": text.replace("\0", ""), "source": text}
    error = prediction(f"{text}!", status="error", box=None, boxes=(), error={"type": text, "message": text})
    rows = [prediction(text, meta={"split": text, text: text}, **fields), prediction("b", meta={"split": "x", text: 1})]
    hostile, _ = page(write(tmp_path / "hostile.jsonl", [*rows, error]), title=text, by=["split", text])
    assert hostile.data["rows"][0]["expression"] == hostile.data["rows"][0]["id"] == text
    assert hostile.data["rows"][2]["answers"][0]["error"] == f"{text}: {text}"
    assert {tag for tag, _ in hostile.tags} <= {tag for tag, _ in clean.tags}
    assert not [name for _, attributes in hostile.tags for name in attributes if name.startswith("on")]
    assert hostile.scripts[2:] == clean.scripts[2:] and hostile.styles == clean.styles


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=9))
def test_embedded_json_is_the_same_value_and_has_no_markup(value):
    text = embedded_json(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


def test_the_policy_allows_the_pages_own_style_and_script_only(page):
    found, _ = page()
    policy = next(tag["content"] for _, tag in found.tags if tag.get("http-equiv") == "Content-Security-Policy")
    directives = dict(directive.strip().split(" ", 1) for directive in policy.split(";"))
    assert directives["default-src"] == "'none'" and directives["img-src"] == "data:"
    for name, text in (("style-src", found.styles[0]), ("script-src", found.scripts[2])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert directives[name] == f"'sha256-{digest}'"
    assert len(found.styles) == 1 and len(found.scripts) == 3
    assert not [tag for tag, attributes in found.tags if "style" in attributes]
    addresses = [value for _, tag in found.tags for name in ("src", "href", "action") if (value := tag.get(name))]
    assert addresses == ["data:,", "#rows"]
    assert "innerHTML" not in found.scripts[2] and "</" not in found.scripts[2]


def test_boxes_have_the_colours_of_show(page):
    found, _ = page()
    for kind, colour in (("predicted", PREDICTED), ("gold", GOLD_COLOUR), ("other", FURTHER)):
        assert f".{kind} rect {{ stroke: {colour.lower()};" in found.styles[0]


def test_an_image_is_in_the_page_once_and_small(tmp_path, page):
    draw_image(tmp_path / "a.png", (800, 400))
    rows = [prediction(n, width=800, height=400) for n in range(5)]
    found, summary = page(write(tmp_path / "boxes.jsonl", rows), thumbnail=100)
    assert not summary.problems
    (picture,) = found.pictures
    assert (picture["name"], picture["width"], picture["height"]) == ("a.png", 800, 400)
    kind, content = picture["source"].split(",")
    assert kind == "data:image/webp;base64"
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == (100, 50)
    assert {row["picture"] for row in found.data["rows"]} == {0}


def test_the_images_of_the_lowest_ious_are_shown_first(tmp_path, page):
    for name in "abc":
        draw_image(tmp_path / f"{name}.png")
    rows = [prediction(name, image=f"{name}.png", right=name == "a") for name in "abc"]
    found, summary = page(write(tmp_path / "boxes.jsonl", rows), max_images=2)
    assert [(one["name"], one["source"] is not None) for one in found.pictures] == [
        *(("b.png", True), ("c.png", True), ("a.png", False))
    ]
    assert summary.n_left_out == 1 and not summary.problems
    assert found.pictures[found.data["rows"][0]["picture"]]["name"] == "a.png"


def test_missing_changed_and_broken_images_are_told(tmp_path, page):
    draw_image(tmp_path / "changed.png")
    draw_image(tmp_path / "resized.png", (40, 40))
    (tmp_path / "broken.png").write_bytes(b"no image")
    rows = [
        prediction(1, image="absent.png"),
        prediction(2, image="changed.png", image_id="0123456789abcdef"),
        prediction(3, image="resized.png"),
        prediction(4, image="broken.png"),
        prediction(5, image=None, status="error", box=None, boxes=(), error={"type": "bad_image", "message": "none"}),
        prediction(6, image="x" * 5000),
    ]
    found, summary = page(write(tmp_path / "boxes.jsonl", rows))
    said = " ".join(summary.problems)
    assert len(summary.problems) == 5 and summary.n_left_out == 0
    assert "absent.png is not found" in said and "resized.png has 40 x 40 pixels, but its row says 80 x 80" in said
    assert "changed.png is not the image that was grounded" in said and "broken.png is not an image" in said
    assert all(one["source"] is None for one in found.pictures) and found.data["rows"][4]["picture"] is None


def test_images_are_found_where_the_run_found_them(tmp_path, monkeypatch, page):
    draw_image(tmp_path / "data" / "photos" / "a.png")
    path = tmp_path / "elsewhere" / "boxes.jsonl"
    settings = {"method": "none", "keep": 1.0}
    for source, image in (
        ("data/photos/requests.jsonl", "a.png"),
        ("data/photos", "photos/a.png"),
        ("data", "photos/a.png"),
    ):
        write(path, [prediction(1, image=image)])
        RunRecord(settings, {"source": [source]}).save(path)
        monkeypatch.chdir(tmp_path)
        assert not page(path)[1].problems, source
    monkeypatch.chdir(path.parent)
    assert page(path)[1].problems
    assert not page(path, image_root=tmp_path / "data")[1].problems
    outside = write(tmp_path / "outside.jsonl", [prediction(1, image="../data/photos/a.png")])
    assert "lies outside of --image-root" in page(outside, image_root=tmp_path / "elsewhere")[1].problems[0]


def test_boxes_of_turned_images_lie_in_the_turned_frame(tmp_path, page):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40)).save(tmp_path / "a.jpg", exif=exif)
    row = prediction(1, image="a.jpg", width=40, height=80)
    found, summary = page(write(tmp_path / "boxes.jsonl", [row], exif_transpose=True))
    assert not summary.problems and (found.pictures[0]["width"], found.pictures[0]["height"]) == (40, 80)


def test_two_runs_are_joined_by_id(tmp_path, page, rows):
    pruned = write(tmp_path / "pruned.jsonl", rows, keep=0.25)
    whole = [replace(row, method="none", box=GOLD, boxes=(GOLD,)) for row in reversed(rows)]
    found, summary = page(pruned, write(tmp_path / "whole.jsonl", whole, method="none", keep=1.0))
    assert (summary.n_runs, summary.n_rows, found.runs) == (2, 40, ["deep-layer", "none"])
    assert [answer["iou"] for answer in found.data["rows"][0]["answers"]] == [0.0, 1.0]
    assert found.row("none")[-1] == "–" and found.row("deep-layer")[-2].startswith("\N{MINUS SIGN}25.0")
    fields = found.cells[[row[0].strip() for row in found.cells].index("Acc@0.5")]
    assert [cell.strip() for cell in fields] == ["Acc@0.5", "testA", "testB"]


def test_runs_have_different_names_and_rows_of_one_setting_are_one_run(tmp_path, page, rows):
    files = [write(tmp_path / f"{keep}.jsonl", rows, keep=keep) for keep in (0.1, 0.25)]
    files += [write(tmp_path / "tokens.jsonl", rows, keep_tokens=9)]
    files += [write(tmp_path / "other.jsonl", rows[5:], keep=0.25)]
    assert page(*files)[0].runs == ["deep-layer, keep 0.1", "deep-layer, keep 0.25", "deep-layer, 9 tokens"]
    found, _ = page(*[write(tmp_path / name / "b.jsonl", rows) for name in ("x", "y")])
    assert found.runs == [f"b, {tmp_path / name / 'b.jsonl'}" for name in ("x", "y")]
    changes = [cell for row in found.cells for cell in row if cell.startswith("same")]
    assert changes == ["same < 95 "]  # 1 - 0.05, of one image


def test_what_one_run_knows_about_a_row_counts_for_all(tmp_path, page):
    failed = prediction(1, status="error", box=None, boxes=(), gold=None, expression=None, width=None, height=None)
    found, _ = page(write(tmp_path / "a.jsonl", [failed]), write(tmp_path / "b.jsonl", [prediction(1)]))
    (row,) = found.data["rows"]
    assert row["gold"] == list(GOLD) and row["expression"] == "thing 1"


def test_rows_that_only_one_run_has(tmp_path, page, rows):
    found, summary = page(write(tmp_path / "a.jsonl", rows[:30]), write(tmp_path / "b.jsonl", rows[20:]))
    assert summary.n_rows == 40
    assert [place for place, row in enumerate(found.data["rows"]) if row["answers"][0] is None] == list(range(30, 40))
    assert "Change" not in "".join(cell for row in found.cells for cell in row)  # not the same rows: no difference
    assert summary.warnings == ("the runs have different rows, so their accuracies do not compare: b has 20 of 40",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"expression": "the cat"}, 'expression of id 1 is "thing 1" in the first and "the cat" in the second'),
        ({"gold": (1.0, 2.0, 3.0, 4.0)}, "gold of id 1"),
        (
            {"image_id": "fedcba9876543210"},
            'image_id of id 1 is "0123456789abcdef" in the first and "fedcba9876543210"',
        ),
        ({"width": 81}, "width of id 1 is 80 in the first and 81 in the second"),
    ],
)
def test_runs_on_other_rows_are_refused(tmp_path, page, change, said):
    ours = prediction(1, image_id="0123456789abcdef")
    theirs = replace(ours, **change)
    with pytest.raises(DeeplayerError, match=rf"^a and b are not .*{re.escape(said)}.*; make one page for each$"):
        page(write(tmp_path / "a.jsonl", [ours]), write(tmp_path / "b.jsonl", [theirs]))


def test_files_of_one_setting_with_other_rows_are_refused(tmp_path, page):
    cats, dogs = (
        write(tmp_path / f"{name}.jsonl", [prediction(1, expression=name)], keep=0.1) for name in ("cat", "dog")
    )
    with pytest.raises(DeeplayerError, match='have different rows of id 1: "cat" and "dog"'):
        page(cats, dogs)


def test_a_record_of_something_else_is_refused(tmp_path, page, rows):
    path = write(tmp_path / "boxes.jsonl", rows)
    for settings in ({}, {"method": "none"}, {"method": "none", "keep": "all"}):
        RunRecord(settings, {}).save(path)
        with pytest.raises(DeeplayerError, match="does not say the method and the keep of a run"):
            page(path)


def test_what_is_refused(tmp_path, page, rows):
    boxes = write(tmp_path / "boxes.jsonl", rows)
    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "link.jsonl").symlink_to(boxes)
    write(tmp_path / "twice.jsonl", [rows[0], rows[0]])
    (tmp_path / "broken.jsonl").write_bytes(rows[0].to_json() + b"{}\n")
    refused = [
        ([boxes, tmp_path / "link.jsonl"], {}, "is given twice"),
        ([tmp_path / "empty.jsonl"], {}, "has no rows"),
        ([tmp_path / "absent.jsonl"], {}, "cannot be read"),
        ([tmp_path / "twice.jsonl"], {}, "id 0 comes twice"),
        ([tmp_path / "broken.jsonl"], {}, r"broken\.jsonl:2 is not a prediction"),
        ([boxes], {"by": ["colour"]}, "no row has a value for 'colour'"),
        ([write(tmp_path / "many.jsonl", [prediction(n) for n in range(200)])], {"by": ["id"]}, "more than 100 values"),
    ]
    for files, options, said in refused:
        with pytest.raises(DeeplayerError, match=said):
            page(*files, **options)
    assert not (tmp_path / "page.html").exists()


def test_gold_of_another_file_counts(page):
    found, _ = page(gold=dict.fromkeys(range(8), (60.0, 60.0, 70.0, 70.0)))
    assert [row["answers"][0].get("iou") for row in found.data["rows"][:9]] == [1, 0, 0, 0, 1, 0, 0, 0, None]
    assert found.row("boxes")[4].startswith("25.0%")


def test_gold_in_another_format_is_read(tmp_path, page):
    ours = write(tmp_path / "boxes.jsonl", [prediction(1, gold=(10.0, 10.0, 40.0, 40.0))])
    found, _ = page(ours, box_format="xywh")
    assert found.data["rows"][0]["gold"] == list(GOLD) and found.data["rows"][0]["answers"][0]["iou"] == 1
    theirs, _ = page(ours, box_format="unit", gold={1: (0.125, 0.125, 0.625, 0.625)})
    assert theirs.data["rows"][0]["answers"][0]["iou"] == 1 and theirs.row("boxes")[4].startswith("100.0%")


def test_kept_tokens_are_a_mask(tmp_path, page, caplog):
    tiles, kept = TileLayout(2, 1, True, 3), [0, 8, 9, 26]
    odd = [{"kept": [27], "tiles": tiles}, {"kept": [1]}]
    odd += [{"kept": [2**40], "tiles": TileLayout(60000, 60000, False, 60000)}]
    rows = [prediction(0, kept=kept, tiles=tiles), *[prediction(n, **fields) for n, fields in enumerate(odd, start=1)]]
    found, _ = page(write(tmp_path / "boxes.jsonl", rows))
    first, *others = [row["answers"][0].get("kept") for row in found.data["rows"]]
    assert first["tiles"] == [2, 1, True, 3] and others == [None] * 3
    mask = base64.b64decode(first["mask"])
    assert [index for index in range(8 * len(mask)) if mask[index // 8] >> index % 8 & 1] == kept
    assert "kept tokens are not shown of 3 rows whose tiles do not have them" in caplog.text


def test_runs_are_drawn_by_accuracy_and_cost(tmp_path, rows):
    runs = {"none": (1.0, 2.0), "a": (0.1, 1.0), "b": (0.5, 1.5)}
    for name, (keep, gflops) in runs.items():
        answered = [replace(row, method=name, visual_tokens=100, kept_tokens=int(100 * keep)) for row in rows]
        path = write(tmp_path / f"{name}.jsonl", answered)
        cost = {"rows": 40, "visual_tokens": 4000, "seen_tokens": 4000 * keep, "total_gflops": 40 * gflops}
        settings = {"method": name, "keep": keep, "keep_tokens": None, "layer": None}
        RunRecord(settings, {"cost": {**cost, "total_kv_bytes": 1.0}}).save(path)
    paths = [tmp_path / f"{name}.jsonl" for name in runs]
    by_gflops, by_mean_keep = draw_charts(read_page_runs(paths))
    assert by_gflops.unit.startswith("GFLOPs") and by_mean_keep.unit.startswith("visual tokens seen")
    assert [curve.label for curve in by_gflops.curves] == ["a", "b"] and [
        point.label for point in by_gflops.unpruned
    ] == ["none"]
    (low,), (high,) = (curve.points for curve in by_gflops.curves)
    assert low.x < high.x and low.high < low.y < low.low  # y grows downwards
    (tmp_path / "b.jsonl.run.json").unlink()
    (by_kept,) = draw_charts(read_page_runs(paths))
    assert by_kept.unit == "visual tokens kept in the last layer (%)" and len(by_kept.curves) == 2
    assert draw_charts(read_page_runs(paths[:1])) == []


def test_methods_look_as_in_other_plots(tmp_path, page, rows):
    files = []
    for name, method, keep in (("a", "fastv", 0.1), ("b", "random", 0.1), ("c", "none", 1.0), ("d", "fastv", 0.2)):
        answered = [replace(row, method=method, visual_tokens=100, kept_tokens=int(100 * keep)) for row in rows]
        files.append(write(tmp_path / f"{name}.jsonl", answered, method=method, keep=keep))
    found, _ = page(*files)
    assert [run["colour"] for run in found.data["runs"]] == [
        *("colour-e69f00", "colour-7f7f7f", "colour-000000", "colour-e69f00")
    ]
    drawn = [tag["class"].split()[1] for name, tag in found.tags if (tag.get("class") or "").startswith("curve ")]
    assert drawn == ["colour-e69f00", "colour-7f7f7f"] * 2  # in the drawing and its legend
    for style in (BASELINE, *_STYLES.values(), *_FREE):
        assert f".{colour_class(style.colour)} {{" in found.styles[0]
        assert style is BASELINE or f'"{style.marker}": "M' in TEMPLATE.read_text()


def test_a_folder_of_a_comparison_is_in_order(tmp_path, page, rows):
    for name, method, keep in (("x", "fastv", 0.5), ("y", "fastv", 0.1), ("z", "none", 1.0)):
        answered = [replace(row, method=method, layer=None if method == "none" else 2) for row in rows]
        write(tmp_path / "results" / f"{name}.jsonl", answered, method=method, keep=keep)
    assert page(tmp_path / "results")[0].runs == ["none", "fastv, keep 0.1", "fastv, keep 0.5"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DeeplayerError, match="has no prediction files"):
        page(tmp_path / "empty")


def test_fields_of_the_row_make_tables_but_no_filters(page):
    found, _ = page(by=["status", "split"])
    assert found.row("ok")[1] == "40" and [one["name"] for one in found.data["fields"]] == ["split"]


def test_round_values():
    assert round_values(0, 100) == [0, 20, 40, 60, 80, 100]
    assert round_values(0.31, 0.49, 4) == pytest.approx([0.35, 0.4, 0.45])
