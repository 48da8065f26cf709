"""The exam of the demo model: which scenes, and what its boxes hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest
from PIL import Image
from typer.testing import CliRunner

from deeplayer_cli.app import app
from deeplayer_cli.demo import scenes
from deeplayer_cli.demo.evaluate import HOLDINGS, HeldOutEvaluation, holding
from deeplayer_cli.demo.scenes import Scene
from deeplayer_cli.demo.shapes import Thing
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.runtime.grounder import Grounder
from deeplayer_cli.schema import Prediction

if TYPE_CHECKING:
    from deeplayer_cli.boxes import Box

MEANT = Thing("star", "red", "small", (10.0, 10.0, 40.0, 40.0))
TWIN = Thing("star", "red", "small", (10.0, 100.0, 40.0, 130.0))
NEAR = Thing("star", "blue", "small", (60.0, 10.0, 90.0, 40.0))
OTHER = Thing("star", "blue", "large", (60.0, 60.0, 120.0, 120.0))
DRAWN = Scene(Image.new("RGB", (192, 192)), (NEAR, MEANT, TWIN, OTHER), ())


@pytest.mark.parametrize(
    ("box", "held"),
    [
        (MEANT.box, "the object meant"),
        ((10.0, 10.0, 40.0, 26.0), "the object meant"),
        ((10.0, 10.0, 40.0, 24.0), "no object"),
        (NEAR.box, "a near copy"),
        (TWIN.box, "a near copy"),
        (OTHER.box, "another object"),
        ((150.0, 150.0, 170.0, 170.0), "no object"),
        (None, "no box"),
    ],
)
def test_what_a_box_holds(box: Box | None, held: str) -> None:
    prediction = Prediction("scene-0000-0", "x.png", "red star", "ok" if box else "no_box", box=box, gold=MEANT.box)
    assert holding(prediction, DRAWN) == held


@pytest.mark.parametrize("split", scenes.SPLITS)
def test_an_exam_is_on_the_splits_held_out_scenes(split: str) -> None:
    exam = HeldOutEvaluation(split, 7, 2)
    predictions = list(exam.predictions(Grounder.load("demo", device="cpu", method="none")))
    drawn = [scenes.scene(seed, scenes.SPLITS[split]) for seed in scenes.HELD_OUT_SEEDS[7:9]]
    asked = [referral for one in drawn for referral in one.referrals[:4]]
    assert [row.expression for row in predictions] == [referral.expression for referral in asked]
    assert sum(counts.total() for counts in exam.held.values()) == len(predictions)
    right = [row.iou is not None and row.iou >= 0.5 for row in predictions]
    assert sum(counts["the object meant"] for counts in exam.held.values()) == sum(right)


def test_an_exam_needs_scenes() -> None:
    with pytest.raises(DeeplayerError, match="choose another --seed or fewer scenes"):
        HeldOutEvaluation("standard", len(scenes.HELD_OUT_SEEDS), 1)


def test_the_command_tells_what_the_boxes_hold() -> None:
    command = ["demo", "evaluate", "--split", "hard", "--count", "6", "--by", "visual_tokens"]
    told = CliRunner().invoke(app, command)
    assert told.exit_code == 0, told.output
    assert all(heading in told.output for heading in HOLDINGS)
    assert "chain" in told.output
    report = orjson.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert report["by"] == "visual_tokens"
    assert sum(sum(counts.values()) for counts in report["held"].values()) == report["n"]
