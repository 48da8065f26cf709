"""Selection: gathers the inputs that a stage needs, runs its scorer and selector, and returns the kept tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.device.failures import is_device_lost, is_out_of_memory
from deeplayer_cli.device.transfer import to_device
from deeplayer_cli.engine.decoder import unrotate
from deeplayer_cli.engine.result_check import check_result, refuse_faults
from deeplayer_cli.engine.stopwatch import Stopwatch, phase
from deeplayer_cli.errors import DeeplayerError, first_line
from deeplayer_cli.pruning import ScorerInputs, Selection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from deeplayer_cli.engine.compiler import Compiler
    from deeplayer_cli.engine.kv_cache import LayerCache
    from deeplayer_cli.engine.language_model import LanguageModel
    from deeplayer_cli.engine.result_check import ResultCheck
    from deeplayer_cli.engine.types import KeptTokens, LayerView, Prefix, Suffix
    from deeplayer_cli.pruning import Stage

    Select = Callable[[ScorerInputs, int], tuple[Tensor, Selection]]


class StageSelector:
    """A stage's scorer and selector as one function of (inputs, number of tokens to keep).

    It checks every result, and hands the check of its values on.

    Args:
        stage: one stage of a method.
        method: the method's name, for messages.
        compiler: compiles scorer and selector, if the selector is compilable; None to run them uncompiled.
        watch: measures the time of every selection.
    """

    def __init__(
        self, stage: Stage, method: str, *, compiler: Compiler | None = None, watch: Stopwatch | None = None
    ) -> None:
        self.stage = stage
        self.watch = watch or Stopwatch()
        self._method = method

        def select(inputs: ScorerInputs, n_keep: int) -> tuple[Tensor, Selection]:
            scores = stage.scorer(inputs)
            if not isinstance(scores, torch.Tensor):
                raise DeeplayerError(
                    f"method {method} is broken: its scorer returned {type(scores).__name__}, not a tensor"
                )
            selected = stage.selector(scores, inputs, n_keep)
            return scores, selected if isinstance(selected, Selection) else Selection(selected)

        self._select: Select = compiler(select) if compiler and stage.selector.compilable else select

    @phase("select")
    def __call__(self, inputs: ScorerInputs, n_keep: int) -> tuple[Selection, ResultCheck]:
        """Select ``n_keep`` tokens.

        Returns:
            The selection, and the check of its values. The caller must read the check with ``refuse_faults``. Until
            then, invalid indices are replaced by valid ones: CUDA loses the device at an index out of range.

        Raises:
            DeeplayerError: scorer or selector raised an exception, or returned something of the wrong shape; the
                message names the method.
        """
        try:
            scores, selection = self._select(inputs, n_keep)
            shape = (len(inputs.seeds), inputs.n_visual)
            width = None if inputs.features is None else inputs.features.shape[2]
            check = check_result(self._method, self.stage.selector, scores, selection, shape, n_keep, width)
        except DeeplayerError:
            raise
        except Exception as error:  # a method of another package may raise anything
            if is_out_of_memory(error) or is_device_lost(error):
                raise
            raise DeeplayerError(
                f"method {self._method} is broken: its scorer or selector raised {type(error).__name__}: "
                f"{first_line(error)}"
            ) from error
        return selection._replace(indices=selection.indices.clamp(0, inputs.n_visual - 1)), check


def _is_finite(state: Prefix | Suffix | LayerView | LayerCache) -> bool:
    parts = (part for value in vars(state).values() for part in (value if isinstance(value, tuple) else (value,)))
    tensors = (part for part in parts if isinstance(part, torch.Tensor) and part.is_floating_point())
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


@dataclass(frozen=True)
class Positions:
    """Computes position ids of prompts after some visual tokens are dropped.

    Attributes:
        n_p0: number of tokens before the visual tokens.
        n_visual: number of visual tokens of the whole image.
        n_text: number of tokens after the visual tokens: P1 and suffix.
        renumbers: whether ids have no gaps at dropped tokens; otherwise each token keeps its id of the whole prompt.
    """

    n_p0: int
    n_visual: int
    n_text: int
    renumbers: bool

    def __call__(self, kept: Tensor) -> Tensor:
        """Position ids (B, n_p0 + n_kept + n_text) of prompts that keep the visual tokens ``kept`` (B, n_kept)."""
        n_kept = kept.shape[1]
        before, visual, text = (torch.arange(n, device=kept.device) for n in (self.n_p0, n_kept, self.n_text))
        ids = (before, self.n_p0 + (visual if self.renumbers else kept), self.text_start(n_kept) + text)
        return torch.cat([part.expand(len(kept), -1) for part in ids], dim=1)

    def text_start(self, n_kept: int) -> int:
        """Position id of the first token after the visual tokens, if ``n_kept`` of these are kept."""
        return self.n_p0 + (n_kept if self.renumbers else self.n_visual)


@dataclass(frozen=True)
class Prompts:
    """B prompts before the first drop: what the stages of a method read of them, and the checks of what they selected.

    Attributes:
        language: the model.
        prefix: the prefix of the prompts' images.
        suffix: their suffixes.
        positions: computes the position ids of the prompts.
        checks: of all results so far.
    """

    language: LanguageModel
    prefix: Prefix
    suffix: Suffix
    positions: Positions
    checks: list[ResultCheck] = field(default_factory=list)

    @classmethod
    def from_parts(cls, language: LanguageModel, prefix: Prefix, suffix: Suffix, *, renumbers: bool) -> Prompts:
        """The prompts of ``suffix``, which continue ``prefix``."""
        n_text = prefix.text.shape[1] + suffix.n_tokens
        return cls(language, prefix, suffix, Positions(language.n_p0, prefix.n_visual, n_text, renumbers))

    def select(self, select: StageSelector, view: LayerView, kept: KeptTokens) -> Selection:
        """Run a stage on the visual tokens that are ``kept`` so far; the selection's indices point into these."""
        inputs = self._inputs(select.stage, view, kept)
        n_keep = min(select.stage.count(self.positions.n_visual), inputs.n_visual)
        if select.stage.takes_padding:
            return self._run(select, inputs, n_keep)
        return self._run_by_length(select, inputs, n_keep)

    def _run(self, select: StageSelector, inputs: ScorerInputs, n_keep: int) -> Selection:
        selection, check = select(inputs, n_keep)
        self.checks.append(check)
        return selection

    def _run_by_length(self, select: StageSelector, inputs: ScorerInputs, n_keep: int) -> Selection:
        """Run a stage that takes no padding: on the prompts of each length by themselves."""
        rows, device = self.suffix.rows, self.language.device
        kind, n_p1 = select.stage.scorer.rows, self.prefix.text.shape[1]
        lengths = rows.lengths.drafted if kind == "drafted" else rows.lengths.prompts
        n_before = inputs.prompt_tokens.shape[1] - self.suffix.n_tokens
        order: list[int] = []  # the row of each selected prompt
        found: list[Selection] = []
        for length in sorted(set(lengths)):
            alike = [row for row, other in enumerate(lengths) if other == length]
            order += alike
            n_rows = rows.lengths.most_rows(kind, n_p1, alike)
            alone = inputs.without_padding(to_device(alike, device), n_before + length, n_rows)
            found.append(self._run(select, alone, n_keep))
        back = to_device(torch.tensor(order).argsort(), device)
        return Selection(*(None if part[0] is None else torch.cat(part)[back] for part in zip(*found, strict=True)))  # type: ignore[arg-type]

    def refuse_faults(self, caches: Sequence[LayerCache]) -> None:
        """Read the checks of all results; this waits for the device once.

        Args:
            caches: of the layers after the first drop.

        Raises:
            DeeplayerError: a result is invalid; the message names the method.
        """
        states: list[Prefix | Suffix | LayerView | LayerCache] = [self.prefix, self.suffix, self.suffix.layer_k]
        states += caches
        refuse_faults(self.checks, lambda: all(map(_is_finite, states)))

    def _inputs(self, stage: Stage, view: LayerView, kept: KeptTokens) -> ScorerInputs:
        """The inputs that the stage needs; all others stay None."""
        needs, n_p0, n_visual = stage.needs, self.positions.n_p0, kept.indices.shape[1]
        prefix, suffix, images = self.prefix, self.suffix, self.suffix.images
        n_before = n_p0 + n_visual + prefix.text.shape[1]  # P0, kept tokens and P1
        found: dict[str, object] = {}
        if needs & {"queries", "keys"}:
            found |= self._queries_and_keys(stage, view, kept)
        if "values" in needs:
            found["values"] = view.values
        if needs & {"features", "text_features"}:
            hidden = view.hidden()
            found |= {"features": hidden[:, :n_visual], "text_features": hidden[:, n_visual:]}  # hidden: without P0
        if "image_embeddings" in needs:
            found["image_embeddings"] = prefix.embeddings[images]
        if "text_embeddings" in needs:
            p1 = prefix.text_embeddings.expand(len(images), -1, -1)
            found["text_embeddings"] = torch.cat([p1, suffix.embeddings], dim=1)
        of_tokens = {
            "places": prefix.places,
            "class_attention": prefix.class_attention,
            "vision_keys": prefix.vision_keys,
        }
        for name in needs & of_tokens.keys():
            found[name] = of_tokens[name][images].take_along_dim(kept.indices[..., None], dim=1)
        if "weights" in needs:
            found["weights"] = kept.weights
        if "rotation" in needs:
            found["rotation"] = self.language.rotation(self.positions(kept.indices))
        prompt_tokens = suffix.rows.prompt_tokens(n_before, suffix.n_tokens)
        return ScorerInputs(suffix.rows.seeds, n_p0, n_visual, prompt_tokens, **found)  # type: ignore[arg-type]

    def _queries_and_keys(self, stage: Stage, view: LayerView, kept: KeptTokens) -> dict[str, object]:
        # Query rows come after the image, so only n_p1 + T queries meet the S keys: (B, heads, n_p1 + T, head_dim).
        n_text = self.positions.n_text
        queries, keys = view.queries[:, :, -n_text:], view.keys
        if not stage.scorer.rotary:
            cos, sin = self.language.rotation(self.positions(kept.indices))
            queries = unrotate(queries, (cos[:, -n_text:], sin[:, -n_text:]))
            keys = unrotate(keys, (cos, sin))
        if "queries" not in stage.needs:
            return {"keys": keys}
        queries, visible = self.suffix.rows.pick(stage.scorer.rows, queries, keys.shape[2], self.suffix.n_tokens)
        return {"keys": keys, "queries": queries, "visible": visible}
