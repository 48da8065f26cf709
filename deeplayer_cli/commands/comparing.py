"""What the commands that run several methods on the same rows have in common."""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

import typer

from deeplayer_cli.commands import options
from deeplayer_cli.commands.progress import ProgressBar
from deeplayer_cli.commands.requests import open_requests
from deeplayer_cli.commands.stopping import stoppable
from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from deeplayer_cli.evaluation.running import ComparisonRunner
    from deeplayer_cli.runtime.run import RunProgress
    from deeplayer_cli.runtime.turns import ComparedModel
    from deeplayer_cli.schema import Prediction
    from deeplayer_cli.sources import Requests

_Model = TypeVar("_Model", bound="ComparedModel")

logger = logging.getLogger("deeplayer")


def open_repeatable(
    source: Sequence[str],
    image_root: Path | None,
    limit: int | None,
    from_format: str | None,
    box_format: options.BoxFormatName | None,
    results: Path | None,
) -> Requests:
    """Open the rows; refuse a source that can be read only once.

    Arguments are as in `open_requests`; ``results`` is the folder for the rows of all methods.
    """
    requests = open_requests(
        source,
        from_format=from_format,
        embedded=None if results is None else results / "images",
        image_root=image_root,
        confined=True,
        box_format=box_format.value if box_format else None,
        limit=limit,
    )
    if not requests.repeatable:
        raise DeeplayerError("every method reads the rows again, and a pipe can be read only once: give a file")
    return requests


@contextmanager
def comparing(
    load: Callable[[], _Model],
    requests: Requests,
    source: Sequence[str],
    circumstances: Mapping[str, object],
    results: Path | None,
    split_of: Callable[[Prediction], str] | None = None,
) -> Iterator[tuple[_Model, ComparisonRunner, Callable[[RunProgress], None]]]:
    """Load a model and yield it, what runs methods with it, and what shows their progress.

    After a signal, the methods that run inside end in good order, and so does the command.

    Args:
        load: loads the model.
        requests: from `open_repeatable`.
        source: as the command names it.
        circumstances: from `circumstances_of`.
        results: the folder for the rows of all methods; None for a temporary one.
        split_of: names the split of a row.
    """
    from deeplayer_cli.evaluation.running import ComparisonRunner, Stopped

    with _result_folder(results, source) as folder, stoppable() as stop, ProgressBar() as bar:
        with stop.loading():
            model = load()
            runner = ComparisonRunner(model, requests, folder, circumstances, lambda: stop.requested, split_of)
        try:
            yield model, runner, bar.show
        except Stopped:
            logger.info("stopped%s", f": the same command continues with the rows in {results}" if results else "")
            raise typer.Exit(stop.exit_code) from None


@contextmanager
def _result_folder(results: Path | None, source: Sequence[str]) -> Iterator[Path]:
    """Yield the folder for the rows of all methods: ``results``, or a temporary folder if it is None."""
    from deeplayer_cli.errors import writing
    from deeplayer_cli.sinks.output_file import refuse_folder

    if results is None:
        with TemporaryDirectory() as folder:
            yield Path(folder)
        return
    target = Path(os.path.realpath(results))  # unlike Path.resolve, it raises nothing where links form a circle
    if any(target in (real := Path(os.path.realpath(one)), real.parent) for one in source):
        raise DeeplayerError(f"--results {results} contains the requests: name another folder")
    refuse_folder(results)
    with writing(str(results)):
        results.mkdir(exist_ok=True)
    yield results
