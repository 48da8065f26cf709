"""Published methods against their authors' rules, drop by drop, in a model of 32 layers.

The rules here are written from the papers and the authors' programs, with layers counted from 0 as there, and know
nothing of this package's methods. Where ours differs on purpose, the rule says so; there is no other difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch

from deeplayer_cli.engine import Engine
from deeplayer_cli.models.internvl.vision import encode_with_attention, normalize
from deeplayer_cli.pruning import Budget, Options, build
from tests.engine.reference import PlainModel
from tests.engine.test_engine import EXPRESSIONS, N_VISUAL, ON_IMAGE, PLACES, make_rows, run
from tests.pruning import rules
from tests.tiny import tiny_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

N_NEW = 3


@dataclass(frozen=True)
class Tower:
    """What the last layer but one of the vision tower says about the visual tokens of an image.

    Patches are summed or averaged to tokens by the package (tests/models/internvl/test_vision.py).
    """

    class_attention: torch.Tensor
    keys: torch.Tensor


@dataclass(frozen=True)
class Prompt:
    """One prompt of the plain model, and which visual tokens its layers have seen so far."""

    plain: PlainModel
    ids: list[int]
    features: torch.Tensor
    stages: list[tuple[int, list[int]]]
    seen: Tower

    def merge(self, layer: int, merged: dict[int, torch.Tensor]) -> None:
        """From now on, ``layer`` puts out other states for some visual tokens; layer 0 is the input."""
        if not merged:
            return
        states = torch.stack(list(merged.values()))
        if layer == 0:
            self.features[list(merged)] = states
        else:
            visual = self.plain.visual_positions(self.ids)
            self.plain.replaced[layer] = [visual[index] for index in merged], states

    @property
    def left(self) -> list[int]:
        return self.stages[-1][1] if self.stages else list(range(N_VISUAL))

    @property
    def behind_image(self) -> list[int]:
        return list(range(self.plain.visual_positions(self.ids)[-1] + 1, len(self.ids)))

    def attention(self, layer: int, rows: list[int], *, rope: bool = True, over: str = "all") -> torch.Tensor:
        """What each visual token gets from ``rows`` in 0-based ``layer``, a mean over heads and rows; dropped: 0."""
        queries, keys, _ = self.plain.projections(self.ids, self.features, layer + 1, self.stages)
        visual = self.plain.visual_positions(self.ids)
        alive = [visual[index] for index in self.left]
        seen = sorted(alive + [position for position in range(len(self.ids)) if position not in visual])
        queries, keys = queries[:, seen], keys[:, seen]
        if rope:
            ids = list(range(len(seen))) if self.plain.renumbers else seen
            cos, sin = (part[0] for part in self.plain.decoder.rotary_emb(keys, torch.tensor([ids])))
            queries, keys = turn(queries, cos, sin), turn(keys, cos, sin)
        logits = queries @ keys.mT / math.sqrt(keys.shape[-1])  # (heads, seen, seen)
        hidden = torch.ones(len(seen), len(seen), dtype=torch.bool).triu(1)
        if over == "image":
            hidden = hidden | torch.tensor([position not in visual for position in seen])
        weights = logits.masked_fill(hidden, -torch.inf)[:, [seen.index(row) for row in rows]].softmax(-1).mean((0, 1))
        found = torch.zeros(N_VISUAL, dtype=weights.dtype)
        found[self.left] = weights[[seen.index(position) for position in alive]]
        return found


def turn(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """RoPE: (a, b) to (a cos - b sin, b cos + a sin), for halves a and b."""
    half = states.shape[-1] // 2
    a, b = states[..., :half], states[..., half:]
    return torch.cat([a * cos[..., :half] - b * sin[..., :half], b * cos[..., :half] + a * sin[..., :half]], dim=-1)


def best(scores: torch.Tensor, among: list[int], n: int) -> list[int]:
    return sorted(sorted(among, key=lambda index: -float(scores[index]))[:n])


def top(after: int, by: int, n: int, *, rope: bool = True, over: str = "all"):
    """The output of ``after`` loses tokens: the last row's attention in layer ``by`` keeps the n highest."""

    def keep(prompt: Prompt) -> tuple[int, list[int]]:
        scores = prompt.attention(by, [len(prompt.ids) - 1], rope=rope, over=over)
        return after + 1, best(scores, prompt.left, n)

    return keep


