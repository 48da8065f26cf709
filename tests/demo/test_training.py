from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import orjson
import pytest
import torch

from deeplayer_cli.demo import packed, tokenizer
from deeplayer_cli.demo.answers import Form
from deeplayer_cli.demo.model import DemoSize, build
from deeplayer_cli.demo.optimise import orthogonalise
from deeplayer_cli.demo.recipe import Recipe
from deeplayer_cli.demo.run import CHECKPOINT, Run
from deeplayer_cli.demo.train import LOG, judge, train
from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SMALL = DemoSize(hidden=32, vision_layers=1, vision_mlp=32, layers=2, mlp=48, heads=4, kv_heads=2)
TINY = Recipe(vision_steps=4, steps=8, scenes=2, questions=4, judge_every=0, size=SMALL)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def parameters(run: Run) -> list[torch.Tensor]:
    return [parameter.detach().clone() for part in (run.model, run.heads) for parameter in part.parameters()]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@torch.no_grad()
def test_packed_is_every_expression_alone(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    language = build(SMALL, len(tokenizer.build()), image_token=1100, end_token=1097).to(dtype).model.language_model
    lengths = torch.tensor([[5, 2, 4], [1, 5, 3]])
    prefix, suffixes = torch.randn(2, 9, 32, dtype=dtype), torch.randn(int(lengths.sum()), 32, dtype=dtype)
    together = packed.forward(language, prefix, suffixes, lengths).split(lengths.flatten().tolist())
    for number, suffix in enumerate(suffixes.split(lengths.flatten().tolist())):
        embeddings = torch.cat((prefix[number // 3], suffix))[None]
        alone = language(inputs_embeds=embeddings).last_hidden_state[0, 9:]
        torch.testing.assert_close(together[number], alone, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 64, 32), (2, 32, 96)])
def test_muon_makes_singular_values_alike(shape: tuple[int, int, int]) -> None:
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape, generator=torch.Generator().manual_seed(1))))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_the_losses_fall(tmp_path: Path) -> None:
    run = Run(replace(TINY, vision_steps=0, steps=800), tmp_path)
    told = [run.advance() for _ in range(40)]
    for learnt in ("expressions", "names", "numbers"):
        losses = [one[learnt] for one in told]
        assert sum(losses[-10:]) < sum(losses[:10])


def test_only_names_and_numbers_are_asked_for_while_expressions_name_attributes(tmp_path: Path) -> None:
    run = Run(replace(TINY, vision_steps=0, steps=40), tmp_path)
    told = [set(run.advance()) for _ in range(40)]
    assert told[:4] == [{"expressions", "names", "numbers", "numbers_text"}] * 4
    assert {"expressions", "names", "official", "official_text"} in told[4:]


def test_resuming_is_exact(tmp_path: Path) -> None:
    """Across the end of the vision-only phase, in whose midst the run stops."""
    straight = Run(TINY, tmp_path)
    begun = Run(TINY, tmp_path)
    for run, steps in ((straight, 12), (begun, 3)):
        for _ in range(steps):
            run.advance()
    begun.save()
    resumed = Run(TINY, tmp_path)
    resumed.load()
    for _ in range(9):
        resumed.advance()
    assert resumed.step == straight.step == straight.total
    assert all(map(torch.equal, parameters(resumed), parameters(straight)))


def test_the_seed_decides_and_nothing_else(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    run = Run(TINY, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    assert all(map(torch.equal, parameters(run), parameters(Run(TINY, tmp_path))))
    other = parameters(Run(replace(TINY, seed=1), tmp_path))
    assert not all(map(torch.equal, parameters(run), other))


def test_training_from_start_to_end(tmp_path: Path) -> None:
    recipe = replace(TINY, judge_every=4, judge_scenes=1)
    run = train(tmp_path, recipe)
    lines = [orjson.loads(line) for line in (tmp_path / LOG).read_bytes().splitlines()]
    assert [(line["step"], line["answers"]) for line in lines] == [(8, 32), (12, 64)]
    assert all(0 <= line["acc@0.5"] <= 1 for line in lines)
    again = train(tmp_path, recipe, resume=True)
    assert all(map(torch.equal, parameters(run), parameters(again)))


def test_lines_logged_after_the_checkpoint_are_dropped_on_resuming(tmp_path: Path) -> None:
    train(tmp_path, TINY)
    log = tmp_path / LOG
    kept = log.read_bytes()
    log.write_bytes(kept + b'{"step":13}\n')
    train(tmp_path, TINY, resume=True)
    assert log.read_bytes() == kept


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(DeeplayerError, match=f"no {CHECKPOINT}: there is nothing to resume"):
        train(tmp_path, TINY, resume=True)
    Run(TINY, tmp_path).save()
    with pytest.raises(DeeplayerError, match="already holds a run: continue it with --resume"):
        train(tmp_path, TINY)
    with pytest.raises(DeeplayerError, match="has another recipe"):
        train(tmp_path, replace(TINY, seed=1), resume=True)
    with pytest.raises(DeeplayerError, match="choose another --seed"):
        Run(replace(TINY, seed=10), tmp_path).advance()


def test_judging_trains_nothing(tmp_path: Path) -> None:
    run = Run(TINY, tmp_path)
    before = parameters(run)
    assert 0 <= judge(run, 1, Form.NUMBERS) <= 1
    assert all(map(torch.equal, parameters(run), before))
