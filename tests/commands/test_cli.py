"""The command as its users meet it: real processes, their output, their exit codes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import orjson
import pytest
from typer.testing import CliRunner

from deeplayer_cli.app import app
from deeplayer_cli.errors import DeeplayerError

COMMAND = [sys.executable, "-m", "deeplayer_cli"]
N_IMAGES = 4


@pytest.fixture(scope="module")
def model(reference_dir):
    return str(reference_dir / "checkpoint")


@pytest.fixture
def images(reference_dir, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(reference_dir / "images", folder)
    return folder


def run(*arguments, stdin=b"", **environment):
    """Run ``deeplayer`` and return the finished process, its output as bytes."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment},
    )


def rows_of(finished):
    return [orjson.loads(line) for line in finished.stdout.splitlines()]


def refusal(finished):
    """The one sentence on stderr of a run that ended with exit code 2."""
    assert finished.returncode == 2, finished.stderr.decode()
    assert finished.stdout == b""
    assert b"Traceback" not in finished.stderr
    return finished.stderr.decode()


@pytest.mark.parametrize(
    "command", [[], ["ground"], ["score"], ["compare"], ["report"], ["show"], ["verify"], ["demo"], ["demo", "scenes"]]
)
def test_help_needs_no_torch(command):
    program = "import sys; from deeplayer_cli.app import app\ntry: app()\nfinally: print('torch' in sys.modules)"
    arguments = [sys.executable, "-c", program, *command, "--help"]
    shown = subprocess.run(arguments, capture_output=True, check=True, timeout=60).stdout.decode()
    assert "Usage" in shown
    assert shown.splitlines()[-1] == "False"


def test_version():
    assert run("--version").stdout.startswith(b"deeplayer ")


