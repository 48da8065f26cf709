"""Coverage-guided fuzzing of the readers of untrusted input: ``python -m tests.stress.fuzz [SECONDS] [SEED]``.

All targets get the same time. An input that reaches a new line of the package is added to the corpus, and mutated
further. A target may refuse an input with the errors that it documents. Any other error ends the script and prints the
input.
"""

from __future__ import annotations

import io
import random
import sys
import time
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import orjson
from PIL import Image

from deeplayer_cli.checkpoints.files import read_json, stored_tensors
from deeplayer_cli.errors import DeeplayerError, RowError
from deeplayer_cli.images.decode import FORMATS, open_image
from deeplayer_cli.schema import Prediction
from deeplayer_cli.schema.answer_rules import ANSWER_RULES, parse_answer
from deeplayer_cli.sources.jsonl import JsonLines

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

PACKAGE = str(Path(__file__).parents[2] / "deeplayer_cli")
SLOW = 10.0  # seconds; an input that takes longer counts as a hang

Target = tuple["Callable[[bytes], None]", list[bytes]]


def targets(folder: Path) -> dict[str, Target]:
    path = folder / "input.jsonl"

    def read_rows(data: bytes) -> None:
        path.write_bytes(data)
        source = JsonLines(path, folder, confined=True)
        rows = list(source.rows())
        lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        assert len(rows) == sum(1 for line in lines if line.rstrip(b"\r").strip()), "a row was lost"
        for row in rows:
            orjson.loads(Prediction(row.id, row.image, row.expression, "no_box", meta=row.meta).to_json())

    def read_prediction(data: bytes) -> None:
        try:
            row = Prediction.from_json(data)
        except ValueError:
            return
        assert Prediction.from_json(row.to_json()).id == row.id

    def read_answer(data: bytes) -> None:
        for rule in ANSWER_RULES:
            parse_answer(data.decode("utf-8", "replace"), (640, 480), rule)

    def read_checkpoint(data: bytes) -> None:
        for name in ("model.safetensors.index.json", "model.safetensors"):
            (folder / name).unlink(missing_ok=True)
        index = folder / ("model.safetensors" if data[:1] != b"{" else "model.safetensors.index.json")
        index.write_bytes(data)
        for read in (read_json, lambda _: stored_tensors(folder)):
            try:
                read(index)
            except DeeplayerError as error:
                assert "\n" not in str(error)

    def read_image(data: bytes) -> None:
        (folder / "image").write_bytes(data)
        try:
            assert open_image(folder / "image", max_pixels=10**6).mode == "RGB"
        except RowError as error:
            assert error.kind in ("image_broken", "image_too_large", "image_unsupported")

    row = b'{"id": 1, "image": "a.jpg", "expression": "dog", "bbox": [1, 2, 3.5, 4e1], "width": 9, "height": 9}\n'
    prediction = Prediction(1, "a", "b", "ok", box=(1.0, 2.0, 3.0, 4.0), answer="x").to_json()
    return {
        "rows": (read_rows, [row, b"\xef\xbb\xbf" + row + b"\r\n\n" + row]),
        "predictions": (read_prediction, [prediction]),
        "answers": (read_answer, [b"<ref>x</ref><box>[[1, 2, 3, 4], [5,6,7,8]]</box>", b"[0.1, 0.2, 0.3, 1.5] -5 1e9"]),
        "checkpoints": (
            read_checkpoint,
            [b'{"weight_map": {"a": "model.safetensors"}}', (8).to_bytes(8, "little") + b'{"a":{}}'],
        ),
        "images": (read_image, [picture(name) for name in FORMATS]),
    }


def picture(name: str) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((9, 7), 50).convert("RGB").save(buffer, format=name)
    return buffer.getvalue()


def mutate(rng: random.Random, corpus: list[bytes]) -> bytes:
    data = bytearray(rng.choice(corpus))
    for _ in range(rng.randint(1, 6)):
        place = rng.randint(0, len(data))
        kind = rng.randrange(5)
        if kind == 0:
            data[place:place] = rng.randbytes(rng.randint(1, 4))
        elif kind == 1:
            del data[place : place + rng.randint(1, 8)]
        elif kind == 2 and data:
            data[place % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 3:
            other = rng.choice(corpus)
            start = rng.randint(0, len(other))
            data[place:place] = other[start : start + rng.randint(1, 40)]
        else:
            words = (b"null", b"1e999", b"-1", b"[[", b"{}", b'"', b"\\ud800", b"\n", b"\0", b"9" * 30, b"true")
            data[place:place] = rng.choice(words)
    return bytes(data[:4096])


def lines_reached(target: Callable[[bytes], None], data: bytes) -> set[tuple[str, int]]:
    reached: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, _: object) -> object:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            reached.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        target(data)
    finally:
        sys.settrace(None)
    return reached


def fuzz(name: str, target: Callable[[bytes], None], corpus: list[bytes], seconds: float, rng: random.Random) -> str:
    known: set[tuple[str, int]] = set()
    runs, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        data = corpus[runs] if runs < len(corpus) else mutate(rng, corpus)
        begun = time.monotonic()
        try:
            reached = lines_reached(target, data)
        except Exception:
            traceback.print_exc()
            sys.exit(f"{name} failed on {data!r}")
        if time.monotonic() - begun > SLOW:
            sys.exit(f"{name} took too long over {data!r}")
        if not reached <= known:
            known |= reached
            corpus.append(data)
        runs += 1
    return f"{name}: {runs:,} inputs, {len(known)} lines of the package reached, corpus of {len(corpus)}"


def main(seconds: int = 60, seed: int = 0) -> None:
    with TemporaryDirectory() as folder:
        for name, (target, corpus) in (all_targets := targets(Path(folder))).items():
            print(fuzz(name, target, list(corpus), seconds / len(all_targets), random.Random(seed)))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
