"""Options without effect are said; answers that no model has room for are refused before the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from deeplayer_cli.app import app
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.runtime.grounder import Grounder

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
