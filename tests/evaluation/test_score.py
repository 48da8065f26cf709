from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation import Report, read_gold, score
from deeplayer_cli.evaluation.compare import gather
from deeplayer_cli.evaluation.score import clustered_interval
from deeplayer_cli.schema import Prediction
from deeplayer_cli.sinks import read_predictions

if TYPE_CHECKING:
    from pathlib import Path

GOLD = (0.0, 0.0, 320.0, 480.0)
WH = {"width": 640, "height": 480}
Z = 1.959963984540054


def row(row_id: int, **values: object) -> Prediction:
    settings: dict[str, object] = {"status": "ok", "gold": GOLD, "box": GOLD, "image": f"{row_id}.jpg"} | values
    return Prediction(id=row_id, expression="dog", **settings)  # type: ignore[arg-type]


def wilson(n_right: int, n: int) -> tuple[float, float]:
    """The two shares x that a score test of n_right out of n just accepts: (p - x)^2 = z^2 x (1 - x) / n."""
    p = n_right / n
    low, high = sorted(np.roots([1 + Z**2 / n, -(2 * p + Z**2 / n), p**2]).real)
    return float(low), float(high)


def rates(report: Report) -> dict[str, float]:
    return {name: rate.value for name, rate in report.overall.rates.items()}


def test_official_cases(reference_dir: Path) -> None:
    cases = json.loads((reference_dir / "eval_cases.json").read_bytes())["cases"]
    predictions = [
        row(number, answer=case["answer"], gold=tuple(case["gt_bbox"]), height=case["hw"][0], width=case["hw"][1])
        for number, case in enumerate(cases)
    ]
    report = score(predictions, rule="internvl")
    assert report.overall.rates["acc@0.5"].value == sum(case["correct"] for case in cases) / len(cases)


def test_every_threshold_counts_itself() -> None:
    boxes = [
        GOLD,
        (0.0, 0.0, 240.0, 480.0),
        (0.0, 0.0, 160.0, 480.0),
        (0.0, 0.0, 80.0, 480.0),
        (320.0, 0.0, 640.0, 480.0),
    ]
    report = score([row(number, box=box) for number, box in enumerate(boxes)])
    assert rates(report) == {"acc@0.5": 0.6, "acc@0.25": 0.8, "acc@0.75": 0.4, "centre_acc": 0.8}
    assert report.overall.mean_iou == pytest.approx((1 + 0.75 + 0.5 + 0.25) / 5)


def test_failures_stay_in_the_denominator() -> None:
    report = score(
        [
            row(1),
            row(2, status="no_box", box=None),
            row(3, status="error", box=None),
            row(4, status="error", box=None, gold=None, image=None),
        ]
    )
    overall = report.overall
    assert (overall.n, overall.n_ok, overall.n_no_box, overall.n_error, overall.n_without_gold) == (4, 1, 1, 2, 1)
    assert rates(report) == pytest.approx(dict.fromkeys(rates(report), 1 / 3))


def test_nothing_to_score() -> None:
    for predictions in ([], [row(1, gold=None)]):
        written = score(predictions).to_dict()
        assert written["acc@0.5"] is written["acc@0.5_ci95"] is written["mean_iou"] is None
        assert written["n"] == written["n_without_gold"] == len(predictions)


def test_report_as_json() -> None:
    written = score([row(1), row(2, box=None, status="no_box")], by="status").to_dict()
    assert json.loads(json.dumps(written)) == written
    assert list(written) == [
        "rule", "n", "n_ok", "n_no_box", "n_error", "n_without_gold", "n_images", "acc@0.5", "acc@0.5_ci95", "acc@0.25",
        "acc@0.25_ci95", "acc@0.75", "acc@0.75_ci95", "centre_acc", "centre_acc_ci95", "mean_iou", "score_quality",
        "n_unanswered", "by", "groups",
    ]  # fmt: skip
    assert written["acc@0.5"] == 0.5
    assert {name: group["acc@0.5"] for name, group in written["groups"].items()} == {"no_box": 0.0, "ok": 1.0}  # type: ignore[attr-defined]


