"""Which rows each line of a comparison got right, as one small JSON file.

    python -m deeplayer_cli.evaluation.outcomes RESULTS... > outcomes.json

reads folders of ``compare --results``. From the file alone, any two lines can be compared row by row.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from deeplayer_cli.errors import DeeplayerError, reading
from deeplayer_cli.evaluation.compare import MethodRun
from deeplayer_cli.evaluation.image_keys import image_numbers
from deeplayer_cli.evaluation.results import read_runs

if TYPE_CHECKING:
    from collections.abc import Sequence


def outcomes_json(runs: Sequence[MethodRun]) -> bytes:
    """The runs as JSON, one line of text for each. Rows are in the order of the first run.

    Raises:
        DeeplayerError: a run has other rows than the first one.
    """
    first = runs[0]
    lines = []
    for run in runs:
        right = dict(zip(run.ids, run.right, strict=True))
        if right.keys() != set(first.ids):
            raise DeeplayerError(f"{run.label} and {first.label} did not answer the same rows: finish both first")
        line = {
            "label": run.label,
            "keep": run.keep,
            "layer": run.layer,
            "kept": run.kept,
            "n_rows": run.n_rows,
            "n_no_box": run.n_no_box,
            "n_error": run.n_error,
            "right": "".join("1" if right[row] else "0" for row in first.ids),
        }
        lines.append(orjson.dumps(line))
    images = orjson.dumps(image_numbers(first.images))
    return b'{"images": %b,\n"lines": [\n%b\n]}\n' % (images, b",\n".join(lines))


def read_outcomes(path: Path) -> list[MethodRun]:
    """Read a file of `outcomes_json`; the ids of the rows are their places.

    Raises:
        DeeplayerError: the file cannot be read, or is none.
    """
    with reading(str(path)):
        content = path.read_bytes()
    try:
        found = orjson.loads(content)
        images = tuple(found["images"])
        runs = [
            MethodRun(
                ids=tuple(range(len(images))),
                images=images,
                right=tuple(one == "1" for one in line.pop("right")),
                **line,
            )
            for line in found["lines"]
        ]
        if any(len(run.right) != len(images) for run in runs):
            raise ValueError("a line has more or fewer rows than there are images")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DeeplayerError(f"{path} is not what deeplayer_cli.evaluation.outcomes prints: {error}") from error
    return runs


if __name__ == "__main__":
    parser = ArgumentParser(
        "python -m deeplayer_cli.evaluation.outcomes", description="Print which rows each line got right, as JSON."
    )
    parser.add_argument("RESULTS", type=Path, nargs="+", help="folder of `compare --results`")
    try:
        sys.stdout.buffer.write(outcomes_json(read_runs(parser.parse_args().RESULTS)))
    except DeeplayerError as error:
        parser.exit(2, f"{error}\n")
