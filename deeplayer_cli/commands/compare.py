"""``deeplayer compare``."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from deeplayer_cli import __version__
from deeplayer_cli.commands import comparison_table, options
from deeplayer_cli.commands.options import INPUT, OUTPUT, PRUNING, option
from deeplayer_cli.commands.stopping import stoppable
from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from deeplayer_cli.evaluation.compare import Run
    from deeplayer_cli.evaluation.matching import Unreachable
    from deeplayer_cli.evaluation.running import Runner
    from deeplayer_cli.grounder import Settings
    from deeplayer_cli.sinks import RunRecord
    from deeplayer_cli.sources import Requests

_CHANGES = {"layer": "layer", "max-tiles": "max_tiles"}
"""What may follow a method's name and an @, and the setting that it is."""


_WITHOUT_A_RUN = {"from_", "reference", "csv", "plot", "json"}
"""The options that mean something where results are read and nothing is run."""

logger = logging.getLogger("deeplayer")


class Match(StrEnum):
    """What the methods of a comparison have in common."""

    KEEP = "keep"
    MEAN_KEEP = "mean-keep"
    FLOPS = "flops"


def compare(
    context: typer.Context,
    source: Annotated[
        list[str] | None, typer.Argument(help="Requests with gold boxes, as `ground` takes them.", show_default=False)
    ] = None,
    methods: Annotated[
        str,
        option(
            "--methods",
            help="Names, separated by commas; `none` is always run. `deep-layer@layer=8` and `none@max-tiles=2` are "
            "a method with a layer, or fewer tiles, of its own.",
            rich_help_panel=PRUNING,
        ),
    ] = "deep-layer,random",
    keep: Annotated[
        str, option("--keep", help="Shares of visual tokens, separated by commas.", rich_help_panel=PRUNING)
    ] = "0.1",
    match: Annotated[
        Match,
        option(
            "--match",
            help="`keep`: every method keeps --keep. `mean-keep`, `flops`: the first one does, and each other what "
            "makes its mean keep, or its FLOPs, equal to the first's.",
            rich_help_panel=PRUNING,
        ),
    ] = Match.KEEP,
    reference: Annotated[
        str, option("--reference", help="The method that the others are compared with, row by row.")
    ] = "none",
    layer: options.Layer = None,
    prior: options.Prior = None,
    limit: Annotated[int | None, option("--limit", min=1, help="The first N rows only.", rich_help_panel=INPUT)] = None,
    image_root: Annotated[
        Path | None,
        option("--image-root", help="Folder that relative image paths start from.", rich_help_panel=INPUT),
    ] = None,
    from_: Annotated[
        list[Path] | None,
        option(
            "--from",
            help="Compare what such folders of --results hold, without a model; repeatable.",
            rich_help_panel=INPUT,
            show_default=False,
        ),
    ] = None,
    results: Annotated[
        Path | None,
        option(
            "--results",
            help="Folder to keep the rows in: the same command again goes on where this one was stopped.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    csv: Annotated[
        Path | None, option("--csv", help="Write the lines to this file as well.", rich_help_panel=OUTPUT)
    ] = None,
    plot: Annotated[
        Path | None,
        option("--plot", help="Draw accuracy against cost: a .png, .svg or .pdf.", rich_help_panel=OUTPUT),
    ] = None,
    model: options.Model = "OpenGVLab/InternVL2_5-8B",
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    max_tiles: options.MaxTiles = None,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 32,
    json: options.Json = False,
) -> None:
    """Run several methods on the same rows with one loaded model, and compare each with one of them, row by row."""
    from deeplayer_cli import evaluation

    _refuse_bad_outputs(csv, plot)
    if bool(source) == bool(from_):
        raise DeeplayerError("a comparison is of requests, or of folders given with --from: give one of the two")
    unreachable: list[Unreachable] = []
    if from_:
        _refuse_options_of_a_run(context)
        runs = _recorded(from_)
    else:
        from deeplayer_cli.evaluation.running import Stopped
        from deeplayer_cli.grounder import Settings

        base = Settings(method="none", max_tiles=max_tiles, seed=seed, batch_size=batch_size)
        wanted = [one for text in methods.split(",") if (one := _wanted(text, base, layer, prior)) != base]
        plan = _Plan(base, wanted, _shares(keep), match, reference)
        plan.refuse_impossible()
        source = source or []
        requests = _requests(source, image_root, limit)
        weights = {"revision": revision, "dtype": dtype, "device": device}
        circumstances = {"version": __version__, "source": source, "model": model, "revision": revision}
        with _folder(results, source) as folder, stoppable() as stop:
            runner = _runner(model, weights, circumstances, requests, folder, lambda: stop.requested)
            try:
                runs, unreachable = plan.run(runner)
            except Stopped:
                logger.info("stopped%s", f": the same command goes on with what {results} holds" if results else "")
                raise typer.Exit(stop.exit_code) from None
    lines = evaluation.compare(runs, runs[evaluation.line_called(reference, [run.label for run in runs])])
    if csv:
        from deeplayer_cli.report.lines import write_csv

        write_csv(lines, csv)
    if plot:
        from deeplayer_cli.report import tradeoff

        tradeoff.plot(lines, plot)
    if json:
        rows = [line.to_dict() for line in lines] + [one.to_dict() for one in unreachable]
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
    else:
        comparison_table.show(lines, unreachable, reference)


@dataclass(frozen=True)
class _Plan:
    """What to run.

    Attributes:
        base: the settings that prune nothing; always run.
        wanted: the others, without their ``keep``.
        shares: the keeps.
        match: what the methods have in common.
        reference: the line that the others are compared with.
    """

    base: Settings
    wanted: Sequence[Settings]
    shares: Sequence[float]
    match: Match
    reference: str

    def refuse_impossible(self) -> None:
        """Find out now what could not be compared later.

        Raises:
            DeeplayerError: there is no such reference, or nothing to match the others with.
        """
        from deeplayer_cli.evaluation import line_called
        from deeplayer_cli.evaluation.matching import at_equal_keep, label_of, require_measure

        line_called(self.reference, [label_of(one) for one in (self.base, *at_equal_keep(self.wanted, self.shares))])
        require_measure(self.wanted, self.match.value)

    def run(self, runner: Runner) -> tuple[list[Run], list[Unreachable]]:
        """Run it all; returns the runs, and the methods that no keep makes as costly as the first."""
        from deeplayer_cli.evaluation import line_called
        from deeplayer_cli.evaluation.matching import Unreachable, label_of

        for one in self.wanted:
            runner.method(one)  # what this model cannot run is said before hours of work
        runs = _run(runner, [self.base])
        lines = self._lines(runner)
        reachable = [one for one in lines if not isinstance(one, Unreachable)]
        line_called(self.reference, [label_of(one) for one in (self.base, *reachable)])
        runs += _run(runner, reachable)
        return runs, [one for one in lines if isinstance(one, Unreachable)]

    def _lines(self, runner: Runner) -> Sequence[Settings | Unreachable]:
        """What to run once the base has been run: only now the prompts are known."""
        from deeplayer_cli.evaluation.matching import at_equal_cost, at_equal_keep

        if self.match.value == "keep":
            return at_equal_keep(self.wanted, self.shares)
        workload = runner.workload(self.base)
        if not workload:
            raise DeeplayerError(f"--match {self.match.value} needs rows that can be asked, and all are in error")
        return at_equal_cost(
            self.wanted,
            self.shares,
            self.match.value,
            cost=lambda settings: runner.cost(settings, workload),
            largest=lambda settings: runner.largest(settings, workload),
        )


def _runner(
    model: str,
    weights: Mapping[str, Any],
    circumstances: Mapping[str, object],
    requests: Requests,
    folder: Path,
    stopped: Callable[[], bool],
) -> Runner:
    from deeplayer_cli import checkpoints
    from deeplayer_cli.evaluation.running import Runner
    from deeplayer_cli.grounder import describe
    from deeplayer_cli.sinks import RunRecord

    def record(settings: Settings) -> RunRecord:
        return RunRecord(describe(model, settings, **weights), circumstances)

    return Runner(checkpoints.load(model, **weights), requests, folder, cache(record), stopped)


def _run(runner: Runner, wanted: Sequence[Settings]) -> list[Run]:
    """Ask the rows under some settings, with a progress bar; those are timed whose rows were all asked now."""
    from deeplayer_cli.commands.progress import Progress, Totals

    seconds = {}
    with Progress(Totals(lambda *_: 1.0), len(wanted) * runner.n_rows) as progress:
        for tiles in dict.fromkeys(one.max_tiles for one in wanted):
            for line, prediction in runner.answer([one for one in wanted if one.max_tiles == tiles]):
                progress.advance(prediction)
                seconds[line.settings] = line.seconds if line.rows == runner.n_rows else None
    return [replace(runner.finish(one), seconds=seconds.get(one)) for one in wanted]


def _recorded(folders: Sequence[Path]) -> list[Run]:
    """The runs in some folders; warns of those that are unfinished or were changed."""
    from deeplayer_cli import evaluation

    for path in evaluation.result_files(folders):
        for disagreement in evaluation.disagreements(path):
            logger.warning(disagreement)
    return evaluation.read_runs(folders)


def _requests(source: Sequence[str], image_root: Path | None, limit: int | None) -> Requests:
    from deeplayer_cli import sources

    requests = sources.open_source(source, image_root=image_root, limit=limit)
    if not requests.repeatable:
        raise DeeplayerError("every method reads the rows anew, and a pipe can be read only once: give a file")
    sources.count_rows(requests)
    return requests


@contextmanager
def _folder(results: Path | None, source: Sequence[str]) -> Iterator[Path]:
    """Where the rows of all methods go: a folder that stays, or one that does not."""
    from deeplayer_cli.sinks.writing import writing

    if results is None:
        with TemporaryDirectory() as folder:
            yield Path(folder)
        return
    if any(results.resolve() in (Path(one).resolve(), Path(one).resolve().parent) for one in source):
        raise DeeplayerError(f"--results {results} holds the requests: name a folder of its own")
    with writing(str(results)):
        results.mkdir(exist_ok=True)
    yield results


def _wanted(text: str, base: Settings, layer: int | None, prior: Path | None) -> Settings:
    """Read one of ``--methods``: a name, and after each @ a setting of its own; calibrated ones get the prior."""
    from deeplayer_cli.pruning import methods, require_known

    name, *changes = text.split("@")
    require_known(name)
    found: dict[str, Any] = {} if name == base.method else {"layer": layer}
    if methods()[name].is_calibrated:
        found["prior"] = prior
    for change in changes:
        key, _, value = change.partition("=")
        if key not in _CHANGES or not re.fullmatch(r"\d{1,6}", value, re.ASCII):
            raise DeeplayerError(f"--methods {text}: after an @ comes layer=K or max-tiles=N, not {change!r}")
        found[_CHANGES[key]] = int(value)
    return replace(base, method=name, **found)


def _shares(text: str) -> list[float]:
    try:
        return [float(share) for share in text.split(",")]
    except ValueError as error:
        raise DeeplayerError(f"--keep is shares separated by commas, such as 0.1,0.5, not {text!r}") from error


def _refuse_options_of_a_run(context: typer.Context) -> None:
    """Refuse what has no meaning where nothing is run, rather than ignore it."""
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "")
        if given is not None and given.name == "COMMANDLINE" and parameter.name not in _WITHOUT_A_RUN:
            raise DeeplayerError(f"{parameter.opts[0]} says how to run, and --from runs nothing: leave one of them out")


def _refuse_bad_outputs(csv: Path | None, plot: Path | None) -> None:
    """Refuse, before any work, files that could not be written after it."""
    for path in (csv, plot):
        if path is not None and not path.parent.is_dir():
            raise DeeplayerError(f"{path} cannot be written: there is no folder {path.parent}")
    if plot is not None:
        from deeplayer_cli.report.tradeoff import require_plot

        require_plot(plot)