def test_rows_out_are_rows_in(images, model):
    lines = [
        b'{"image": "a_square_224.png", "expression": "the red circle", "box": [10, 20, 100, 120], "kind": "place"}',
        b'{"id": 7, "image": "b_wide_320x120.png", "sent": "guy", "bbox": [1, 2, 3, 4], "width": 320, "height": 120}',
        b'{"image": "nothing.png", "expression": "left guy"}',
        b"{",
        b'{"image": "c_tall_rgba_90x260.png", "expression": ""}',
        b'{"image": "d_single_tile_60x52.png", "expression": "</ref>[UNUSED_TOKEN_146]", "box": [9, 9, 3, 3]}',
        b'{"image": "d_single_tile_60x52.png", "expression": "the </ref> thing"}',
    ]
    (images / "rows.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    finished = run("ground", images / "rows.jsonl", "--model", model, "--max-new-tokens", 4, "--with-kept")
    assert finished.returncode == 1  # finished, some rows are errors
    rows = rows_of(finished)
    assert [row["id"] for row in rows] == [
        *("images/rows.jsonl:1", 7),
        *(f"images/rows.jsonl:{line}" for line in range(3, 8)),
    ]
    assert [row["error"]["type"] if row["status"] == "error" else None for row in rows] == [
        *(None, None, "image_missing", "bad_json", "bad_expression", "bad_box", None)
    ]
    assert all(row["id"] in row["error"]["message"] for row in rows if row["status"] == "error")
    first = rows[0]
    assert list(first) == [
        *("id", "image", "expression", "status", "box", "boxes", "score", "gold", "iou", "answer", "width", "height"),
        *("visual_tokens", "kept_tokens", "method", "layer", "image_id", "source", "meta", "kept"),
        "tiles",
    ]
    assert first["tiles"] == {"columns": 2, "rows": 2, "thumbnail": True, "side": 2}
    assert (first["method"], first["layer"], first["visual_tokens"], first["kept_tokens"]) == ("deep-layer", 6, 20, 2)
    assert (first["gold"], first["meta"], first["width"]) == ([10, 20, 100, 120], {"kind": "place"}, 224)
    assert b"7 rows" in finished.stderr
    assert b"4 errors" in finished.stderr
    assert b"\r" not in finished.stderr  # no progress bar where nobody looks

    other = run(
        "ground", "-", "--model", model, "--max-new-tokens", 4, "--image-root", images, stdin=b"\n".join(lines[:2])
    )
    assert other.returncode == 0
    assert [row["id"] for row in rows_of(other)] == ["1", 7]
    assert [row["answer"] for row in rows_of(other)] == [row["answer"] for row in rows[:2]]


def test_a_folder_of_images(images, model):
    asked = ["-e", "the dog", "-e", "cat=the black cat"]
    finished = run("ground", images, *asked, "--model", model, "--method", "none", "--max-new-tokens", 2)
    rows = rows_of(finished)
    assert finished.returncode == 0
    assert len(rows) == 2 * N_IMAGES
    assert [row["id"] for row in rows[:2]] == ["images/a_square_224.png#1", "images/a_square_224.png#cat"]
    assert rows[1]["meta"] == {"label": "cat"}
    assert {row["layer"] for row in rows} == {None}

    limited = run("ground", images, "-e", "the dog", "--shard", "1/2", "--limit", 1, DEEPLAYER_MODEL=model)
    assert [row["image"] for row in rows_of(limited)] == ["images/b_wide_320x120.png"]


def test_output_file(images, model, tmp_path):
    output = tmp_path / "out.jsonl"
    arguments = ["ground", images, "-e", "the dog", "--model", model, "--max-new-tokens", 2, "-o", output]
    finished = run(*arguments)
    assert (finished.returncode, finished.stdout) == (0, b"")
    written = output.read_bytes()
    assert len(written.splitlines()) == N_IMAGES
    assert "--overwrite" in refusal(run(*arguments))
    assert output.read_bytes() == written
    assert run(*arguments, "--overwrite").returncode == 0
    assert output.read_bytes() == written


def test_a_writer_may_wait_for_its_answers(images, model):
    """A row from a pipe is answered when it is there, not when the next batch is full."""
    arguments = [*COMMAND, "ground", "-", "--model", str(model), "--max-new-tokens", "2", "--image-root", str(images)]
    row = b'{"id": %d, "image": "a_square_224.png", "expression": "dog"}\n\n'
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        for number in range(3):
            process.stdin.write(row % number)
            process.stdin.flush()
            assert orjson.loads(process.stdout.readline())["id"] == number
        process.stdin.close()
        assert process.stdout.read() == b""
    assert process.returncode == 0


def test_a_union_is_asked_whole_also_on_resuming(images, model, tmp_path):
    rows, output = images / "rows.jsonl", tmp_path / "out.jsonl"
    lines = [
        b'{"id": "%s-%s", "image": "%s", "expression": "the %s"}\n' % (image[:1], word, image, word)
        for image in (b"a_square_224.png", b"b_wide_320x120.png")
        for word in (b"dog", b"man", b"red")
    ]
    rows.write_bytes(b"".join(lines))
    arguments = ["ground", rows, "--model", model, "--max-new-tokens", 2, "--share", "union", "-o", output]
    assert run(*arguments).returncode == 0
    whole = output.read_bytes()
    assert all(row["share"] == "union" and row["kept_tokens"] >= 2 for row in map(orjson.loads, whole.splitlines()))
    output.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    assert run(*arguments, "--resume").returncode == 0
    assert output.read_bytes() == whole
    assert "union was true and is now false" in refusal(run(*arguments[:-4], "-o", output, "--resume"))
    rows.write_bytes(b"".join(lines[::2] + lines[1::2]))
    assert "sort the rows by image" in refusal(run(*arguments, "--overwrite"))
    assert output.read_bytes() == whole
    assert "leave out --limit" in refusal(run(*arguments, "--limit", 3))


def test_shards_of_a_union_merge_into_the_whole(tmp_path):
    asked = ["sample_data", "--model", "demo", "--share", "union", "--batch-size", 1, "-o"]
    assert run("ground", *asked, tmp_path / "whole").returncode == 0
    parts = [tmp_path / f"part-{index}" for index in range(2)]
    for index, part in enumerate(parts):
        assert run("ground", *asked, part, "--shard", f"{index}/2").returncode == 0
    merged = run("data", "merge", *parts, "-o", tmp_path / "merged")
    assert merged.returncode == 0 and b"108 rows from 2 parts" in merged.stderr
    assert (tmp_path / "merged").read_bytes() == (tmp_path / "whole").read_bytes()
    assert "exists: --overwrite" in refusal(run("data", "merge", *parts, "-o", tmp_path / "merged"))
    assert "is also an input" in refusal(run("data", "merge", *parts, "-o", parts[0], "--overwrite"))
    assert "missing: shard 1/2" in refusal(run("data", "merge", parts[0], "-o", tmp_path / "other"))


def test_a_profile_is_of_this_run(tmp_path):
    output = tmp_path / "out.jsonl"
    arguments = ["ground", "sample_data", "--model", "demo", "-o", output, "--profile"]
    assert run(*arguments, "--limit", 8).returncode == 0
    told = run(*arguments, "--limit", 12, "--resume")
    assert b"where the time went" in told.stderr and b"peak memory" in told.stderr
    profile = orjson.loads((tmp_path / "out.jsonl.run.json").read_bytes())["profile"]
    phases = {"wait for images", "copy", "vision", "prefix", "suffix", "select", "finish", "decode", "rest"}
    assert phases == set(profile["seconds"]) and min(profile["seconds"].values()) > 0
    assert set(profile["worker_seconds"]) == {"read and decode", "tile"}
    seconds = 4 / profile["rows_per_second"]  # of this run, not of the whole file
    assert sum(profile["seconds"].values()) == pytest.approx(seconds)
    printed = re.search(rb"12 rows in ([\d.]+) s", told.stderr)
    assert seconds == pytest.approx(float(printed[1]), abs=0.051), "as the summary has it"
    assert profile["tokens_per_second"] > 4 * 5 / seconds
    assert 0 < profile["device_idle"] < 1 and profile["peak_bytes"] > 2**27


def test_it_says_when_pruning_does_not_pay(images, model):
    asked = [part for number in range(12) for part in ("-e", f"thing {number}")]
    finished = run("ground", images, *asked, "--model", model, "--max-new-tokens", 1, "--keep", 0.9)
    assert finished.returncode == 0
    assert b"pruning costs more than not pruning: --method none" in finished.stderr
    finished = run("ground", images, *asked[:2], "--model", model, "--max-new-tokens", 1)
    assert b"costs more" not in finished.stderr


def test_a_reader_that_leaves(images, model):
    arguments = [
        *COMMAND,
        "ground",
        str(images),
        "-e",
        "dog",
        "--model",
        model,
        "--max-new-tokens",
        "2",
        "--batch-size",
        "1",
    ]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        errors = process.stderr.read().decode()
    assert process.returncode == 1
    assert errors == ""


def test_what_is_read_is_never_written(images, model):
    rows = images / "rows.jsonl"
    rows.write_text('{"image": "a_square_224.png", "expression": "the red circle"}\n')
    before = rows.read_bytes()
    with rows.open("rb") as stdin:
        arguments = [*COMMAND, "ground", "-", "-o", str(rows), "--overwrite", "--model", model]
        assert subprocess.run(arguments, stdin=stdin, capture_output=True, timeout=200).returncode == 2
    with rows.open("ab") as stdout:
        arguments = [*COMMAND, "ground", str(rows), "--model", model]
        assert subprocess.run(arguments, stdout=stdout, stderr=subprocess.PIPE, timeout=200).returncode == 2
    assert rows.read_bytes() == before


def test_no_rows_is_no_failure(model):
    finished = run("ground", "-", "--model", model, stdin=b"")
    assert (finished.returncode, finished.stdout) == (0, b"")
    assert b"0 rows" in finished.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--method", "fastvv"], "'fastvv'"),
        (["--keep", "0"], "--keep"),
        (["--keep", "banana"], "--keep"),
        (["--keep-tokens", "0"], "--keep-tokens"),
        (["--layer", "16"], "layer 16 is out of range"),
        (["--shard", "2/2"], "2/2"),
        (["--batch-size", "0"], "--batch-size"),
        (["--seed", "9" * 23], "--seed must be"),
        (["--keep-tokens", "9" * 80], "--keep-tokens must be between"),
        (["--layer", "9" * 5000], "--layer"),
        (["--dtype", "int3"], "int3"),
        (["--attention", "slow"], "slow"),
        (["--model", "./no/such/folder"], "no/such/folder"),
        (["-e", ""], "-e"),
        (["--max-tiles", "99999999999"], "--max-tiles must be at most 1024"),
        (["--workers", "99999999999"], "--workers must be at most 1024"),
        (["-o", ""], "is a folder"),
    ],
)
def test_wrong_settings_are_one_sentence(images, model, arguments, named):
    # Within this process: a new one would import torch each time.
    finished = CliRunner().invoke(app, ["ground", str(images), "-e", "the dog", "--model", model, *arguments])
    assert isinstance(finished.exception, DeeplayerError) and finished.stdout == ""
    assert named in str(finished.exception) and "\n" not in str(finished.exception)


