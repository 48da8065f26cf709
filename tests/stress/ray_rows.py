"""Run rows through two Ray workers with the engine of ``tests.noop``: ``python -m tests.stress.ray_rows [COUNT]``.

It prints the bytes that travel for a row of ``sample_data``. Then it runs a tenth of the rows, and all of them, on two
workers, without a cluster, again with ``--resume``, when nothing is left to do, and one shard of them. It prints the
time with start and end, the peak memory of the driver, and what one more row of the input takes: time, CPU time of the
driver, and its memory. Results of 2026-11-28 for 50,000 rows, on two shared cores that were busy with other work, which
the CPU times do not count:

    bytes a row: 207 to a worker, 270 back
    two workers: 50,000 rows in 39.8 s, peak 144 MiB; one more row: 247 us, 141 us of CPU, 66 bytes
    no cluster: 50,000 rows in 42.5 s, peak 56 MiB; one more row: 796 us, 200 us of CPU, 51 bytes
    nothing left: 50,000 rows in 32.8 s, peak 56 MiB; one more row: 618 us, 139 us of CPU, 49 bytes
    one shard of ten: 50,000 rows in 11.2 s, peak 56 MiB; one more row: 199 us, 56 us of CPU, 46 bytes

For 10,000 rows: two workers, 19.4 s, peak 142 MiB, one more row 283 us and 158 us of CPU.
"""

from __future__ import annotations

import pickle
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from deeplayer_cli.runtime.blocks import BlockAnswers
from deeplayer_cli.sources import open_source
from tests.commands.test_crash import ROOT, finished, noop, write_requests
from tests.noop import answer

RUNS = {
    "two workers": ("--overwrite", "--ray", "local", "--num-workers", 2),
    "no cluster": ("--overwrite",),
    "nothing left": ("--resume",),
    "one shard of ten": ("--overwrite", "--shard", "0/10"),
}


class Measured(NamedTuple):
    """What a run took: seconds with start and end, CPU seconds of the driver, and its peak memory in bytes."""

    seconds: float
    cpu: float
    peak: int


def main(count: int = 10_000) -> None:
    rows = list(open_source([str(ROOT / "sample_data")]))
    sizes = (len(pickle.dumps(one, protocol=5)) / len(rows) for one in (rows, BlockAnswers(list(map(answer, rows)))))
    print("bytes a row: {:.0f} to a worker, {:.0f} back".format(*sizes))
    with TemporaryDirectory() as name:
        few, all_rows = (
            {run: measure(Path(name), n, *options) for run, options in RUNS.items()} for n in (count // 10, count)
        )
    more = count - count // 10
    for run, whole in all_rows.items():
        seconds, cpu, peak = (after - before for after, before in zip(whole, few[run], strict=True))
        print(
            f"{run}: {count:,} rows in {whole.seconds:.1f} s, peak {whole.peak / 2**20:.0f} MiB; one more row: "
            f"{1e6 * seconds / more:.0f} us, {1e6 * cpu / more:.0f} us of CPU, {peak / more:.0f} bytes"
        )


def measure(folder: Path, count: int, *options: object) -> Measured:
    """Run ``count`` rows."""
    requests, output = write_requests(folder / f"{count}.jsonl", count), folder / f"{count}.out"
    peak, cpu = folder / "peak", folder / "cpu"
    begun = time.perf_counter()
    code, errors = finished(noop("ground", requests, "-o", output, *options, NOOP_PEAK=peak, NOOP_CPU=cpu))
    seconds = time.perf_counter() - begun
    assert code == 0 and ("--shard" in options or output.read_bytes().count(b"\n") == count), errors
    return Measured(seconds, float(cpu.read_text()), 1024 * int(peak.read_text()))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