def grid_and_top(after: int, n: int):
    """FEATHER's first step: the union of a grid of stride 3 with the m best, without RoPE and among the image only.

    The paper fixes m, here the size of the union is given.
    """

    def keep(prompt: Prompt) -> tuple[int, list[int]]:
        scores = prompt.attention(after, [len(prompt.ids) - 1], rope=False, over="image")
        at = PLACES.tolist()
        grid = {index for index in prompt.left if int(at[index][0]) % 3 == 0 and int(at[index][1]) % 3 == 0}
        assert len(grid) == 5
        unions = [sorted(grid | set(best(scores, prompt.left, m))) for m in range(N_VISUAL + 1)]
        return after + 1, next(union for union in unions if len(union) == n)

    return keep


def raters(prompt: Prompt) -> list[int]:
    """SparseVLM: text behind the image that the image's embeddings speak to more than to the mean text token."""
    embedded = prompt.plain.decoder.embed_tokens(torch.tensor(prompt.ids))
    text = embedded[prompt.behind_image]
    relevance = torch.stack([(text @ visual).softmax(0) for visual in prompt.features]).mean(0)
    return [row for row, one in zip(prompt.behind_image, relevance, strict=True) if one > relevance.mean()]


def rated(after: int, n: int):
    """SparseVLM: of the output of layer ``after``, what the raters attend to in that layer."""

    def keep(prompt: Prompt) -> tuple[int, list[int]]:
        return after + 1, best(prompt.attention(after, raters(prompt)), prompt.left, n)

    return keep


def recycled(after: int, n: int):
    """As `rated`, but the best of what is dropped is merged; the budget holds for both together."""

    def keep(prompt: Prompt) -> tuple[int, list[int]]:
        states = prompt.plain.output_after(prompt.ids, prompt.features, after + 1, prompt.stages)
        visual, left = torch.tensor(prompt.plain.visual_positions(prompt.ids)), torch.tensor(prompt.left)
        scores = prompt.attention(after, raters(prompt))[left].tolist()
        chosen, merged = rules.sparsevlm(scores, states[visual[left]], n)
        prompt.merge(after + 1, {int(left[index]): new for index, new in merged.items()})
        return after + 1, left[chosen].tolist()

    return keep


def before_the_model(select: Callable[[Prompt], rules.Merged]):
    """Tokens are dropped before the first layer."""

    def keep(prompt: Prompt) -> tuple[int, list[int]]:
        chosen, merged = select(prompt)
        prompt.merge(0, merged)
        return 0, chosen

    return keep


def visionzip(n: int):
    def select(prompt: Prompt) -> rules.Merged:
        return rules.visionzip(prompt.seen.class_attention.sum(-1).tolist(), prompt.seen.keys, prompt.features, n)

    return before_the_model(select)


def vispruner(n: int):
    def select(prompt: Prompt) -> rules.Merged:
        return rules.vispruner(prompt.seen.class_attention.mean(-1).tolist(), prompt.features, n), {}

    return before_the_model(select)


def cdpruner(n: int):
    """The text's embeddings stand in for CLIP's."""

    def select(prompt: Prompt) -> rules.Merged:
        embedded = prompt.plain.decoder.embed_tokens(torch.tensor(prompt.ids))[prompt.behind_image]
        likeness = [-sum(rules.cosine(one, text) for text in embedded) / len(embedded) for one in prompt.features]
        low, high = min(likeness), max(likeness)
        relevance = [(one - low + 1e-6) / (high - low) for one in likeness]
        return rules.cdpruner(relevance, prompt.features, n), {}

    return before_the_model(select)


def ivc_prune(after: int, n: int):
    """Values of layer ``after``, before its output is pruned; the text is what follows ``</img>`` and a line break."""

    def keep(prompt: Prompt) -> tuple[int, list[int]]:
        *_, values = prompt.plain.projections(prompt.ids, prompt.features, after + 1)
        similarity = (values @ values.mT / math.sqrt(values.shape[-1])).softmax(-1).mean(0)  # repeated heads: same mean
        visual = prompt.plain.visual_positions(prompt.ids)
        cos, sin = (part[0] for part in prompt.plain.decoder.rotary_emb(values, torch.tensor([visual])))
        kept, more = rules.ivc_prune(similarity, prompt.behind_image[2:], visual[0], (cos, sin), (2, 2))
        return after + 1, sorted((kept + more)[:n]) if len(kept) <= n else kept[:n]

    return keep


