"""The engine: prompts through the language model, with visual tokens dropped on the way.

A prompt is ``P0 | visual tokens | P1 | expression and closing | draft of the answer``. Causal attention lets work be
shared: P0 is the same for every prompt, everything up to P1 for every expression of one image. `Engine.prefix` runs
what an image shares through layers 1..K, where K is the layer that tokens are first dropped after; `Engine.prefill`
adds each expression, selects and runs layers K+1..L on what is left; `Engine.decode` answers greedily. Position ids
stay those of the whole prompt, unless the method renumbers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.engine.decode import decode
from deeplayer_cli.engine.drafting import no_draft
from deeplayer_cli.engine.language_model import LanguageModel
from deeplayer_cli.engine.prefill import prefill
from deeplayer_cli.engine.prefix import prefix_kind, run_prefix
from deeplayer_cli.engine.pruned_layers import each_row
from deeplayer_cli.engine.selection import StageSelector
from deeplayer_cli.engine.stopwatch import Stopwatch, phase
from deeplayer_cli.models.internvl import vision
from deeplayer_cli.models.internvl.vision import Encoded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from deeplayer_cli.checkpoints import Checkpoint
    from deeplayer_cli.engine.drafting import Draft
    from deeplayer_cli.engine.prefix import PrefixKind
    from deeplayer_cli.engine.pruned_layers import PrunedLayers
    from deeplayer_cli.engine.types import Answer, Prefilled, Prefix, Pruned, Row, Suffix
    from deeplayer_cli.pruning import Method


class Engine:
    """A loaded model with one pruning method.

    Args:
        checkpoint: the model, its tokenizer and its prompt.
        method: what to drop and where.
        draft: guesses at answers; they save passes and change nothing.
        compiled: run the selection path through ``torch.compile``.
        pruned_layers: how rows of an image share the later layers; with ``union_of_rows``, the rows of an image are
            prefilled together, and no others with them.
        watch: told of every phase.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        method: Method,
        *,
        draft: Draft = no_draft,
        compiled: bool = False,
        pruned_layers: PrunedLayers = each_row,
        watch: Stopwatch | None = None,
    ) -> None:
        tokenizer, prompt = checkpoint.tokenizer, checkpoint.prompt
        self._model = checkpoint.model
        self._eos_id = checkpoint.eos_id
        self.method = method
        self._draft = draft
        self._pruned_layers = pruned_layers
        self.watch = watch or Stopwatch()
        self._selects = [
            StageSelector(stage, method.name, compiled=compiled, watch=self.watch) for stage in method.stages
        ]
        self._language = LanguageModel(checkpoint.model, tokenizer.encode(prompt.before_image))
        self._after_image = torch.tensor([tokenizer.encode_piece(prompt.after_image)], device=self._language.device)
        self._closing = tokenizer.encode_piece(prompt.after_expression)

    @property
    def n_layers(self) -> int:
        """L, the number of decoder layers."""
        return len(self._language.layers)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._language.device

    @property
    def n_prompt_text(self) -> int:
        """Tokens of a prompt besides its visual tokens and its expression."""
        return self._language.n_p0 + self._after_image.shape[1] + len(self._closing)

    def prefix_kind(self, n_visual: int) -> PrefixKind:
        """What prefixes of images of ``n_visual`` tokens differ in from those of another method."""
        return prefix_kind(self.method, self.n_layers, n_visual)

    @phase("vision")
    @torch.inference_mode()
    def encode(self, tiles: Tensor) -> Encoded:
        """Visual tokens of images of equal tile count, (N, tiles, 3, S, S) uint8, on any device."""
        if self.method.reads_class_attention:
            return vision.encode_with_class_attention(self._model, tiles)
        features = vision.encode(self._model, tiles)
        return Encoded(features, features.new_empty(*features.shape[:2], 0))

    @phase("prefix")
    @torch.inference_mode()
    def prefix(self, images: Encoded, places: Tensor | None = None) -> Prefix:
        """Run P0, the visual tokens and P1 through layers 1..K, once for each image.

        Args:
            images: N of them, from ``encode``.
            places: (N, n_visual, 3), from ``pruning.token_places``; only methods that read places need them.
        """
        n_images, n_visual, _ = images.features.shape
        places = torch.empty(n_images, n_visual, 0) if places is None else places
        return run_prefix(self._language, self._after_image, images, places, self.prefix_kind(n_visual))

    def answer(self, prefix: Prefix, rows: Sequence[Row], max_new_tokens: int) -> list[Answer]:
        """Prefill and decode.

        Where a drafted row scores, rows whose answers do not begin as drafted are answered again without their drafts.

        Args:
            prefix: of the rows' images.
            rows: at least one.
            max_new_tokens: of the longest answer.
        """
        answers = self.decode(self.prefill(prefix, rows, max_new_tokens), max_new_tokens)
        slips = [number for number, answer in enumerate(answers) if not answer.as_drafted]
        if slips and self.method.reads_draft and len(prefix.keys) < self.n_layers:
            prompts = self.prefill(prefix, [rows[number] for number in slips], max_new_tokens, drafted=False)
            for number, answer in zip(slips, self.decode(prompts, max_new_tokens), strict=True):
                answers[number] = replace(answer, as_drafted=False)
        return answers

    @phase("suffix")
    @torch.inference_mode()
    def prefill(self, prefix: Prefix, rows: Sequence[Row], max_new_tokens: int, *, drafted: bool = True) -> Prefilled:
        """Read each row's expression, drop what the method drops, and leave space for ``max_new_tokens``.

        Args:
            prefix: of the rows' images.
            rows: at least one.
            max_new_tokens: of the longest answer.
            drafted: read the drafts of the answers' beginnings as well.
        """
        drafts = [self._draft(row.expression_ids, ())[: max_new_tokens - 1] if drafted else () for row in rows]
        return prefill(self._language, prefix, rows, self._closing, drafts, max_new_tokens, self._run_pruned_layers)

    @phase("decode")
    @torch.inference_mode()
    def decode(self, prompts: Prefilled, max_new_tokens: int) -> list[Answer]:
        """Answer greedily until ``<|im_end|>`` or ``max_new_tokens``; see `engine.decode.decode`."""
        return decode(self._language, prompts, self._draft, self._eos_id, max_new_tokens)

    @phase("finish")
    def _run_pruned_layers(self, prefix: Prefix, suffix: Suffix) -> Pruned:
        return self._pruned_layers(self._language, self._selects, prefix, suffix, renumbers=self.method.renumbers)