def test_groups() -> None:
    predictions = [
        row(1, meta={"split": "val"}),
        row(2, meta={"split": "testA"}, box=None, status="no_box"),
        row(3, meta={"split": 3}),
        row(4),
    ]
    report = score(predictions, by="split")
    assert {name: summary.n for name, summary in report.groups.items()} == {"(none)": 1, "3": 1, "testA": 1, "val": 1}
    assert list(score(predictions, by="status").groups) == ["no_box", "ok"]
    with pytest.raises(DeeplayerError, match="'splt'"):
        score(predictions, by="splt")


def test_answers_can_be_read_again_by_another_rule() -> None:
    flipped = row(1, answer="[[500, 1000, 0, 0]]", box=(320.0, 480.0, 0.0, 0.0), **WH)
    prose = row(2, answer="the dog", status="no_box", box=None, **WH)
    failed = row(3, status="error", box=None)
    found = {rule: score([flipped, prose, failed], rule=rule) for rule in (None, "internvl", "strict", "vlmevalkit")}
    assert {rule: report.overall.n_ok for rule, report in found.items()} == {
        None: 1, "internvl": 1, "strict": 0, "vlmevalkit": 1,
    }  # fmt: skip
    assert {rule: rates(report)["acc@0.5"] for rule, report in found.items()} == pytest.approx(
        {None: 0, "internvl": 0, "strict": 0, "vlmevalkit": 1 / 3}
    )
    with pytest.raises(DeeplayerError, match="strict"):
        score([], rule="lenient")
    with pytest.raises(DeeplayerError, match=r"id 1 .* width"):
        score([replace(flipped, width=None)], rule="strict")


def test_gold_by_id() -> None:
    predictions = [row(1, gold=None), row(2), row(3, gold=None)]
    report = score(predictions, gold={1: GOLD, 3: (600.0, 0.0, 640.0, 10.0), "1": GOLD, 9: GOLD})
    assert rates(report)["acc@0.5"] == 0.5
    assert (report.overall.n_without_gold, report.n_unanswered) == (1, 2)


def test_an_id_counts_once() -> None:
    with pytest.raises(DeeplayerError, match="id 1 comes twice"):
        score([row(1), row(1)])
    assert score([row(1), replace(row(1), id="1")]).overall.n == 2


def test_images_are_told_apart_by_content_else_by_folder() -> None:
    def n_images(*rows: dict[str, object]) -> int:
        predictions = [row(number, iou=1.0, **values) for number, values in enumerate(rows)]
        gathered = gather(predictions, label="x", keep=None)
        assert len(set(gathered.images)) == score(predictions).overall.n_images
        return score(predictions).overall.n_images

    spellings = ({"image": image, "image_id": "0a"} for image in ("1.png", "./1.png", "/x/1.png"))
    assert n_images(*spellings) == 1, "one file in three spellings"
    assert n_images({"image": "1.png", "image_id": "0a"}, {"image": "1.png", "image_id": "0b"}) == 2
    unread = [{"image": "1.png", "source": source} for source in ("a/r.jsonl:1", "a/r.jsonl:2", "b/r.jsonl:1")]
    assert n_images(*unread) == 2, "of two folders"
    assert n_images({"image": "1.png"}, {"image": "1.png"}) == 1, "rows of older files"
    assert n_images({"image": None}, {"image": None}) == 2
    failed = {"image": "1.png", "source": "a/r.jsonl:1", "status": "error", "box": None}
    read = {"image": "1.png", "source": "a/r.jsonl:2", "image_id": "0a"}
    assert n_images(failed, read) == n_images(read, failed) == 1, "a row that failed before its image was read"
    assert n_images(failed, read | {"source": "b/r.jsonl:2"}) == 2, "of two folders"


