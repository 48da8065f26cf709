"""Methods that other packages bring, as pruning/README.md shows it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import orjson
import pytest

from deeplayer_cli.pruning import (
    AttentionScorer,
    Drop,
    Entry,
    Options,
    Parameter,
    canonical_name,
    find_method,
    known_methods,
)
from deeplayer_cli.pruning.declaration import fault_in
from deeplayer_cli.pruning.inputs import NEEDS
from deeplayer_cli.pruning.topk import FewestWithMass

ROOT = Path(__file__).parents[2]
README = (ROOT / "deeplayer_cli" / "pruning" / "methods" / "README.md").read_text()

KEY_NORM, BEST_OF_CELL = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
ENTRY_POINTS = re.findall(r"([\w-]+ = \"my_package:\w+\")", README)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The README's first method, installed the way pip would."""
    return install(tmp_path, KEY_NORM, ENTRY_POINTS[:1])


def install(tmp_path: Path, code: str, entry_points: list[str]) -> Path:
    information = tmp_path / "my_package-1.dist-info"
    information.mkdir()
    (tmp_path / "my_package.py").write_text(code)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1\n")
    (information / "entry_points.txt").write_text("\n".join(["[deeplayer.methods]", *entry_points]).replace('"', ""))
    return tmp_path


def run(package: Path, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "deeplayer_cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, timeout=200, cwd=ROOT, env=environment)


def test_a_packages_method_is_compared(package: Path) -> None:
    finished = run(
        *(package, "compare", "sample_data/requests.jsonl", "--model", "demo", "--limit", 3, "--json"),
        *("--methods", "deep-layer,key-norm,key-norm@layer=2", "--keep", "0.25", "--match", "mean-keep"),
    )
    lines = {line["method"]: line for line in orjson.loads(finished.stdout)}
    assert list(lines) == ["none", "deep-layer", "key-norm", "key-norm@layer=2"]
    assert lines["key-norm"]["keep"] == lines["deep-layer"]["keep"] < lines["key-norm@layer=2"]["keep"]
    assert [line["layer"] for line in lines.values()] == [None, 6, 6, 2]


def test_rows_of_a_methods_former_code_are_not_taken_for_those_of_its_new_code(package: Path, tmp_path: Path) -> None:
    results, output = tmp_path / "results", tmp_path / "out.jsonl"
    few = ("sample_data/requests.jsonl", "--model", "demo", "--limit", 3)
    compare = (package, "compare", *few, "--methods", "key-norm", "--results", results, "--json")
    ground = (package, "ground", *few, "--method", "key-norm", "-o", output)
    assert run(*compare).returncode == run(*ground).returncode == 0
    assert len(list(results.glob("key-norm-*.jsonl"))) == 1
    module = package / "my_package.py"
    module.write_text(module.read_text().replace("return -keys", "return keys"))
    assert run(*compare).returncode == 0
    assert len(list(results.glob("key-norm-*.jsonl"))) == 2 and len(list(results.glob("none-*.jsonl"))) == 1
    refused = run(*ground, "--resume")
    assert refused.returncode == 2 and b"method_code was" in refused.stderr
    shown = run(package, "compare", "--from", results)
    assert shown.returncode == 0 and b"are of one method, and its code changed between them" in shown.stderr


def test_a_package_brings_a_method(package: Path) -> None:
    listed = orjson.loads(run(package, "methods", "--json").stdout)
    assert listed[-1]["name"] == "key-norm" and listed[-1]["keeps"] == "the shortest keys"
    asked = run(
        package, "ground", "sample_data/requests.jsonl", "--model", "demo", "--method", "key-norm", "--limit", 3
    )
    rows = [orjson.loads(line) for line in asked.stdout.splitlines()]
    assert [(row["method"], row["layer"], row["kept_tokens"]) for row in rows] == [("key-norm", 6, 14)] * 3


def test_the_readme_shows_a_selector_with_a_parameter(tmp_path: Path) -> None:
    both = install(tmp_path, KEY_NORM + BEST_OF_CELL, ENTRY_POINTS)
    listed = {one["name"]: one for one in orjson.loads(run(both, "methods", "--json").stdout)}
    assert listed["best-of-cell"]["parameters"]["size"]["default"] == 2 and "key-norm" in listed
    rows = {}
    for name in ("best-of-cell", "best-of-cell@size=16"):
        asked = run(both, "ground", "sample_data/requests.jsonl", "--model", "demo", "--limit", 2, "--method", name)
        rows[name] = [orjson.loads(line) for line in asked.stdout.splitlines()]
        assert [(row["method"], row["layer"], row["kept_tokens"]) for row in rows[name]] == [(name, 4, 14)] * 2
    refused = run(both, "ground", "sample_data/requests.jsonl", "--model", "demo", "--method", "best-of-cell@size=17")
    assert refused.returncode == 2
    assert b"method best-of-cell: size must be a whole number from 1 to 16, not '17'" in refused.stderr


def test_the_readme_names_all_that_a_method_can_read_and_say() -> None:
    for need in NEEDS:
        assert f'| `"{need}"` | `{need}`' in README
    for declaration in (Entry, Drop, Options):
        section = README[README.index(f"| field of `{declaration.__name__}`") :].split("\n\n")[0]
        assert set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in section.splitlines()[2:]))) == {
            item.name for item in fields(declaration)
        }


