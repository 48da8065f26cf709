"""Answerers take turns on the same rows; a row is answered under the settings that lack its answer, and no others."""

from __future__ import annotations

import pickle
import time
from dataclasses import replace
from unittest.mock import patch

import pytest

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.runtime.blocks import Block
from deeplayer_cli.runtime.identity import ModelIdentity
from deeplayer_cli.runtime.ray_worker import ComparingRayWorker
from deeplayer_cli.runtime.settings import Settings
from deeplayer_cli.runtime.turns import LoadedModel, RunLine, answer_each, prepare_model, take_turns
from deeplayer_cli.schema import BadRequest, parse_request
from tests.runtime.test_run import N_ROWS, Fake
from tests.tiny import tiny_checkpoint


def requests(tmp_path, count=N_ROWS):
    return [
        parse_request({"id": n, "image": "a.png", "expression": "x"}, f"row {n}", n, tmp_path) for n in range(count)
    ]


def everything(row):
    return True


def test_a_worker_compares(tmp_path, monkeypatch, caplog):
    """As Ray would call it: it tells the layout, and refuses to answer with another prior."""
    caplog.set_level("INFO", "deeplayer")
    monkeypatch.chdir(tmp_path)  # restores the folder that the worker leaves
    wanted = {"model": "demo", "revision": None, "dtype": "auto", "device": "cpu", "prior": None}
    worker = ComparingRayWorker(prepare_model, wanted, str(tmp_path))
    mine = worker.identity()
    with pytest.raises(DeeplayerError, match=r"different answers: prior is None on .+, and abc elsewhere"):
        worker.load(replace(mine, deciding={**mine.deciding, "prior": "abc"}))
    layout = pickle.loads(pickle.dumps(worker.load(mine)))
    assert layout.config.text_config.num_hidden_layers == 8 and layout.grounding_layer == 6
    settings = [[Settings()], [], [Settings(method="none"), Settings()]]
    answers = worker.answer(requests(tmp_path, 3), {}, settings)
    assert [(row.id, row.method) for row in answers.predictions] == [(0, "deep-layer"), (2, "none"), (2, "deep-layer")]


def test_lines_take_turns_batch_by_batch(tmp_path):
    lines = [RunLine(Fake(), everything), RunLine(Fake(), lambda row: row.id not in (1, 2, 3, 7))]
    turns = [(number, prediction.id) for number, prediction in take_turns(lines, requests(tmp_path), bool)]
    assert turns[:9] == [*((0, n) for n in (0, 1, 2)), *((1, n) for n in (0, 4, 5)), *((0, n) for n in (3, 4, 5))]
    assert [row for number, row in turns if number == 0] == list(range(N_ROWS))
    assert [row for number, row in turns if number == 1] == [0, 4, 5, 6, 8, 9, 10, 11]


def test_a_lines_time_is_its_own_and_what_others_spent_for_it(tmp_path):
    """Dropping either part, or the other lines' time, would change the sum."""
    clock = [0.0]

    class Slow(Fake):
        def __init__(self, own, saved):
            super().__init__()
            self.own, self.saved = own, saved

        def answer_window(self, window, stopped):
            for batch in super().answer_window(window, stopped):
                clock[0] += self.own
                self.seconds_saved += self.saved
                yield batch

    lines = [RunLine(Slow(10.0, 0.0), everything), RunLine(Slow(1.0, 0.25), everything)]
    with patch.object(time, "perf_counter", lambda: clock[0]):
        for _ in take_turns(lines, requests(tmp_path), bool):
            clock[0] += 100.0  # whoever takes the rows
    n_batches = N_ROWS // 3
    assert [line.seconds for line in lines] == [10.0 * n_batches, 1.25 * n_batches]


def test_each_row_is_answered_under_its_own_settings(tmp_path):
    """In the order that a block promises, whatever the order of the layers; bad rows too."""
    model = LoadedModel(tiny_checkpoint(), ModelIdentity("w", "float64"), None)
    none, late, early = Settings(method="none"), Settings(layer=6), Settings(layer=2)
    rows = [*requests(tmp_path, 2), parse_request({"image": "a.png"}, "row 3", 3, tmp_path), *requests(tmp_path, 6)[4:]]
    assert isinstance(rows[2], BadRequest)
    settings = [[none, late, early], [late], [early, none], [], [late, none]]
    answers = list(answer_each(model, rows, settings))
    asked = [(row.id, one) for row, wanted in zip(rows, settings, strict=True) for one in wanted]
    assert [row.id for row in Block(rows, settings).answered_rows] == [row_id for row_id, _ in asked]
    assert [(answer.id, answer.layer) for answer in answers] == [(row_id, one.layer) for row_id, one in asked]
    assert all(answer.status == "error" for answer in answers), "there is no a.png"
    assert Block(rows).answered_rows == rows
