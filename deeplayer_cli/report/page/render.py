"""Writes the page: everything in one file, which loads nothing and runs nothing but its own script."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

import orjson

from deeplayer_cli import __version__, evaluation
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.evaluation.image_keys import image_key
from deeplayer_cli.report.method_styles import style_of
from deeplayer_cli.report.page.chart import draw_charts
from deeplayer_cli.report.page.formatting import all_groups, colour_class, interval, percent, points
from deeplayer_cli.report.page.rows import filter_fields, first_of, joined_rows, row_data
from deeplayer_cli.report.page.runs import read_page_runs
from deeplayer_cli.report.page.thumbnails import Picture, make_pictures, unseen
from deeplayer_cli.report.row_images import RowImages
from deeplayer_cli.schema.values import counted
from deeplayer_cli.sinks.output_file import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence
    from pathlib import Path

    from jinja2 import Environment

    from deeplayer_cli.boxes import Box, BoxFormat
    from deeplayer_cli.report.page.runs import PageRun
    from deeplayer_cli.schema import Id, Prediction

    Joined = Mapping[Id, Sequence[Prediction | None]]

_FOLDER = files("deeplayer_cli.report.page") / "templates"
_SCRIPTS = ("elements.js", "drawing.js", "gallery.js")


@dataclass(frozen=True, slots=True)
class PageOptions:
    """What a page shows.

    Attributes:
        title: of the page.
        by: fields of the rows or of their ``meta`` for tables and filters; None for those of ``meta`` with few values.
        box_format: how gold boxes are written; None for corners in pixels.
        image_root: the only folder to look for images in; None for where the runs found them.
        thumbnail: the longer side of a thumbnail, in pixels.
        max_images: the most thumbnails; the images of the rows with the lowest IoU come first.
    """

    title: str = "Visual grounding"
    by: Sequence[str] | None = None
    box_format: BoxFormat | None = None
    image_root: Path | None = None
    thumbnail: int = 320
    max_images: int = 2000


@dataclass(frozen=True, slots=True)
class PageSummary:
    """What a written page contains.

    Attributes:
        n_runs: number of runs.
        n_rows: number of rows, those of one id counted once.
        pictures: the images of the rows, each once.
        warnings: what looks wrong about the rows, one sentence for each.
    """

    n_runs: int
    n_rows: int
    pictures: tuple[Picture, ...]
    warnings: tuple[str, ...]

    @property
    def problems(self) -> list[str]:
        """Why images have no thumbnail, one sentence for each."""
        return [picture.problem for picture in self.pictures if picture.problem is not None]

    @property
    def n_left_out(self) -> int:
        """Number of images beyond the most thumbnails."""
        return sum(picture.source is None and picture.problem is None for picture in self.pictures)


def require_jinja() -> None:
    """Refuse to make a page without the template engine, before any work.

    Raises:
        DeeplayerError: Jinja is missing.
    """
    try:
        import jinja2
    except ImportError as error:
        raise DeeplayerError("a page needs Jinja to be made: pip install 'deeplayer[report]'") from error
    del jinja2


def write_page(
    predictions: Sequence[Path],
    output: Path,
    options: PageOptions | None = None,
    gold: Mapping[Id, Box] | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> PageSummary:
    """Write one page about some prediction files.

    Args:
        predictions: files that ``ground`` wrote, and folders that ``compare --results`` filled.
        output: the page; what is there is replaced.
        options: what the page shows.
        gold: gold boxes by id, which replace those of the rows.
        progress: is called with the number of images that were decoded and that will be.

    Raises:
        DeeplayerError: a file cannot be read or written, or the runs cannot be shown together.
    """
    options = options or PageOptions()
    with replacing(output) as partial:  # refuses a folder before the work
        runs = read_page_runs(predictions, gold, options.box_format)
        joined = joined_rows(runs)
        fields = filter_fields(runs, options.by)
        pictures = _pictures(runs, joined, options, progress)
        content = _render(
            title=options.title,
            version=__version__,
            runs=runs,
            scored=any(run.report.overall.rates for run in runs),
            n_rows=len(joined),
            n_images=len(pictures),
            tables={name: [evaluation.score(run.rows.values(), by=name) for run in runs] for name in fields},
            charts=draw_charts(runs),
            data=_data(runs, joined, fields, pictures),
            pictures=[picture.to_dict() for picture in pictures.values()],
        )
        partial.write_text(content, encoding="utf-8")
    disagreements = [one for run in runs for path in run.files for one in evaluation.disagreements(path)]
    warnings = dict.fromkeys(
        [*disagreements, *_unequal(runs, len(joined)), *(warning for run in runs for warning in run.report.warnings)]
    )
    return PageSummary(len(runs), len(joined), tuple(pictures.values()), tuple(warnings))


def _unequal(runs: Sequence[PageRun], n_rows: int) -> list[str]:
    """A warning if runs have different rows, so that their accuracies do not compare."""
    fewest = min(runs, key=lambda run: len(run.rows))
    if len(fewest.rows) == n_rows:
        return []
    return [
        f"the runs have different rows, so their accuracies do not compare: {fewest.label} has {len(fewest.rows)} of "
        f"{n_rows}"
    ]


def _data(
    runs: Sequence[PageRun], joined: Joined, fields: Mapping[str, Sequence[str]], pictures: Mapping[Hashable, Picture]
) -> dict[str, object]:
    """What the script of the page reads. Fields of the rows themselves differ between runs and are no filters."""
    firsts = [first_of(rows) for rows in joined.values()]
    filters = {name: values for name, values in fields.items() if any(name in row.meta for row in firsts)}
    places = {key: place for place, key in enumerate(pictures)}
    return {
        "runs": [{"label": run.label, "colour": _colour(run)} for run in runs],
        "fields": [{"name": name, "values": values} for name, values in filters.items()],
        "rows": [row_data(rows, filters, places.get(image_key(_read_row(rows)))) for rows in joined.values()],
    }


def _colour(run: PageRun) -> str:
    return colour_class(style_of(run.method or run.label).colour)


def _read_row(rows: Sequence[Prediction | None]) -> Prediction:
    """A row of an id whose image was read, if there is one."""
    return next((row for row in rows if row is not None and row.image_id is not None), first_of(rows))


def _pictures(
    runs: Sequence[PageRun], joined: Joined, options: PageOptions, progress: Callable[[int, int], None]
) -> dict[Hashable, Picture]:
    """The images of all rows, each once; those of the rows with the lowest IoU come first and get the thumbnails."""
    places = [[RowImages.from_predictions(path, options.image_root) for path in run.files] for run in runs]
    wanted: dict[Hashable, tuple[Prediction, Sequence[RowImages]]] = {}
    for rows in sorted(joined.values(), key=_iou):
        row = _read_row(rows)
        if row.image is not None:
            wanted.setdefault(image_key(row), (row, places[rows.index(row)]))
    shown = list(wanted.values())[: options.max_images]
    pictures = []
    for picture in make_pictures(shown, options.thumbnail):
        pictures.append(picture)
        progress(len(pictures), len(shown))
    pictures += [unseen(row) for row, _ in list(wanted.values())[len(shown) :]]
    return dict(zip(wanted, pictures, strict=True))


def _iou(rows: Sequence[Prediction | None]) -> float:
    """The IoU of a row in the first run that has it; without a gold box, more than any."""
    iou = first_of(rows).iou
    return 2.0 if iou is None else iou


def _render(*, data: object, pictures: object, **shown: object) -> str:
    """Fill the templates. Everything that comes from rows is escaped, or stands in JSON that cannot end its element."""
    css = (_FOLDER / "page.css").read_text(encoding="utf-8")
    script = "".join((_FOLDER / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            css=css,
            script=script,
            policy=_policy(css, script),
            data=embedded_json(data),
            pictures=embedded_json(pictures),
            **shown,
        )
    )


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("deeplayer_cli.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {one.__name__: one for one in (counted, percent, interval, points, all_groups, colour_class)}
    return environment


def _policy(css: str, script: str) -> str:
    """The content security policy: no network at all, images from the page itself, its own style and script only."""
    style_hash, script_hash = (b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (css, script))
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style_hash}'; script-src 'sha256-{script_hash}'; "
        "base-uri 'none'; form-action 'none'"
    )


def embedded_json(value: object) -> str:
    """JSON that cannot end the script element around it, whatever strings it contains (HTML, 4.12.1.3)."""
    text = orjson.dumps(value).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
