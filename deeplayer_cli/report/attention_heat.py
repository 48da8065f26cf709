"""The attention of one layer to an image's visual tokens, to draw over the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from deeplayer_cli.engine import Engine, Row
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.models.internvl.answer_format import TemplateDraft
from deeplayer_cli.models.internvl.tiling import tile_grid, tile_image
from deeplayer_cli.pruning import Budget, Method, Options, build, known_methods
from deeplayer_cli.report.tokens import Heat
from deeplayer_cli.schema import TileLayout

if TYPE_CHECKING:
    from PIL import Image

    from deeplayer_cli.checkpoints import Checkpoint
    from deeplayer_cli.pruning import QueryRowKind
    from deeplayer_cli.schema import Prediction

_CALLED = {"last": "last prompt token", "text": "expression's tokens", "drafted": "last token of the draft"}


class AttentionHeat:
    """Reads the attention, a mean over heads, from the tokens that a row's method scores with.

    Args:
        checkpoint: the model of the rows.
        layer: decoder layer, counted from 1; None for the layer after which a row's method drops first, or else for the
            model's grounding layer.
        query: ``--query`` of the run.

    Raises:
        DeeplayerError: the model has no such layer.
    """

    def __init__(self, checkpoint: Checkpoint, layer: int | None = None, query: QueryRowKind = "last") -> None:
        self._checkpoint, self._layer, self._query = checkpoint, layer, query
        self._engine = Engine(checkpoint, Method("none"), draft=TemplateDraft.from_tokenizer(checkpoint.tokenizer))
        if layer is not None and not 1 <= layer <= self._engine.n_layers:
            raise DeeplayerError(f"--layer {layer} is out of range: this model has layers 1 to {self._engine.n_layers}")
        options = Options(Budget(), grounding_layer=checkpoint.grounding_layer)
        self._grounding_layer = build("deep-layer", options, self._engine.n_layers).layer

    def __call__(self, image: Image.Image, row: Prediction) -> Heat | None:
        """Return the attention to each visual token; None for an error row.

        Args:
            image: RGB, in the frame of the row's boxes.
            row: the row.
        """
        if row.status == "error" or row.expression is None:
            return None
        expression = self._checkpoint.tokenizer.encode_expression(row.expression)
        tiles = torch.from_numpy(tile_image(image, self._checkpoint.tiling))[None].to(self._engine.device)
        kind, layer = self._kind(row.method), self._layer or row.layer or self._grounding_layer or 1
        prefix = self._engine.prefix(self._engine.encode(tiles))
        values = self._engine.attention(prefix, [Row(0, expression)], (kind,)).on_visual(kind)[layer - 1, 0].tolist()
        layout = TileLayout.from_counts(tile_grid(image.size, self._checkpoint.tiling), tiles.shape[1], len(values))
        title = (
            f"attention of the {_CALLED[kind]} in layer {layer}, from 0 to {max(values):.1%} for a token; "
            f"the image gets {sum(values):.0%}"
        )
        return Heat(values, layout, title)

    def _kind(self, method: str | None) -> QueryRowKind:
        """Return the query rows of a method; those of ``--query`` for one that does not read attention."""
        entry = known_methods().get(method or "none")
        if entry is None or entry.scorer is None or entry.is_calibrated:
            return self._query
        scorer = entry.scorer(Options(Budget(tokens=1), query=self._query))
        return scorer.rows if scorer.rows in _CALLED and "queries" in scorer.needs else self._query