ASKED = ("ground", "sample_data/requests.jsonl", "--model", "demo", "--limit", 1, "--method")
BROKEN = [
    ("entry_points.txt", "key-norm", "random", "its name is taken"),
    ("entry_points.txt", ":key_norm", ":KeyNorm", "not a deeplayer_cli.pruning.Entry"),
    ("entry_points.txt", ":key_norm", ":nothing", "raised AttributeError"),
    ("entry_points.txt", "my_package:", "absent:", "raised ModuleNotFoundError"),
    ("../my_package.py", "class KeyNorm", "raise SystemExit(3)\nclass KeyNorm", "raised SystemExit"),
]


@pytest.mark.parametrize(("file", "old", "new", "reason"), BROKEN)
def test_a_package_that_brings_something_else_stops_no_other_method(
    package: Path, file: str, old: str, new: str, reason: str
) -> None:
    path = package / "my_package-1.dist-info" / file
    path.write_text(path.read_text().replace(old, new, 1))
    listed = run(package, "methods", "--json")
    methods = orjson.loads(listed.stdout)
    assert listed.returncode == 0 and reason in methods[-1]["error"]
    assert [method["name"] for method in methods].count("random") == 1 + ("taken" in reason)
    asked = run(package, *ASKED, "random" if "taken" in reason else "key-norm")
    if "taken" in reason:
        assert asked.returncode == 0
        assert asked.stderr.count(b"method 'random' from my_package") == 1
        assert b"cannot be used: its name is taken by the method that runs\n" in asked.stderr
    else:
        said = asked.stderr.decode()
        assert asked.returncode == 2 and reason in said and len(said.splitlines()) == 1


def test_a_package_that_cannot_be_imported_is_listed_and_stops_nothing(package: Path) -> None:
    (package / "my_package.py").write_text("import absent")
    shown = run(package, "methods")
    assert shown.returncode == 0 and "raised ModuleNotFoundError" in " ".join(shown.stdout.decode().split())
    assert run(package, *ASKED, "none").returncode == 0


@pytest.mark.parametrize(
    ("command", "old", "new", "reason"),
    [
        (["ground", "--method"], "return -", "return inputs.queries[5] + -", "its scorer or selector raised TypeError"),
        (
            ["compare", "--methods"],
            "return -",
            "raise ValueError('mine')\n        return -",
            "its scorer or selector raised ValueError: mine",
        ),
        (["ground", "--method"], "return -", "return None and -", "its scorer returned NoneType, not a tensor"),
    ],
)
def test_a_method_that_raises_gets_one_sentence(
    package: Path, command: list[str], old: str, new: str, reason: str
) -> None:
    module = package / "my_package.py"
    assert old in module.read_text()
    module.write_text(module.read_text().replace(old, new))
    finished = run(package, command[0], "sample_data/requests.jsonl", "--model", "demo", command[1], "key-norm")
    said = finished.stderr.decode()
    assert finished.returncode == 2 and "Traceback" not in said and len(said.splitlines()) == 1
    assert f"method key-norm is broken: {reason}" in said


def test_a_package_of_an_older_form_gets_one_sentence(package: Path) -> None:
    """Scorers used to be any callable with ``rows`` and ``rotary``, and read everything."""
    module = package / "my_package.py"
    code = module.read_text().replace("class KeyNorm(Scorer):", "class KeyNorm:")
    module.write_text(re.sub(r"    needs = .*", '    rows = "last"\n    rotary = True', code))
    finished = run(package, "ground", "sample_data/requests.jsonl", "--model", "demo", "--method", "key-norm")
    said = finished.stderr.decode()
    assert finished.returncode == 2 and "Traceback" not in said and len(said.splitlines()) == 1
    assert "method key-norm: its scorer and selector must be subclasses of deeplayer_cli.pruning.Scorer" in said
    others = run(package, "ground", "sample_data/requests.jsonl", "--model", "demo", "--method", "none", "--limit", 1)
    assert others.returncode == 0