@dataclass(frozen=True)
class Rule:
    """A method: its budget as a share, what stays of 20 tokens step by step, and whether positions are renumbered."""

    keep: float
    steps: tuple[Callable[[Prompt], tuple[int, list[int]]], ...]
    renumbers: bool = False


RULES = {
    "fastv": Rule(0.25, (top(1, 1, 5),)),
    "deep-layer": Rule(0.1, (top(11, 11, 2),)),
    "pyramiddrop": Rule(0.1, (top(7, 8, 9), top(15, 16, 4), top(23, 24, 2)), renumbers=True),
    "vscan": Rule(0.2, (top(15, 16, 4, rope=False),)),
    "feather": Rule(0.1, (grid_and_top(7, 10), top(15, 15, 2, rope=False, over="image"))),
    "sparsevlm-nomerge": Rule(110 / 576, (rated(2, 10), rated(6, 6), rated(15, 3)), renumbers=True),
    "sparsevlm": Rule(110 / 576, (recycled(2, 10), recycled(6, 6), recycled(15, 3)), renumbers=True),
    "visionzip": Rule(0.7, (visionzip(14),), renumbers=True),
    "vispruner": Rule(0.3, (vispruner(6),), renumbers=True),
    "cdpruner": Rule(0.3, (cdpruner(6),), renumbers=True),
    "ivc-prune": Rule(0.5, (ivc_prune(15, 10),)),
}


@pytest.fixture(scope="module")
def deep():
    return tiny_checkpoint(layers=32)


@pytest.fixture(scope="module")
def tiles():
    return torch.randint(0, 256, (2, 5, 3, 56, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("method", "positions"),
    [(name, "published") for name in RULES] + [(name, "keep") for name, rule in RULES.items() if rule.renumbers],
)
def test_every_drop_is_the_authors(deep, tiles, method: str, positions: str) -> None:
    rule = RULES[method]
    engine = Engine(deep, build(method, Options(Budget(rule.keep), positions=positions), 32))
    logits, kept, answers = run(engine, tiles, make_rows(deep))
    encoded = encode_with_attention(deep.model, tiles)
    for index, expression in enumerate(EXPRESSIONS):
        plain = PlainModel(deep, renumbers=rule.renumbers and positions == "published")
        features = plain.features(normalize(tiles[ON_IMAGE[index]]))
        tower = Tower(*(part[ON_IMAGE[index]] for part in (encoded.class_attention, encoded.vision_keys)))
        prompt = Prompt(plain, plain.prompt_ids(expression, N_VISUAL), features, [], tower)
        for step in rule.steps:
            prompt.stages.append(step(prompt))
        assert kept[index] == prompt.left
        reference = plain.answer(prompt.ids, prompt.features, prompt.stages, N_NEW)
        assert (logits[index] - reference.logits).abs().max() < 1e-9
        assert answers[index][:N_NEW] == reference.token_ids


@pytest.mark.parametrize(("end", "steps"), [(110, (300, 200)), (36, (303, 110)), (17, (66, 30)), (576, (576, 576))])
def test_sparsevlm_has_the_published_schedules(end: int, steps: tuple[int, int]) -> None:
    method = build("sparsevlm-nomerge", Options(Budget(tokens=end)), 32)
    assert method.schedule(576) == ((3, steps[0]), (7, steps[1]), (16, end))


def test_sparsevlm_between_and_beyond_its_schedules() -> None:
    for end in range(1, 577):
        (_, first), (_, second), (_, last) = build("sparsevlm-nomerge", Options(Budget(tokens=end)), 32).schedule(576)
        assert 576 >= first >= second >= last == end
    assert build("sparsevlm-nomerge", Options(Budget(tokens=8)), 32).schedule(576)[0] == (3, 8 * 66 // 17)
