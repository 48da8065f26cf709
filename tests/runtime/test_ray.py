"""Runs on a Ray cluster: the rows are those of a local run, whoever is killed on the way."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import orjson
import pytest

from deeplayer_cli.runtime.prepare import PreparedRun
from deeplayer_cli.runtime.ray_cluster import import_ray, socket_folder
from deeplayer_cli.runtime.ray_run import RayAnswerer
from deeplayer_cli.runtime.ray_worker import HELD_BLOCKS, RayWorker
from deeplayer_cli.runtime.ray_workers import RayWorkers
from deeplayer_cli.sources import open_source
from tests.commands.test_crash import finished, noop, wait_for, write_requests
from tests.noop import Noop

pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
ray = import_ray()

ROOT = Path(__file__).parents[2]
DEMO = ("sample_data", "--model", "demo", "--batch-size", "1", "--limit", "60")
METHODS = ("--methods", "deep-layer,d2pruner@fallback=0.9,none@max-tiles=1", "--keep", "0.25")


@pytest.fixture(scope="module")
def cluster():
    """The address of a Ray cluster of four CPUs on this machine."""
    os.environ["NOOP_FAIL"] = "thing 7"
    folder = socket_folder()
    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    ray.init("local", num_cpus=4, _temp_dir=folder, **options)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
    del os.environ["NOOP_FAIL"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a local run writes."""
    output = tmp_path_factory.mktemp("whole") / "out.jsonl"
    assert finished(deeplayer("ground", *DEMO, "-o", output))[0] == 0
    return output.read_bytes()


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A local comparison: its command, files and table."""
    folder = tmp_path_factory.mktemp("compared")
    image = ROOT / "sample_data" / "images" / "scene-0000.png"
    assert finished(deeplayer("calibrate", image, "--model", "demo", "-o", folder / "prior"))[0] == 0
    command = ("compare", *DEMO, *METHODS, "--prior", folder / "prior", "--json")
    with (folder / "table").open("wb") as stdout:
        assert finished(deeplayer(*command, "--results", folder / "results", stdout=stdout))[0] == 0
    return command, files_in(folder / "results"), orjson.loads((folder / "table").read_bytes())


def files_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def deeplayer(*arguments, stdout=subprocess.PIPE):
    command = [sys.executable, "-m", "deeplayer_cli", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # as in the workers, of one CPU each
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=-1, cwd=ROOT, env=environment)


def workers():
    """The processes of the workers on the cluster of this test."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            parent = int(status.read_text().partition("PPid:")[2].split()[0])
            grandparent = Path(f"/proc/{parent}/status").read_text().partition("PPid:")[2].split()[0]
            if int(grandparent) == os.getpid() and b"RayWorker" in status.with_name("cmdline").read_bytes():
                found.append(int(status.parent.name))
        except (OSError, IndexError):  # it has just ended
            continue
    return found


def rows_in(folder):
    return sum(map(n_rows, folder.glob("*.jsonl")))


