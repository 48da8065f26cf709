"""The run loop from Python: resume, retry, limits, progress, stopping; with a fake that answers at once."""

from __future__ import annotations

from itertools import islice

import orjson
import pytest
from PIL import Image

from deeplayer_cli import Grounder, run
from deeplayer_cli.errors import DeeplayerError, RowError
from deeplayer_cli.images.loader import LoadedRequest
from deeplayer_cli.schema import Prediction
from deeplayer_cli.sinks import load_record, read_predictions
from tests.tiny import tiny_checkpoint

N_ROWS = 12


class Fake:
    """An answerer of batches of three; what ``failing`` returns true for becomes an error row."""

    answers_whole_images = False

    def __init__(self, failing=lambda row: False, name="fake"):
        self.failing, self.name = failing, name
        self.seconds_saved = 0.0
        self.answered = []

    def deciding(self):
        return {"method": self.name}

    def windows(self, rows, *, stopped):
        rows = iter(rows)
        while not stopped() and (batch := list(islice(rows, 6))):
            yield [LoadedRequest(row, None, None) for row in batch]

    def answer_window(self, window, stopped):
        for start in range(0, len(window), 3):
            if stopped():
                return
            yield [self._one(loaded.request) for loaded in window[start : start + 3]]

    def ground(self, rows, *, stopped):
        for window in self.windows(rows, stopped=stopped):
            for predictions in self.answer_window(window, stopped):
                yield from predictions

    def _one(self, row):
        self.answered.append(row.id)
        if self.failing(row):
            return Prediction.failed(row, RowError("told", f"{row.where}: as told"))
        return Prediction.answered(row, self.name, (10, 10), visual_tokens=4, kept_tokens=2)

    def mean_keep(self, n_visual, n_kept):
        return n_kept / n_visual

    def advice(self):
        return None

    def profile(self, rows, seconds):
        raise NotImplementedError


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = ({"id": number, "image": "a.png", "expression": f"thing {number}"} for number in range(N_ROWS))
    path.write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
    return path


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.jsonl"


def ids(path):
    return [row.id for row in read_predictions(path)]


def test_a_run_is_resumed(source, output):
    seen = []
    first = run(source, Fake(), output, progress=lambda told: seen.append(told), stopped=lambda: len(seen) > 4)
    assert first.stopped and first.n_answered == len(ids(output)) == 6 and first.n_rows == N_ROWS
    assert load_record(output).counts is None, "it has not finished"
    assert [told.prediction and told.prediction.id for told in seen] == [None, *range(6)]
    assert (seen[0].n_left, seen[-1].totals.rows) == (N_ROWS, 6)
    again = Fake()
    second = run(str(source), again, str(output), mode="resume")
    assert again.answered == list(range(6, N_ROWS)) and not second.stopped
    assert second.counts == {"rows": N_ROWS, "ok": 0, "no_box": N_ROWS, "error": 0} == load_record(output).counts
    done = run(source, again, output, mode="resume")
    assert done.n_answered == 0 and done.counts == second.counts


def test_errors_are_retried(source, output):
    assert run(source, Fake(lambda row: row.id % 5 == 0), output).counts["error"] == 3
    again = Fake()
    outcome = run(source, again, output, mode="retry")
    assert again.answered == [0, 5, 10] and outcome.counts["error"] == 0
    assert ids(output) == list(range(N_ROWS)), "in their places"


def test_too_many_failures_end_it(source, output):
    reason = "2 of 6 rows failed, and --max-failures allows 1; the last: .*rows.jsonl:6: as told"
    with pytest.raises(DeeplayerError, match=reason):
        run(source, Fake(lambda row: row.id % 5 == 0), output, max_failures=1)
    assert ids(output) == list(range(6)), "what was written is safe"


def test_a_share_counts_from_the_first_row_that_can_exceed_it(source, output):
    with pytest.raises(DeeplayerError, match="2 of 6 rows failed, and --max-failures allows 10%"):
        run(source, Fake(lambda row: row.id % 5 == 0), output, max_failures="10%")  # of 12 rows
    source.write_bytes(b"".join(b'{"image": "a.png", "expression": "x"}\n' for _ in range(80)))
    ends = {"0%": 1, "5%": 3, "20%": 11, "99%": 50}
    for share, last in ends.items():
        with pytest.raises(DeeplayerError, match=f"^{last} of {last} rows? failed") as raised:
            run(source, Fake(lambda _: True), output, mode="overwrite", max_failures=share)
        assert f"rows.jsonl:{last}: as told" in str(raised.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mode": "again"}, "mode must be new, resume, retry or overwrite, not 'again'"),
        ({"mode": "new"}, "out.jsonl is not empty"),
        ({"mode": "resume", "grounder": Fake(name="other")}, 'method was "fake" and is now "other"'),
        ({"max_failures": "many"}, "'many'"),
        ({"output": "SOURCE"}, "is also an input: write to another file"),
    ],
)
def test_what_is_refused(source, output, change, reason):
    run(source, Fake(), output)
    before = output.read_bytes(), source.read_bytes()
    arguments = {"grounder": Fake(), "output": output, "mode": "overwrite"} | change
    if arguments["output"] == "SOURCE":
        arguments["output"] = source
    with pytest.raises(DeeplayerError, match=reason):
        run(source, **arguments)
    assert (output.read_bytes(), source.read_bytes()) == before


def test_gold_boxes_are_in_the_frame_of_the_run(tmp_path, output):
    """A grounder that turns images reads boxes in the turned ones, as --exif-transpose does."""
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (100, 300)).save(tmp_path / "a.jpg", exif=exif)
    rows = ({"id": n, "image": "a.jpg", "expression": "a", "box": [200, 10, 290, 60]} for n in range(8))
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    turning = Fake()
    turning.deciding = lambda: {"exif_transpose": True}
    assert run(tmp_path / "rows.jsonl", turning, output).counts["rows"] == 8
    with pytest.raises(DeeplayerError, match="fit the images as EXIF turns them"):
        run(tmp_path / "rows.jsonl", Fake(), output, mode="overwrite")


def test_a_grounder_runs(tmp_path, output):
    from PIL import Image

    Image.new("RGB", (60, 60)).save(tmp_path / "a.png")
    (tmp_path / "rows.jsonl").write_text(
        '{"image": "a.png", "expression": "x"}\n{"image": "b.png", "expression": "x"}\n'
    )
    grounder = Grounder(tiny_checkpoint())
    outcome = run(tmp_path / "rows.jsonl", grounder, output)
    assert outcome.counts == {"rows": 2, "ok": 0, "no_box": 1, "error": 1}
    assert load_record(output).settings["dtype"] == "float64"
    assert run(tmp_path / "rows.jsonl", Grounder(tiny_checkpoint()), output, mode="resume").n_answered == 0
    with pytest.raises(DeeplayerError, match="weights was"):
        run(tmp_path / "rows.jsonl", Grounder(tiny_checkpoint("qwen2")), output, mode="resume")
