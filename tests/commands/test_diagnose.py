"""``deeplayer diagnose`` in this process, on the demo model."""

from __future__ import annotations

import csv
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from deeplayer_cli.app import app
from deeplayer_cli.errors import DeeplayerError

SAMPLES = str(Path(__file__).parents[2] / "sample_data")
DIAGNOSE = ["diagnose", SAMPLES, "--model", "demo", "--images", "4"]


def run(*arguments):
    finished = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "80"})
    if finished.exception is not None:
        raise finished.exception
    return finished.stdout


def test_every_layer_gets_a_line_and_a_sentence(tmp_path, caplog):
    table, picture = tmp_path / "layers.csv", tmp_path / "layers.svg"
    pytest.importorskip("matplotlib")
    told = run(*DIAGNOSE, "--csv", table, "--plot", picture)
    for layer in range(1, 9):
        assert f"Layer {layer} (index {layer - 1}): " in told
    assert caplog.messages == [
        "4 images: the bands by chance need 10 or more, so do not rely on what is said of positional bias"
    ]
    assert "4 images" in told and "dividing by a prior" in told.replace("\n", " ")
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["layer"] for row in rows] == [str(layer) for layer in range(1, 9)]
    assert "<svg" in picture.read_text()


def test_json_has_every_figure():
    told = run(*DIAGNOSE, "--query", "drafted", "--json")
    assert run(*DIAGNOSE, "--query", "drafted", "--json") == told
    found = orjson.loads(told)
    assert (found["query"], found["images"], len(found["layers"])) == ("drafted", 4, 8)
    assert found["rows"] == found["targets"] > 4
    for index, layer in enumerate(found["layers"]):
        assert (layer["layer"], layer["index"]) == (index + 1, index)
        assert {(one["view"], one["signal"]) for one in layer["correlations"]} >= {("tile", "row"), ("image", "centre")}
        assert 0 < layer["visual_share"] < 1 and 0 < layer["entropy"] <= 1
        assert layer["prior"]["kept"] >= 0 and layer["sentence"].startswith(f"Layer {index + 1}")


def test_wrong_input_is_refused_before_a_model_is_loaded(tmp_path):
    with pytest.raises(DeeplayerError, match="--keep must be a share"):
        run("diagnose", SAMPLES, "--keep", "2")
    (tmp_path / "here.csv").touch()
    with pytest.raises(DeeplayerError, match="--overwrite replaces it"):
        run("diagnose", SAMPLES, "--csv", tmp_path / "here.csv")
    with pytest.raises(DeeplayerError, match="does not exist"):
        run("diagnose", tmp_path / "nothing")