def n_rows(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_worker_is_killed(cluster, whole, tmp_path):
    output = tmp_path / "stdout"
    with output.open("wb") as stdout:
        process = deeplayer("ground", *DEMO, "--ray", cluster, "--num-workers", 2, stdout=stdout)
    wait_for(lambda: n_rows(output) > 3)
    os.kill(workers()[0], signal.SIGKILL)
    code, errors = finished(process)
    assert code == 0 and "2 Ray workers of 1 CPU" in errors and "a Ray worker died" in errors
    assert output.read_bytes() == whole, "Ray prints nothing to stdout either"


def test_the_driver_is_killed(cluster, whole, tmp_path):
    output = tmp_path / "out.jsonl"
    arguments = ("ground", *DEMO, "-o", output, "--ray", cluster, "--num-workers", 2)
    process = deeplayer(*arguments)
    wait_for(lambda: n_rows(output) > 3)
    process.kill()
    process.communicate()
    assert 3 < n_rows(output) < 60 and whole.startswith(output.read_bytes())
    assert finished(deeplayer(*arguments, "--resume"))[0] == 0
    assert output.read_bytes() == whole
    assert orjson.loads(output.with_name("out.jsonl.run.json").read_bytes())["counts"]["rows"] == 60


def test_a_comparison_loses_a_worker_is_stopped_and_goes_on(cluster, compared, tmp_path):
    """The blocks in flight are finished, those of the worker too; later, images travel to another number of workers."""
    command, files, table = compared
    results = tmp_path / "results"
    there = ("--results", results, "--ray", cluster)
    process = deeplayer(*command, *there, "--num-workers", 2)
    wait_for(lambda: rows_in(results) > 12)
    os.kill(workers()[0], signal.SIGKILL)
    process.send_signal(signal.SIGINT)
    code, errors = finished(process)
    assert code == 130 and "2 Ray workers of 1 CPU" in errors and "a Ray worker died" in errors
    assert "finishing the batch" in errors and "the same command continues with the rows in" in errors
    left = {path.name: path.read_bytes() for path in results.glob("*.jsonl")}
    assert len(left) == 3, "one number of tiles after the other"
    assert all(files[name].startswith(rows) and n_rows(results / name) < 60 for name, rows in left.items())
    with (tmp_path / "table").open("wb") as stdout:
        assert finished(deeplayer(*command, *there, "--ship-images", stdout=stdout))[0] == 0
    assert files_in(results) == files, "their records too"
    found = orjson.loads((tmp_path / "table").read_bytes())
    assert found == [{**line, "seconds": None, "speed": None} for line in table]
    assert len(table) == 4 and all(line["gflops"] and line["seconds"] for line in table)


def test_methods_are_matched_as_in_a_local_run(cluster, tmp_path):
    """The command matches without a model: the keeps, and so the names of the files, are those of a local run."""
    few = (*DEMO[:-1], "8", "--methods", "deep-layer,fastv", "--keep", "0.25", "--match", "flops")
    for name, there in (("local", ()), ("cluster", ("--ray", cluster))):
        code, errors = finished(deeplayer("compare", *few, *there, "--results", tmp_path / name))
        assert code == 0, errors
    local = files_in(tmp_path / "local")
    assert files_in(tmp_path / "cluster") == local and len(local) == 6
    assert not any(name.startswith("fastv-keep0.25-") for name in local), "fastv drops earlier: its keep is greater"


def test_images_travel_with_their_rows(cluster, tmp_path):
    """Error rows too are those of a local run: they name the row's own path."""
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "folder.png").mkdir()
    images = sorted((ROOT / "sample_data" / "images").iterdir())[:2]
    names = [str(images[0]), "broken.png", "folder.png", "missing.png", str(images[1]), str(images[0])]
    rows = [{"image": name, "expression": f"the red circle {number}"} for number, name in enumerate(names)]
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    arguments = [sys.executable, "-m", "deeplayer_cli", "ground", "rows.jsonl", "--model", "demo", "--batch-size", "1"]
    local = subprocess.run(arguments, cwd=tmp_path, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    there = subprocess.run([*arguments, "--ray", cluster, "--ship-images"], cwd=tmp_path, capture_output=True)
    assert (local.returncode, there.returncode) == (1, 1), there.stderr.decode()
    assert there.stdout == local.stdout and there.stdout.count(b"\n") == len(names)


class Deadly(Noop):
    """Dies of one row, like a decoder that crashes."""

    def ground(self, rows, *, stopped):
        for prediction in super().ground(rows, stopped=stopped):
            if prediction.expression == "thing 40":
                os.kill(os.getpid(), signal.SIGKILL)
            yield prediction


def prepare_deadly(**arguments):
    return PreparedRun(arguments, lambda: Deadly(2))


def test_a_block_that_kills_every_worker_fails_alone(cluster, tmp_path, caplog):
    actor = ray.remote(num_cpus=1, max_concurrency=HELD_BLOCKS)(RayWorker)
    workers = RayWorkers(ray, partial(actor.remote, prepare_deadly, {"share": "each"}, str(tmp_path)), 2)
    settings = {"share": "each", "batch_size": 2}
    answerer = RayAnswerer(workers, workers.identity(), settings, ship_images=False)
    requests = open_source([str(write_requests(tmp_path / "requests.jsonl", 90))])
    rows = list(answerer.ground(requests, stopped=lambda: False))
    assert [row.id for row in rows] == list(range(90))
    died = [row.id for row in rows if row.error and row.error["type"] == "worker_died"]
    assert died == list(range(36, 45)), "the block of row 40, and no other"
    assert "requests.jsonl:41: 3 Ray workers died while they answered" in rows[40].error["message"]
    assert caplog.text.count("a Ray worker died") == 3


def test_too_few_resources(cluster, tmp_path):
    for options, said in {
        ("--num-workers", 3, "--cpus-per-worker", 2): "3 workers of 2 CPU and 0 GPU need 6 CPU",
        ("--gpus-per-worker", 1): "1 worker of 1 CPU and 1 GPU need 1 GPU, but the Ray cluster has 0",
    }.items():
        code, errors = finished(noop("ground", "sample_data", "-o", tmp_path / "o.jsonl", "--ray", cluster, *options))
        assert code == 2 and said in errors
    assert not (tmp_path / "o.jsonl").exists()


def test_rows_that_come_through_a_pipe_and_fail(cluster, tmp_path):
    requests = write_requests(tmp_path / "requests.jsonl", 30)
    command = [sys.executable, "-m", "tests.noop", "ground", "-", "--ray", cluster, "--batch-size", "2"]
    with requests.open("rb") as stream:
        there = subprocess.run(command, stdin=stream, capture_output=True, cwd=ROOT)
    with requests.open("rb") as stream:
        local = subprocess.run(command[:5], stdin=stream, capture_output=True, cwd=ROOT)
    assert there.returncode == local.returncode == 1, there.stderr.decode()
    assert there.stdout == local.stdout and b"as told" in there.stdout


def test_ctrl_c_finishes_the_blocks_in_flight(tmp_path):
    """The signal goes to the whole process group, as a terminal sends it."""
    requests, output = write_requests(tmp_path / "requests.jsonl", 400), tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "tests.noop", "ground", requests, "-o", output, "--batch-size", "2"]
    process = subprocess.Popen(
        [*command, "--ray", "local", "--num-workers", "2", "--cpus-per-worker", "0.5"],
        env={**os.environ, "NOOP_DELAY": "0.1"},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    wait_for(lambda: n_rows(output) > 3)
    os.killpg(process.pid, signal.SIGINT)
    code, errors = finished(process)
    assert code == 130 and "finishing the batch" in errors and "--resume continues" in errors
    assert "died" not in errors
    assert 3 < n_rows(output) < 400 and n_rows(output) % 9 == 0, "whole images"
    assert [orjson.loads(line)["id"] for line in output.read_bytes().splitlines()] == list(range(n_rows(output)))
    with pytest.raises(ProcessLookupError):  # nothing of Ray is left
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.1)
