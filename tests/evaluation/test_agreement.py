from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from deeplayer_cli.evaluation import disagreements
from deeplayer_cli.schema import Prediction
from deeplayer_cli.sinks import RunRecord

if TYPE_CHECKING:
    from pathlib import Path

ROW = Prediction(id=1, image="a.jpg", expression="dog", status="no_box", method="none")
RECORD = RunRecord({"method": "none"}, {}, {"rows": 1, "ok": 0, "no_box": 1, "error": 0})


def test_a_file_and_its_record(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(ROW.to_json())
    assert disagreements(path) == []
    RECORD.save(path)
    assert disagreements(path) == []
    replace(RECORD, counts=None).save(path)
    assert "is not finished" in disagreements(path)[0]
    replace(RECORD, part={"limit": 5, "shard": "0/2"}).save(path)
    assert "answers only a part of its input: its last run had --limit 5 and --shard 0/2" in disagreements(path)[0]
    RECORD.save(path)
    path.write_bytes(ROW.to_json() + replace(ROW, id=2, method="random", status="error").to_json())
    changed, mixed = disagreements(path)
    assert "1 rows, 0 ok, 1 no_box, 0 error; the file has 2 rows, 0 ok, 1 no_box, 1 error" in changed
    assert "method random" in mixed
