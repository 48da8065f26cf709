"""Kill 200 runs at random moments and resume each: ``python -m tests.stress.crash [COUNT] [SEED]``.

Output of the run of 2026-11-23: "seed 0: 200 runs killed, 98 of them with some rows written; every one resumed byte for
byte".
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.commands.test_crash import N_ROWS, finished, kill_at_random, noop, write_requests


def main(count: int = 200, seed: int = 0) -> None:
    rng = random.Random(seed)
    with TemporaryDirectory() as name:
        requests = write_requests(Path(name, "requests.jsonl"))
        output = Path(name, "whole.jsonl")
        assert finished(noop("ground", requests, "-o", output))[0] == 0
        left = []
        for number in range(count):
            folder = Path(name, str(number))
            folder.mkdir()
            left.append(kill_at_random(requests, output.read_bytes(), folder, rng))
    inside = sum(0 < rows < N_ROWS for rows in left)
    print(f"seed {seed}: {count} runs killed, {inside} of them with some rows written; every one resumed byte for byte")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