def test_prediction_files(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    predictions = [
        row(1, boxes=(GOLD,)),
        row(2, status="error", box=None, error={"type": "image_missing", "message": "gone"}),
    ]
    path.write_bytes(b"\n".join(prediction.to_json() for prediction in predictions))
    assert list(read_predictions(path)) == predictions
    assert score(read_predictions(path)) == score(predictions)
    path.write_bytes(row(1).to_json() + b'{"id": 2, "sta\n')
    with pytest.raises(DeeplayerError, match=r"out\.jsonl:2 is not a prediction"):
        list(read_predictions(path))
    path.write_bytes(b"\xff\xfe" + row(1).to_json().decode().encode("utf-16-le"))
    with pytest.raises(
        DeeplayerError, match=r"out\.jsonl:1 is not a prediction: it is not UTF-8: save the file as UTF-8"
    ):
        list(read_predictions(path))
    with pytest.raises(DeeplayerError, match="none cannot be read"):
        list(read_predictions(tmp_path / "none"))


def test_gold_files(tmp_path: Path) -> None:
    path = tmp_path / "gold.jsonl"
    path.write_text('{"id": 1, "box": [0, 0, 1, 1]}\n{"image": "a.jpg", "sent": "dog", "bbox": [0, 0, 2, 2]}\n')
    assert read_gold(path) == {1: (0, 0, 1, 1), f"{tmp_path.name}/gold.jsonl:2": (0, 0, 2, 2)}
    for line, message in [
        ('{"id": 1, "box": [0, 0, 1, 1]}', "gold.jsonl:2: id 1 comes twice"),
        ('{"id": 2, "box": [3, 0, 1, 1]}', "gold.jsonl:2"),
        (row(2, answer="").to_json().decode(), "gold.jsonl:2: the row is a prediction"),
    ]:
        path.write_text('{"id": 1, "box": [0, 0, 1, 1]}\n' + line)
        with pytest.raises(DeeplayerError, match=message):
            read_gold(path)


@given(st.integers(1, 200), st.data())
def test_interval_with_one_row_per_image_is_wilsons(n: int, data: st.DataObject) -> None:
    n_right = data.draw(st.integers(0, n))
    right = [number < n_right for number in range(n)]
    assert clustered_interval(right, range(n)) == pytest.approx(wilson(n_right, n), abs=1e-7)


@given(st.integers(2, 50), st.integers(1, 8), st.data())
def test_rows_that_agree_within_their_image_count_once(n_images: int, each: int, data: st.DataObject) -> None:
    n_right = data.draw(st.integers(0, n_images))
    right = [number < n_right for number in range(n_images) for _ in range(each)]
    images = [number for number in range(n_images) for _ in range(each)]
    assert clustered_interval(right, images) == pytest.approx(wilson(n_right, n_images), abs=1e-7)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=60))
def test_interval_against_the_formula_written_out(rows: list[tuple[int, bool]]) -> None:
    images, right = [image for image, _ in rows], [value for _, value in rows]
    low, high = clustered_interval(right, images)
    p, n = sum(right) / len(right), len(right)
    assert 0.0 <= low <= p + 1e-12 and p - 1e-12 <= high <= 1.0 and high - low > 0.01
    if 0 < p < 1 and len(set(images)) > 1:
        # Miller's form: the variance of independent rows, plus the covariances of rows of one image.
        variance = p * (1 - p) / n + sum(
            (right[i] - p) * (right[j] - p)
            for i in range(n) for j in range(n) if i != j and images[i] == images[j]
        ) / n**2  # fmt: skip
        effective = max(1.0, min(n, p * (1 - p) / variance)) if variance > 1e-12 else n
        # The interval's ends are where the score test of p with that many rows is on its 5% level.
        for end in (low, high):
            assert abs(p - end) == pytest.approx(Z * (end * (1 - end) / effective) ** 0.5, abs=1e-6)


def test_interval_covers_when_images_are_easy_or_hard() -> None:
    rng, truth, covered, n_trials = np.random.default_rng(0), 0.9, 0, 400
    for _ in range(n_trials):
        difficulty = rng.beta(1.35, 0.15, size=60)
        images = np.repeat(np.arange(60), rng.integers(1, 8, size=60))
        low, high = clustered_interval((rng.random(len(images)) < difficulty[images]).tolist(), images.tolist())
        covered += low <= truth <= high
    assert covered / n_trials > 0.9
