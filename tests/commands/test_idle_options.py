"""Options without effect are said; answers that no model has room for are refused before the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from deeplayer_cli.app import app
from deeplayer_cli.commands import options
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.runtime.grounder import Grounder
from deeplayer_cli.schema import Prediction

SAMPLES = str(Path(__file__).parents[2] / "sample_data" / "requests.jsonl")
COMMANDS = {
    "ground": ["ground", SAMPLES, "--model", "demo", "--limit", "1"],
    "compare": ["compare", SAMPLES, "--model", "demo", "--limit", "1"],
    "evaluate": ["demo", "evaluate", "--count", "1"],
}


@pytest.mark.parametrize(
    ("command", "given", "environment", "said"),
    [
        ("ground", "--method none --keep 0.25", {}, "--method none prunes nothing, so it ignores --keep"),
        ("ground", "--method none", {"DEEPLAYER_KEEP": "0.25"}, "--method none prunes nothing, so it ignores --keep"),
        ("ground", "--method none --layer 3 --query text", {}, "prunes nothing, so it ignores --layer, --query"),
        ("ground", "--keep 0.25 --keep-tokens 9", {}, "--keep-tokens replaces --keep, so --keep is ignored"),
        ("ground", "--keep 0.25", {}, None),
        ("ground", "--method none", {}, None),
        ("compare", "--methods none --keep 0.25", {}, "no method of --methods none prunes, so they ignore --keep"),
        ("compare", "--methods random --keep 0.25", {}, None),
        ("evaluate", "--keep 0.25", {}, "--method none prunes nothing, so it ignores --keep"),
        ("evaluate", "--keep 0.25 --method random", {}, None),
    ],
)
def test_options_without_effect_are_said(command, given, environment, said, caplog):
    finished = CliRunner().invoke(app, [*COMMANDS[command], *given.split()], env=environment)
    assert finished.exit_code == 0, finished.exception
    found = [message for message in caplog.messages if "ignore" in message]
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("data export BOXES --to coco -o OUT --url-prefix x", "--to coco writes no addresses, so --url-prefix has"),
        ("data export BOXES --to labelstudio -o OUT --url-prefix x", None),
        ("show BOXES -o OUT --limit 1 --model demo --device cpu", "no model is loaded, so --model, --device have"),
        ("show BOXES -o OUT --limit 1 --model demo --attention", None),
        ("bench roofline --tflops 1 --bandwidth 1 --rounds 2", "roofline runs no model, so --rounds has"),
        ("bench select --tiles 1 --rounds 1 --bandwidth 1", "select measures this device, so --bandwidth has"),
        ("bench roofline --tflops 1 --bandwidth 1 --layer 2", None),
    ],
)
def test_options_of_something_else_are_said(given, said, tmp_path, caplog):
    boxes = tmp_path / "boxes.jsonl"
    assert CliRunner().invoke(app, [*COMMANDS["ground"], "-o", str(boxes)]).exit_code == 0
    caplog.clear()
    paths = {"BOXES": str(boxes), "OUT": str(tmp_path / "out")}
    finished = CliRunner().invoke(app, [paths.get(word, word) for word in given.split()])
    assert finished.exit_code == 0, finished.exception
    found = [message for message in caplog.messages if "no effect" in message]
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_two_ways_to_print_a_table_are_refused():
    refused = CliRunner().invoke(app, ["compare", SAMPLES, "--format", "csv", "--json"]).exception
    assert "--json and --format csv both say how the table is printed: give one of the two" in str(refused)


@pytest.mark.parametrize(
    "given",
    [
        "ground ROWS",
        "compare ROWS",
        "sweep ROWS",
        "diagnose ROWS",
        "calibrate IMAGES -o OUT",
        "bench prefill",
        "bench roofline --tflops 1 --bandwidth 1",
        "verify MODEL",
        "show BOXES -o OUT --attention",
        "demo evaluate",
        "demo look",
    ],
)
def test_every_command_asks_before_a_download(given, tmp_path, monkeypatch):
    def ask(model, revision, *, yes):
        raise DeeplayerError(f"asked for {model}, {yes}")

    boxes = tmp_path / "boxes.jsonl"
    boxes.write_bytes(Prediction(1, "a.png", "thing", "no_box").to_json())
    monkeypatch.setattr(options, "agree_to_download", ask)
    paths = {"ROWS": SAMPLES, "IMAGES": str(Path(SAMPLES).parent / "images"), "MODEL": "a/b"}
    paths |= {"BOXES": str(boxes), "OUT": str(tmp_path / "out")}
    model = [] if "verify" in given else ["--model", "a/b"]
    for yes in ([], ["--yes"]):
        finished = CliRunner().invoke(app, [paths.get(word, word) for word in given.split()] + model + yes)
        assert str(finished.exception) == f"asked for a/b, {bool(yes)}"


def test_an_answer_longer_than_the_model_is_refused_before_the_run(tmp_path):
    positions = Grounder.load("demo").checkpoint.model.config.text_config.max_position_embeddings
    output = tmp_path / "out.jsonl"
    arguments = [*COMMANDS["ground"], "-o", str(output), "--max-new-tokens", str(positions)]
    refused = CliRunner().invoke(app, arguments).exception
    assert f"--max-new-tokens {positions} leaves no position for a prompt: this model has {positions}" in str(refused)
    assert not output.exists()
    with pytest.raises(DeeplayerError, match="--max-new-tokens"):
        Grounder.load("demo", max_new_tokens=positions)
    Grounder.load("demo", max_new_tokens=positions - 1)
