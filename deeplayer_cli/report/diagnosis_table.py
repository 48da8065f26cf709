"""Prints a diagnosis as a table, and the answer for every layer as a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deeplayer_cli.evaluation.positional_bias import SIGNALS
from deeplayer_cli.report.tables import plain_table, show_table, two_lines
from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from deeplayer_cli.evaluation.diagnosis import Diagnosis
    from deeplayer_cli.evaluation.layer_diagnosis import LayerDiagnosis

_ROWS = {
    "last": "the last prompt token",
    "text": "the expression's tokens",
    "drafted": "the drafted answer's last token",
}
_EXPLANATION = (
    "layer counts from 1, the index below it from 0. visual, first: share of attention on visual tokens, and on the "
    "first token. entropy: of visual attention; 1 is uniform. alike: mean cosine between two expressions about an "
    "image, and between generic questions. row ... centre: Spearman correlation within tiles, with its 95% band by "
    "chance (--json and --csv also have those over the image); * lies outside. sinks: visual tokens with 10 times the "
    "mean whatever is asked, and their share of visual attention. p is corrected for the number of layers; bands and "
    "intervals are those of each layer alone."
)


def show(diagnosis: Diagnosis) -> None:
    """Print a diagnosis to stdout."""
    from rich.console import Console

    console = Console()
    show_table(_table(diagnosis.layers))
    console.print(
        f"Attention of {_ROWS[diagnosis.kind]}, mean over heads: {counted(diagnosis.n_rows, 'row')}, "
        f"{counted(diagnosis.n_images, 'image')}, "
        f"{counted(diagnosis.n_targets, 'target')}. {_EXPLANATION}\n"
    )
    for layer in diagnosis.layers:
        console.print(layer.sentence, highlight=False)


def _table(layers: Sequence[LayerDiagnosis]) -> Table:
    table = plain_table()  # fits 80 columns
    for heading in ("layer\nindex", "visual\nfirst", "entropy\nsinks", "alike\nasked", *SIGNALS):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in layers:
        table.add_row(*_cells(layer))
    return table


def _cells(layer: LayerDiagnosis) -> list[str]:
    within = {one.signal: one for one in layer.places.correlations if one.view == "tile"}
    return [
        two_lines(str(layer.layer), str(layer.layer - 1)),
        two_lines(f"{layer.visual_share:.1%}", f"{layer.first_share:.1%}"),
        two_lines(f"{layer.entropy:.2f}", f"{layer.n_sinks:.1f}/{layer.sink_share:.0%}"),
        two_lines(*("-" if value is None else f"{value:.2f}" for value in (layer.stability, layer.generic_stability))),
        *(
            two_lines(f"{one.rho:+.2f}{' ' if one.low <= one.rho <= one.high else '*'}", _band(one.low, one.high))
            for one in (within[signal] for signal in SIGNALS)
        ),
    ]


def _band(low: float, high: float) -> str:
    """Format without the zeros before the points, and without a space, at which a narrow table would break."""
    return f"{low:+.2f}/{high:+.2f}".replace("0.", ".")