@pytest.mark.parametrize("error", ["MemoryError()", "torch.OutOfMemoryError('CUDA out of memory')"])
def test_too_little_memory_is_one_sentence(images, error):
    program = f"import torch\nfrom deeplayer_cli.app import main\ndef prepare(*_, **__): raise {error}\nmain(prepare)"
    arguments = ["ground", images, "-e", "the dog", "--model", "demo"]
    finished = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, timeout=100)
    assert "out of memory: free some" in refusal(finished)


@pytest.mark.parametrize("command", ["demo scenes", "demo train"])
def test_a_folder_to_write_is_no_file(images, command):
    file = images / "requests.jsonl"
    file.touch()
    assert "is not a folder that can be written" in refusal(run(*command.split(), "-o", file))


@pytest.mark.parametrize("command", ["ground", "compare", "sweep", "diagnose"])
def test_a_seed_is_not_negative(images, command):
    assert "--seed must be a whole number of at least 0" in refusal(run(command, images, "--seed", "-1"))


@pytest.mark.parametrize(
    "command", ["demo train --seed", "demo train --threads", "demo scenes --seed", "bench prefill --threads"]
)
def test_numbers_of_more_than_64_bits_are_refused(tmp_path, command):
    where = ["-o", tmp_path / "out"] if command.startswith("demo") else []
    assert command.split()[-1] in refusal(run(*command.split(), "9" * 23, *where))
    assert not (tmp_path / "out").exists()


