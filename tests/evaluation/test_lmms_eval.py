"""The model for lmms-eval, against a stand-in with the contract of lmms-eval 0.7.3, or against what is installed."""

from __future__ import annotations

import abc
import importlib
import importlib.util
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import orjson
import pytest
from PIL import Image

from deeplayer_cli import Grounder
from deeplayer_cli.errors import DeeplayerError

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "sample_data"
ROWS = [orjson.loads(line) for line in (SAMPLES / "requests.jsonl").read_bytes().splitlines()[:10]]
ASK = (
    "All values are floating point numbers bounded between 0 and 1. Please provide the bounding box coordinate of the "
)
ASK += "region this sentence describes: "
FOUR = (
    r"\[\s*(-?\d+(?:\.\d+)?),\s*(-?\d+(?:\.\d+)?),\s*(-?\d+(?:\.\d+)?),\s*(-?\d+(?:\.\d+)?)\s*\]"  # as the task reads
)


class StandIn(abc.ABC):
    is_simple = True

    def __init__(self):
        self.task_dict = {}

    @abc.abstractmethod
    def loglikelihood(self, requests): ...

    @abc.abstractmethod
    def generate_until(self, requests): ...

    @abc.abstractmethod
    def generate_until_multi_round(self, requests): ...


@dataclass(frozen=True)
class Manifest:
    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None


@pytest.fixture
def manifest(monkeypatch):
    """What the entry point gives to lmms-eval."""
    if importlib.util.find_spec("lmms_eval") is None:
        for name, content in {
            "api.model": {"lmms": StandIn},
            "models.registry_v2": {"ModelManifest": Manifest},
        }.items():
            package, module = f"lmms_eval.{name.split('.')[0]}", ModuleType(f"lmms_eval.{name}")
            vars(module).update(content)
            for one in (ModuleType("lmms_eval"), ModuleType(package), module):
                monkeypatch.setitem(sys.modules, one.__name__, one)
        monkeypatch.delitem(sys.modules, "deeplayer_cli.evaluation.lmms_eval.model", raising=False)
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["lmms_eval.models"]
    module, _, name = entry["deeplayer"].partition(":")
    return getattr(importlib.import_module(module), name)()


@pytest.fixture
def load(manifest):
    def load(**options):
        module, _, name = manifest.simple_class_path.rpartition(".")
        model = getattr(importlib.import_module(module), name)(pretrained="demo", device="cpu", **options)
        model.task_dict = {"refcoco_bbox_rec_val": {"val": ROWS}}
        return model

    return load


def asked(question, document, images=1):
    def to_visual(row):
        return [Image.open(SAMPLES / row["image"]).convert("RGB")] * images

    return SimpleNamespace(
        args=(question, {"until": ["ASSISTANT:"]}, to_visual, document, "refcoco_bbox_rec_val", "val")
    )


def test_answers_are_the_boxes_in_fractions(manifest, load):
    assert (manifest.model_id, manifest.chat_class_path) == ("deeplayer", None)
    order = [9, 0, 5, 1, 6, 2, 7, 3, 8, 4]
    requests = [asked(ASK + ROWS[number]["expression"], number) for number in order]
    answers = load(method="deep-layer", keep=0.25, batch_size=4, max_batch_size=None).generate_until(requests)
    wanted = Grounder.load("demo", method="deep-layer", keep=0.25, batch_size=4)
    rows = [row | {"image": str(SAMPLES / row["image"])} for row in ROWS]
    boxes = {row.id: row for row in wanted.ground(rows)}
    for number, answer in zip(order, answers, strict=True):
        row = boxes[ROWS[number]["id"]]
        found = [float(edge) for edge in re.search(FOUR, answer).groups()]
        sides = (row.width, row.height) * 2
        assert [edge * side for edge, side in zip(found, sides, strict=True)] == pytest.approx(row.box, abs=0.01)


def test_rows_in_error_and_without_a_box_count_as_wrong(load, caplog):
    model = load(max_new_tokens=2)  # too short for a box
    long = "the " * 3000
    short, failed = model.generate_until([asked(ASK + "the red circle", 0), asked(ASK + long, 1)])
    assert failed == "" and "counts as wrong" in caplog.text
    assert not re.search(FOUR, short)


def test_what_it_cannot_do_is_said(load):
    model = load(batch_size="auto")
    with pytest.raises(DeeplayerError, match=r'task refcoco_bbox_rec_val asks "Describe it\." about 1 images'):
        model.generate_until([asked("Describe it.", 0)])
    with pytest.raises(DeeplayerError, match="about 2 images"):
        model.generate_until([asked(ASK + "the red circle", 0, images=2)])
    with pytest.raises(DeeplayerError, match="task refcoco_bbox_rec_val asks for the likelihood"):
        model.loglikelihood([asked("x", 0)])
    with pytest.raises(DeeplayerError, match="has several"):
        model.generate_until_multi_round([asked("x", 0)])
    assert model.generate_until([]) == []
    with pytest.raises(DeeplayerError, match="unknown pruning method 'deep'"):
        load(method="deep")
