"""The engine runs prompts through the language model and drops visual tokens on the way.

A prompt is ``P0 | visual tokens | P1 | expression and closing | draft of the answer``. Attention is causal, so prompts
can share work: P0 is the same for every prompt, and all expressions about an image share everything up to P1. K is the
layer after which visual tokens are first dropped.

1. `Engine.prefix` runs the shared part through layers 1..K, once for each image.
2. `Engine.prefill` runs each suffix through layers 1..K, selects the kept tokens, and runs layers K+1..L.
3. `Engine.decode` decodes the answers greedily.

Position ids stay those of the whole prompt, unless the method renumbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from deeplayer_cli.device.packed_linear import has_packed_linears
from deeplayer_cli.device.transfer import to_device
from deeplayer_cli.engine.attention_rows import attention_rows
from deeplayer_cli.engine.compiler import Compiler
from deeplayer_cli.engine.decode import decode
from deeplayer_cli.engine.drafting import no_draft
from deeplayer_cli.engine.language_model import LanguageModel
from deeplayer_cli.engine.prefill import prefill
from deeplayer_cli.engine.prefix import PrefixKind, run_prefix
from deeplayer_cli.engine.pruned_layers import each_row
from deeplayer_cli.engine.selection import StageSelector
from deeplayer_cli.engine.stopwatch import Stopwatch, phase
from deeplayer_cli.models.internvl import vision
from deeplayer_cli.models.internvl.vision import Encoded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from deeplayer_cli.checkpoints import Checkpoint
    from deeplayer_cli.engine.attention_rows import AttentionRows
    from deeplayer_cli.engine.drafting import Draft
    from deeplayer_cli.engine.pruned_layers import PrunedLayers
    from deeplayer_cli.engine.types import Answer, Prefilled, Prefix, Pruned, Row, Suffix
    from deeplayer_cli.pruning import Method, QueryRowKind


class Engine:
    """A loaded model with one pruning method.

    Args:
        checkpoint: the model, its tokenizer and its prompt.
        method: the pruning method.
        draft: proposes drafts of answers; drafts save passes and change no answer.
        compiled: run scorers, selectors, and the layers over suffixes and answers through ``torch.compile``.
        pruned_layers: how the rows of an image share layers K+1..L. With ``union_of_rows``, one call of ``prefill``
            must hold all rows of one image and no others.
        watch: measures the time of every phase.
        watched: ids of tokens whose probabilities the answers report.
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
        watched: Sequence[int] = (),
    ) -> None:
        tokenizer, prompt = checkpoint.tokenizer, checkpoint.prompt
        self._model = checkpoint.model
        self._eos_id = checkpoint.eos_id
        self.method = method
        self._draft = draft
        self._pruned_layers = pruned_layers
        self.watch = watch or Stopwatch()
        compiler = Compiler() if compiled else None
        self._selects = [
            StageSelector(stage, method.name, compiler=compiler, watch=self.watch) for stage in method.stages
        ]
        # No compiler reads packed weights; on a CPU, it would save nothing there either.
        layer_compiler = None if has_packed_linears(checkpoint.model) else compiler
        self._language = LanguageModel(checkpoint.model, tokenizer.encode(prompt.before_image), layer_compiler)
        self._after_image = to_device([tokenizer.encode_piece(prompt.after_image)], self._language.device)
        self._watched = to_device(torch.tensor(watched, dtype=torch.int64), self._language.device)
        self._closing = tokenizer.encode_piece(prompt.after_expression)

    @property
    def n_layers(self) -> int:
        """L, the number of decoder layers."""
        return len(self._language.layers)

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self._language.device

    @property
    def n_prompt_text(self) -> int:
        """Number of prompt tokens that are neither visual tokens nor part of the expression."""
        return self._language.n_p0 + self._after_image.shape[1] + len(self._closing)

    def prefix_kind(self, n_visual: int) -> PrefixKind:
        """The kind of prefix that images of ``n_visual`` tokens get; methods of equal kind can share a prefix."""
        return PrefixKind(*self.method.prefix_layers(n_visual, self.n_layers), not self.method.scouts(n_visual))

    @phase("vision")
    @torch.inference_mode()
    def encode(self, tiles: Tensor) -> Encoded:
        """Turn tiles into visual tokens.

        Args:
            tiles: (N, tiles, 3, side, side) uint8, on any device: N images of equal tile count.

        Returns:
            Visual tokens (N, n_visual, C) in the model's dtype, and the attention of the class token if the method
            reads it.
        """
        if self.method.reads_vision_attention:
            return vision.encode_with_attention(self._model, tiles)
        features = vision.encode(self._model, tiles)
        nothing = features.new_empty(*features.shape[:2], 0)
        return Encoded(features, nothing, nothing)

    @phase("prefix")
    @torch.inference_mode()
    def prefix(self, images: Encoded, places: Tensor | None = None) -> Prefix:
        """Run P0, the visual tokens and P1 through layers 1..K, once for each image.

        Args:
            images: N images, from ``encode``.
            places: (N, n_visual, 3), from ``pruning.token_places``; needed only by methods that read places.
        """
        n_images, n_visual, _ = images.features.shape
        places = torch.empty(n_images, n_visual, 0) if places is None else places
        return run_prefix(self._language, self._after_image, images, places, self.prefix_kind(n_visual))

    def answer(self, prefix: Prefix, rows: Sequence[Row], max_new_tokens: int) -> list[Answer]:
        """Answer rows: prefill and decode.

        Args:
            prefix: the prefix of the rows' images.
            rows: at least one.
            max_new_tokens: the largest number of tokens of an answer.
        """
        answers = self.decode(self.prefill(prefix, rows, max_new_tokens), max_new_tokens)
        if len(rows) == 1 or self._pruned_layers is not each_row:
            return answers
        # Rows of an image share a cache, and attention multiplies what a row does not see by 0. So a row whose numbers
        # overflow spoils its neighbours: each runs again alone.
        return [
            answer if answer.broken_layer is None else self.answer(prefix, [row], max_new_tokens)[0]
            for row, answer in zip(rows, answers, strict=True)
        ]

    @phase("suffix")
    @torch.inference_mode()
    def prefill(self, prefix: Prefix, rows: Sequence[Row], max_new_tokens: int) -> Prefilled:
        """Run each row's suffix through all layers, and drop visual tokens as the method says.

        Args:
            prefix: the prefix of the rows' images.
            rows: at least one.
            max_new_tokens: the largest number of tokens of an answer; the caches get space for it.
        """
        # A pass yields the accepted tokens and one more, so a draft is one token shorter than the longest answer.
        drafts = [self._draft(row.expression_ids, ())[: max_new_tokens - 1] for row in rows]
        return prefill(
            self._language, self.method, prefix, rows, self._closing, drafts, max_new_tokens, self._run_pruned_layers
        )

    @phase("decode")
    @torch.inference_mode()
    def decode(self, prompts: Prefilled, max_new_tokens: int) -> list[Answer]:
        """Decode greedily until ``<|im_end|>`` or ``max_new_tokens``; see `engine.decode.decode`."""
        return decode(self._language, prompts, self._draft, self._eos_id, max_new_tokens, self._watched)

    @torch.inference_mode()
    def attention(self, prefix: Prefix, rows: Sequence[Row], kinds: Sequence[QueryRowKind]) -> AttentionRows:
        """Read what query rows attend to in every layer; see `engine.attention_rows.attention_rows`.

        Args:
            prefix: the prefix of the rows' images, from an engine whose method drops nothing.
            rows: at least one.
            kinds: the kinds of query rows. With ``drafted``, each row gets the draft of its answer's beginning.
        """
        drafts = [self._draft(row.expression_ids, ()) if "drafted" in kinds else () for row in rows]
        return attention_rows(self._language, prefix, rows, self._closing, drafts, kinds)

    @phase("finish")
    def _run_pruned_layers(self, prefix: Prefix, suffix: Suffix) -> Pruned:
        return self._pruned_layers(self._language, self.method, self._selects, prefix, suffix)