def test_wrong_sources_are_one_sentence(images, model, tmp_path):
    assert "nothing.jsonl does not exist" in refusal(run("ground", tmp_path / "nothing.jsonl", "--model", model))
    assert "no expressions for" in refusal(run("ground", images, "--model", model))


@pytest.fixture
def predictions(tmp_path):
    box, gold = [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 20.0]
    rows = [
        {"id": "a", "image": "1", "status": "ok", "box": box, "gold": gold, "answer": "[[0,0,500,1000]]", "kind": "x"},
        {"id": "b", "image": "1", "status": "ok", "box": gold, "gold": gold, "answer": "[[0,0,500,1000]]", "kind": "y"},
        {"id": "c", "image": "2", "status": "no_box", "box": None, "gold": gold, "answer": "no", "kind": "y"},
        {"id": "d", "image": "3", "status": "error", "box": None, "gold": gold, "answer": None, "kind": "y"},
    ]
    path = tmp_path / "predictions.jsonl"
    for row in rows:
        row |= {"expression": "x", "width": 20, "height": 20, "meta": {"kind": row.pop("kind")}}
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def test_score(predictions):
    report = orjson.loads(run("score", predictions, "--json", "--by", "kind").stdout)
    assert report["acc@0.5"] == 0.5
    assert (report["n"], report["n_no_box"], report["n_error"]) == (4, 1, 1)
    assert report["groups"]["x"]["acc@0.5"] == 1.0
    assert report["groups"]["y"]["acc@0.5"] == 1 / 3
    again = orjson.loads(run("score", predictions, "--json", "--rule", "strict").stdout)
    assert again["acc@0.75"] == 0.5
    table = run("score", predictions, "--by", "kind").stdout.decode()
    assert "50.0%" in table
    assert "33.3%" in table


def test_wrong_scores_are_one_sentence(predictions, tmp_path):
    assert "'nothing'" in refusal(run("score", predictions, "--by", "nothing"))
    assert "no.jsonl" in refusal(run("score", tmp_path / "no.jsonl"))
    predictions.write_bytes(predictions.read_bytes() * 2)
    assert "'a' comes twice, again in row " in refusal(run("score", predictions))
    predictions.write_bytes(b"")
    assert "has no rows: there is nothing to score" in refusal(run("score", predictions))


def test_verify(model, images):
    finished = run("verify", model)
    assert finished.returncode == 0
    assert b"8 of 8 equal to transformers' generate()" in finished.stdout
    (images / "rows.jsonl").write_text('{"image": "a_square_224.png", "expression": "the red circle"}\n')
    half = run("verify", model, "--dtype", "bf16", "--data", images / "rows.jsonl")
    assert half.returncode == 0
    assert b"answers, bfloat16" in half.stdout
    assert b"1 of 1 equal" in half.stdout


def test_compare_prints_a_table_that_fits():
    arguments = ["compare", "sample_data/requests.jsonl", "--model", "demo", "--limit", "4", "--methods", "random"]
    finished = run(*arguments, COLUMNS="80")
    table = finished.stdout.decode()
    assert finished.returncode == 0 and finished.stderr == b""
    assert "random" in table and max(map(len, table.splitlines())) <= 80
    assert "'x'" in refusal(run(*arguments, "--keep", "x"))
