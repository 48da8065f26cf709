"""``deeplayer.toml``, and ``deeplayer config``, which shows what it sets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from deeplayer_cli.app import app
from deeplayer_cli.commands.configuration import commands_below, default_map, find_file, read_options
from deeplayer_cli.errors import DeeplayerError

ROOT = Path(__file__).parents[2]
GROUP = get_command(app)


def read(folder: Path, text: str) -> dict[str, Any]:
    (folder / "deeplayer.toml").write_text(text)
    return default_map(read_options(folder / "deeplayer.toml", GROUP))


def test_the_nearest_file_is_found(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "deeplayer.toml").touch()
    (tmp_path / "a" / "deeplayer.toml").mkdir()
    assert find_file(deep) == tmp_path / "deeplayer.toml"
    (deep / "deeplayer.toml").touch()
    assert find_file(deep) == deep / "deeplayer.toml"


def test_tables_replace_keys_at_the_top(tmp_path: Path) -> None:
    found = read(tmp_path, 'keep = 0.5\nmodel = "demo"\n[ground]\nkeep = 0.25\nexpression = ["a, b", "c"]\n')
    assert found["ground"] == {"keep": "0.25", "model": "demo", "expression": ["a, b", "c"]}
    assert found["compare"] == {"model": "demo"}, "compare's --keep is a list: it has a variable of its own"
    assert found["demo"]["evaluate"]["keep"] == "0.5"


def test_every_option_can_be_set_in_its_table(tmp_path: Path) -> None:
    """No option's kind is forgotten: true for flags, the default or a text for others."""
    only = {"output", "overwrite", "allow-outside", "help", "version"}
    for path, command in commands_below(GROUP):
        for parameter in command.params:
            key = parameter.opts[0].removeprefix("--")
            if parameter.param_type_name == "option" and parameter.is_flag and key not in only:
                found = read(tmp_path, f"[{'.'.join(path)}]\n{key} = true\n")
                for word in path:
                    found = found[word]
                assert found == {parameter.name: True}


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeff[ground]\r\nkeep = 0.2\r\n")["ground"] == {"keep": "0.2"}


def test_paths_start_from_the_file(tmp_path: Path) -> None:
    found = read(tmp_path, '[ground]\nimage-root = "photos"\nprior = "/p.st"\nmodel = "here/model"\n')["ground"]
    assert found == {"image_root": str(tmp_path / "photos"), "prior": "/p.st", "model": "here/model"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model = ", r"deeplayer\.toml is not TOML: "),
        ("\xff", r"deeplayer\.toml is not TOML"),
        ('\nmodle = "demo"', r"deeplayer\.toml:2: .* called 'modle'; did you mean 'model'\?"),
        ("[grund]\nkeep = 1", r"deeplayer\.toml:1: there is no command 'grund'; did you mean 'ground'\?"),
        ("[data.exprot]", r"deeplayer\.toml:1: there is no command 'exprot'; did you mean 'export'\?"),
        ("keep = 0.1\n[ground]\nkep = 1", r"toml:3: `deeplayer ground` has no option 'kep'; did you mean 'keep'\?"),
        ("[data]\nto = 'coco'", r"toml:2: `deeplayer data` has no option 'to'"),
        ("ground.seed = 'much'", r"deeplayer\.toml: seed must be a whole number of at least 0, not 'much'"),
        ("[ground]\nbatch-size = 9999", r"toml:2: batch-size must be a whole number of at most 4096, not '9999'"),
        ("[ground]\nlimit = 0.5", r"toml:2: limit must be a whole number of at least 1, not '0\.5'"),
        ("[data.export]\nto = 'cocoa'", r"toml:2: to must be coco, .* or fiftyone, not 'cocoa'; did you mean 'coco'\?"),
        ("[ground]\nstrict = 1", r"toml:2: strict must be true or false, not 1"),
        ("[ground]\nkeep = true", r"toml:2: keep must be a text or a number, not True"),
        ("[ground]\nkeep = [0.1]", r"toml:2: keep must be one value, not \[0\.1\]"),
        ("[ground]\nexpression = [1]", r"toml:2: expression must be a list of texts, not \[1\]"),
        ("[ground]\nlimit = 1999-01-01", r"toml:2: limit must be a text or a number"),
        ("[ground.keep]\nx = 1", r"`deeplayer ground` has no option|keep must be"),
        ("[ground]\noverwrite = true", r"toml:2: --overwrite can be given on the command line only"),
        ("output = 'x'", r"toml:1: --output can be given on the command line only"),
        ("[ground]\nsource = 'x'", r"toml:2: `deeplayer ground` has no option 'source'"),
        ("[ground]\nquery = 'best'", r"toml:2: query must be last or text, not 'best'"),
    ],
)
def test_what_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "deeplayer.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(DeeplayerError, match=said):
        read_options(tmp_path / "deeplayer.toml", GROUP)


def test_flags_then_variables_then_the_file(tmp_path: Path) -> None:
    """In a real process: the noop engine records its settings."""
    (tmp_path / "deeplayer.toml").write_text(
        'model = "a"\n[ground]\nseed = 3\nmax-new-tokens = 3\nmax-tiles = 3\nlimit = 1\n'
    )
    (tmp_path / "rows.jsonl").write_text('{"image": "a.jpg", "expression": "dog"}\n' * 3)
    (tmp_path / "sub").mkdir()
    arguments = ["ground", str(tmp_path / "rows.jsonl"), "--seed", "1", "-o", str(tmp_path / "sub" / "out.jsonl")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DEEPLAYER_SEED": "2", "DEEPLAYER_MAX_NEW_TOKENS": "2"}
    command = [sys.executable, "-m", "tests.noop", *arguments]
    done = subprocess.run(command, cwd=tmp_path / "sub", env=environment, capture_output=True, check=True, timeout=100)
    assert b"options from" in done.stderr and done.stdout == b""
    record = orjson.loads((tmp_path / "sub" / "out.jsonl.run.json").read_bytes())
    settings = record["settings"]
    chosen = [settings[name] for name in ("seed", "max_new_tokens", "max_tiles", "weights")]
    assert chosen == [1, 2, 3, "a"]
    assert record["counts"]["rows"] == 1


def test_config_shows_where_an_option_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("DEEPLAYER_")]:
        monkeypatch.delenv(name)
    assert "no option is set" in CliRunner().invoke(app, ["config"]).stdout
    (tmp_path / "deeplayer.toml").write_text('model = "demo"\n[ground]\nkeep = 0.25\nstrict = true\n')
    monkeypatch.setenv("DEEPLAYER_KEEP", "0.5")
    shown = orjson.loads(CliRunner().invoke(app, ["config", "--json"]).stdout)
    rows = {(row["option"], row["value"]): row for row in shown["options"]}
    assert rows["--keep", "0.5"]["from"] == "DEEPLAYER_KEEP" and "ground" in rows["--keep", "0.5"]["commands"]
    assert ("--keep", "0.25") not in rows
    assert rows["--strict", "true"]["from"].endswith("deeplayer.toml:4") and rows["--model", "demo"]
    assert "DEEPLAYER_KEEP" in CliRunner().invoke(app, ["config"]).stdout
    caplog.clear()
    monkeypatch.setenv("DEEPLAYER_KEP", "0.5")
    CliRunner().invoke(app, ["config"])
    assert "DEEPLAYER_KEP sets no option; did you mean 'DEEPLAYER_KEEP'?" in caplog.messages
