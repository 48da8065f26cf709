"""Run a million rows through the engine of ``tests.noop``: ``python -m tests.stress.rows [COUNT]``.

It prints the peak memory, and the rows per second of each tenth of the rows. Results of 2026-11-23 on two shared cores:
1,000,000 rows, 389,861,302 bytes, 7,200 to 8,500 rows/s in all tenths, peak 73 MiB (54 MiB for 50,000 rows; the ids
take 16 bytes per row).
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.commands.test_crash import noop, write_requests


def main(count: int = 1_000_000) -> None:
    with TemporaryDirectory() as name:
        requests, output = write_requests(Path(name, "requests.jsonl"), count), Path(name, "out.jsonl")
        size = count * 389  # approximately
        peak = Path(name, "peak")
        process = noop("ground", requests, "-o", output, NOOP_PEAK=peak)
        marks = []
        while process.poll() is None and len(marks) < 11:
            if output.exists() and output.stat().st_size > size * len(marks) / 10:  # after the first row, a tenth, ...
                marks.append(time.perf_counter())
            time.sleep(0.01)
        assert process.wait() == 0
        size, kib = output.stat().st_size, int(peak.read_text())
        rates = [count / 10 / (end - start) for start, end in pairwise(marks)]
    print(f"{count:,} rows, {size:,} bytes, peak {kib / 1024:.0f} MiB")
    print("rows/s by tenths:", *(f"{rate:,.0f}" for rate in rates))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