def scorer(options: Options) -> AttentionScorer:
    return AttentionScorer(options.query)


FAULTY = [
    (Entry("", "", AttentionScorer()), "its scorer must be a function that makes it from the options"),  # type: ignore[arg-type]
    (Entry("", "", scorer, drops=(Drop(scorer),)), "gives both a scorer and drops"),
    (Entry("", "", selector=FewestWithMass(0.5)), "gives a selector or a layer, but no scorer"),
    (Entry("", "", layer=3, drops=(Drop(scorer),)), "gives a selector or a layer, but no scorer"),
    (Entry("", "", drops=[Drop(scorer)]), "its drops must be a tuple of Drop"),  # type: ignore[arg-type]
    (Entry("", "", drops=(Drop(scorer, power=0.5),)), "must end at --keep"),
    (Entry("", "", drops=(Drop(scorer, share=0.5),)), "must end at --keep"),
    (Entry("", "", drops=(Drop(scorer, schedule=((0.1, 0.2),)),)), "must end at --keep"),
    (Entry("", "", drops=(Drop(scorer, layer=1, share=1.5), Drop(scorer, layer=2))), "share of a drop .*, not 1.5"),
    (Entry("", "", drops=(Drop(scorer, layer=1, schedule=((0.2, 0.3), (0.1, 0.2))), Drop(scorer))), "by rising keep"),
    (Entry("", "", drops=(Drop(scorer, layer=1, of_32=4),)), "layer=1 or of_32=4: give one of the two"),
    (Entry("", "", drops=(Drop(scorer, of_32=40),)), "of_32 must be a layer from 0 to 32, not 40"),
    (
        Entry("", "", drops=(Drop(scorer, score_from="next"),)),
        "score_from must be same_layer or next_layer, not 'next'",
    ),  # type: ignore[arg-type]
    (Entry("", "", scorer, layer="2"), "layer must be a whole number, 0 or more, not '2'"),  # type: ignore[arg-type]
    (Entry("", "", scorer, positions="renumbered"), "positions must be keep or renumber, or None, not 'renumbered'"),  # type: ignore[arg-type]
    (Entry("", "", scorer, keep=2), "keep must be a share above 0 and at most 1, not 2"),
    (Entry("", "", freeze_of_32=33), "freeze_of_32 must be a layer from 0 to 32, not 33"),
    (Entry(None, "", scorer), "its summary and source must be text"),  # type: ignore[arg-type]
    (
        Entry("", "", scorer, parameters={"size": Parameter(20, "", low=1, high=16)}),
        "default of its parameter size must be a whole number from 1 to 16, not '20'",
    ),
]


@pytest.mark.parametrize(("entry", "fault"), FAULTY)
def test_a_declaration_that_would_be_ignored_or_stop_a_run_has_a_fault(entry: Entry, fault: str) -> None:
    assert re.search(fault, fault_in(entry) or "")


def test_deeplayers_own_declarations_have_no_fault() -> None:
    assert [fault_in(entry) for entry in known_methods().values()] == [None] * len(known_methods())


def test_a_package_with_a_faulty_declaration_is_listed_and_refused(package: Path) -> None:
    module = package / "my_package.py"
    module.write_text(module.read_text().replace("lambda options: KeyNorm())", 'KeyNorm(), positions="gaps")'))
    reason = "method 'key-norm' from my_package:key_norm cannot be used: its scorer must be a function that makes it"
    assert reason in orjson.loads(run(package, "methods", "--json").stdout)[-1]["error"]
    refused = run(package, *ASKED, "key-norm")
    assert refused.returncode == 2 and reason in refused.stderr.decode() and len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize("text", ["fastv", "FastV", " fastv ", "FASTV"])
def test_names_are_found_in_any_spelling(text: str) -> None:
    assert canonical_name(text) == "fastv" and find_method(text) == find_method("fastv")
    assert canonical_name(f"{text.strip()}@positions=keep") == "fastv@positions=keep"
    assert canonical_name("no such") == "no such"
