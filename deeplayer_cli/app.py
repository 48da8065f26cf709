"""The ``deeplayer`` command: registers commands and turns exceptions into exit codes."""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.main import get_command

from deeplayer_cli import __version__
from deeplayer_cli.commands import (
    bench,
    calibrate,
    compare,
    config,
    configuration,
    data,
    demo,
    diagnose,
    doctor,
    ground,
    methods,
    models,
    report,
    score,
    show,
    streams,
    sweep,
    verify,
)
from deeplayer_cli.commands.exit_codes import DEFECT, FINISHED_WITH_ERRORS, INTERRUPTED, USAGE_OR_IO
from deeplayer_cli.commands.options import example
from deeplayer_cli.commands.usage import Commands
from deeplayer_cli.errors import DeeplayerError, printable, root_cause

if TYPE_CHECKING:
    from deeplayer_cli.runtime.prepare import Prepare

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of writing; files that are written have a name of their own."""

app = typer.Typer(
    name="deeplayer",
    cls=Commands,
    help="Batch visual grounding with InternVL: image + referring expression -> box, as JSON lines.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command(epilog=example('ground photos -e "the dog" -e cat="a black cat" -o boxes.jsonl'))(ground.ground)
app.command(epilog=example("score boxes.jsonl --by label"))(score.score)
app.command(epilog=example("compare requests.jsonl --methods deep-layer,fastv --keep 0.1,0.25 --match flops"))(
    compare.compare
)
app.command(epilog=example("sweep requests.jsonl --layers 2-8 --keep 0.1"))(sweep.sweep)
app.command(epilog=example("diagnose requests.jsonl --images 100"))(diagnose.diagnose)
app.command(epilog=example("report boxes.jsonl -o report.html"))(report.report)
app.command(epilog=example("show boxes.jsonl -o pictures --limit 20"))(show.show)
app.command(epilog=example("verify OpenGVLab/InternVL2_5-1B"))(verify.verify)
app.command(epilog=example("bench prefill --model random:mini --keep 0.1,0.25"))(bench.bench)
app.command(epilog=example("methods"))(methods.methods)
app.command(epilog=example("models"))(models.models)
app.command(epilog=example("doctor"))(doctor.doctor)
app.command(epilog=example("config"))(config.config)
app.command(epilog=example("calibrate photos -o prior.safetensors --limit 200"))(calibrate.calibrate)
app.add_typer(data.app, name="data")
app.add_typer(demo.app, name="demo")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"deeplayer {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def main(prepare: Prepare | None = None) -> None:
    """Run the command line; every expected failure becomes one line on stderr and an exit code.

    Args:
        prepare: replaces `deeplayer_cli.runtime.prepare.prepare`, so that ``ground`` can run without a model.
    """
    # Read when torch is imported. Waiting threads sleep: spinning ones would hold up each other on cores that are busy.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    streams.prepare()
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("deeplayer: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("deeplayer").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", module="PIL")  # the row of a broken image reports the problem
    try:
        _require_working_folder()
        try:
            app(obj=prepare, default_map=_options_from_file())
        finally:
            streams.finish()
    except DeeplayerError as error:
        _refuse(str(error))
    except BrokenPipeError:  # the reader closed the pipe (`| head -1`)
        streams.abandon_stdout()
        sys.exit(FINISHED_WITH_ERRORS)
    except OSError as error:  # of a place that names no file of its own, such as stdout
        nameless = "stdout cannot be written: " if error.errno in _FULL else ""
        name = f"{error.filename}: " if error.filename else nameless
        _refuse(f"{name}{error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        # Torch's by name: an import of torch would slow every start.
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            _refuse("out of memory: free some, or use a smaller --batch-size or --max-tiles")
        if isinstance(error, ImportError) and not (error.name or "").startswith("deeplayer_cli"):
            reason = root_cause(error)
            _refuse(f"a package cannot be imported ({reason}): `deeplayer doctor` names it and the way out")
        traceback.print_exc()
        sys.exit(DEFECT)  # a defect of deeplayer must not look like a run that finished with some bad rows


def _options_from_file() -> dict[str, Any] | None:
    file = configuration.find_file(Path.cwd())
    if file is None:
        return None
    options = configuration.read_options(file, get_command(app))
    logging.getLogger("deeplayer").info("options from %s; `deeplayer config` shows them", file)
    return configuration.default_map(options)


def _require_working_folder() -> None:
    try:
        Path.cwd()
    except FileNotFoundError as error:  # torch's libraries would fail in it, in their own words
        raise DeeplayerError("the working folder no longer exists: change to another") from error


def _refuse(reason: str) -> NoReturn:
    print(f"deeplayer: error: {printable(reason)}", file=sys.stderr)  # noqa: T201
    streams.abandon_stdout()
    sys.exit(USAGE_OR_IO)
