"""Makes the tables of a study from JSON.

    python -m deeplayer_cli.report.study deeplayer_cli/evaluation/study

writes tables.md there, from the files that it finds: ``outcomes-NAME.json`` and ``costs.json`` from
``deeplayer_cli.evaluation.outcomes`` and ``.pricing``, and ``sweep-NAME.json`` and ``diagnose-NAME.json`` from the
commands with ``--json``.
"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from deeplayer_cli.errors import DeeplayerError, reading
from deeplayer_cli.evaluation.positional_bias import SIGNALS
from deeplayer_cli.report.cost_tables import cost_sections
from deeplayer_cli.report.study_cells import points, rate
from deeplayer_cli.report.tables import p_value
from deeplayer_cli.report.text_tables import text_table
from deeplayer_cli.sinks.output_file import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping

    Json = Mapping[str, Any]

TABLES = "tables.md"

_HEAD = """# The study in tables

Made by `python -m deeplayer_cli.report.study FOLDER` from the JSON files here.
[The README](../README.md#a-study-at-equal-cost) has the commands that made those.
"""


def study_tables(folder: Path) -> str:
    """The tables of a study, as Markdown.

    Raises:
        DeeplayerError: the folder has no file of a known kind, or a file cannot be read.
    """
    sections = cost_sections(folder)
    for kind, section in (("sweep", _sweep), ("diagnose", _diagnosis)):
        for path in sorted(folder.glob(f"{kind}-*.json")):
            with reading(str(path)):
                content = path.read_bytes()
            try:
                sections.append(f"## {path.stem}\n\n{section(orjson.loads(content))}\n")
            except (orjson.JSONDecodeError, KeyError, TypeError) as error:
                raise DeeplayerError(f"{path} is not what `deeplayer {kind} --json` prints: {error}") from error
    if not sections:
        raise DeeplayerError(f"{folder} has no outcomes-NAME.json, sweep-NAME.json or diagnose-NAME.json")
    return "\n".join([_HEAD, *sections])


def write_tables(folder: Path) -> None:
    """Write the tables of a study into its folder.

    Raises:
        DeeplayerError: as `study_tables`, or the file cannot be written.
    """
    text = study_tables(folder)
    with replacing(folder / TABLES) as partial:
        partial.write_text(text, encoding="utf-8")


def _sweep(found: Json) -> str:
    kinds = [kind for kind in ("last", "text", "drafted") if kind in found["attention"]]
    headings = ["layer", "mean keep", "Acc@0.5 (95%)", "best in", *(f"{kind}: on target" for kind in kinds)]
    headings += [f"{kind}: rank" for kind in kinds]
    rows = []
    for line in found["layers"]:
        attention = [found["attention"][kind][line["layer"] - 1] for kind in kinds]
        rows.append(
            [
                f"{line['layer']}{' (chosen)' if line['layer'] == found['chosen'] else ''}",
                f"{line['mean_keep']:.1%}",
                rate(line),
                f"{line['best_in']:.0%}",
                *(f"{one['mass']['value']:.1%}" for one in attention),
                *(f"{one['rank']['value']:.2f}" for one in attention),
            ]
        )
    select, report = found["select"], found["report"]
    return (
        f"On {select['chosen']['n']} selection rows; unpruned {rate(select['unpruned'])}. Targets are "
        f"{found['attention']['area']:.1%} of the tokens.\n\n{text_table(headings, rows, 'markdown')}\n\n"
        f"Layer {found['chosen']} is the best in {found['chosen_in']:.0%} of the bootstrap samples. On the "
        f"{report['chosen']['n']} report rows about {report['chosen']['n_images']} other images: "
        f"{rate(report['chosen'])}, unpruned {rate(report['unpruned'])}; difference {points(report['difference'])}, "
        f"p = {p_value(report['difference']['p'])}."
    )


def _diagnosis(found: Json) -> str:
    headings = ["layer", "visual", "entropy", "alike", *SIGNALS, "bias", "kept", "divided by a prior", "the prior"]
    rows = []
    for layer in found["layers"]:
        within = {one["signal"]: one for one in layer["correlations"] if one["view"] == "tile"}
        bias, prior = layer["bias"], layer["prior"]
        rows.append(
            [
                str(layer["layer"]),
                f"{layer['visual_share']:.1%}",
                f"{layer['entropy']:.2f}",
                "-" if layer["stability"] is None else f"{layer['stability']:.2f}",
                *(_correlation(within[signal]) for signal in SIGNALS),
                bias["signal"] if bias else "by place" if layer["biased"] else "no",
                *(["-"] * 2 if prior is None else [f"{prior['kept']:.1%}", _divided(prior)]),
                layer["prior_verdict"] or "-",
            ]
        )
    counts = f"{found['rows']} rows, {found['images']} images; attention of the query rows `{found['query']}`."
    return f"{counts}\n\n{text_table(headings, rows, 'markdown')}"


def _correlation(one: Json) -> str:
    return f"{one['rho']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f})"


def _divided(prior: Json) -> str:
    return f"{prior['kept_divided']:.1%}, {points(prior['difference'])}"


if __name__ == "__main__":
    parser = ArgumentParser("python -m deeplayer_cli.report.study", description="Make the tables of a study from JSON.")
    parser.add_argument("FOLDER", type=Path, help="with outcomes-NAME.json and the other files; gets tables.md")
    try:
        write_tables(parser.parse_args().FOLDER)
    except DeeplayerError as error:
        parser.exit(2, f"{error}\n")
