"""Why rows failed."""

from __future__ import annotations

from deeplayer_cli.runtime.failure_kinds import FailureKinds
from deeplayer_cli.schema import Prediction


def failed(number: int, kind: str) -> Prediction:
    return Prediction(number, None, None, "error", error={"type": kind, "message": f"rows.jsonl:{number}: {kind}!"})


def test_each_kind_has_a_count_and_its_first_message() -> None:
    kinds = FailureKinds()
    for number, kind in enumerate(["late", "early", "late"], start=1):
        kinds.add(failed(number, kind))
    kinds.add(Prediction(4, None, None, "ok"))
    assert kinds.sentences() == [
        "2 rows failed with late, the first: rows.jsonl:1: late!",
        "1 row failed with early: rows.jsonl:2: early!",
    ]


def test_a_file_of_strange_kinds_stays_readable() -> None:
    kinds = FailureKinds()
    for number in range(1200):
        kinds.add(failed(number, f"kind {number}"))
    kinds.add(Prediction("bare", None, None, "error"))
    assert len(kinds.sentences()) == 11
    assert kinds.sentences()[-1] == "1,191 rows failed in 1,191 other ways"
