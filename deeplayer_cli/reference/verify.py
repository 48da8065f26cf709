"""Checks whether a checkpoint on this machine does what the original model does. Run it first with real weights."""

from __future__ import annotations

import gc
import random
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image

from deeplayer_cli import checkpoints, pruning
from deeplayer_cli.device.memory import peak_bytes
from deeplayer_cli.engine import Engine, Row
from deeplayer_cli.errors import DeeplayerError, RowError
from deeplayer_cli.images.loader import open_in_time
from deeplayer_cli.models.internvl.prompt import IMAGE_CONTEXT
from deeplayer_cli.models.internvl.tiling import Tiling, count_tiles, tile_image
from deeplayer_cli.reference.generate import generate
from deeplayer_cli.schema import Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from deeplayer_cli.checkpoints import Checkpoint
    from deeplayer_cli.schema import BadRequest

N_NEW = 24
N_QUESTIONS = 8

# Token ids of the official grounding prompt about "lady with back to us", by the sha256 of the tokenizer's file: ids
# before and after the visual tokens. The only entry is InternLM2's tokenizer (InternVL2.5 2B, 8B, 26B). Its ids were
# recorded from the original tokenizer class.
# fmt: off
KNOWN_PROMPTS = {
    "f868398fc4e05ee1e8aeba95ddf18ddcc45b8bce55d5093bead5bbf80429b48b": (
        [1, 92543, 9081, 364, 70447, 60628, 60384, 60721, 60775, 60978, 60353, 79448, 60357, 1214, 1070, 30924, 60353,
         69643, 68589, 76659, 71581, 60359, 77859, 60543, 75438, 68558, 68542, 69504, 68640, 71434, 60838, 60921, 60368,
         68790, 70218, 60355, 92542, 364, 92543, 1008, 364, 92544],
        [92545, 364, 5658, 3572, 410, 30846, 3905, 16316, 446, 410, 5693, 550, 11802, 16691, 334, 262, 92549,
         270, 7744, 579, 1327, 442, 732, 92550, 92542, 364, 92543, 525, 11353, 364],
    )
}
# fmt: on

# (width, height, number of tiles with thumbnail), for tiles of 448 pixels, at most 6. Recorded from the original
# ``dynamic_preprocess``.
KNOWN_TILES = ((640, 480, 7), (480, 640, 7), (640, 427, 7), (640, 640, 5), (448, 448, 1), (1600, 300, 6))


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: what was checked.
        passed: None if the check could not decide.
        detail: what was found; for an undecided check, the reason.
    """

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True)
class Question:
    """An RGB image, and an expression that names an object in it."""

    image: Image.Image
    expression: str


def verify(
    model: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    rows: Iterable[Request | BadRequest] | None = None,
) -> Iterator[Check]:
    """Check a checkpoint, and yield the result of each check.

    Args:
        model: a name or folder, as for ``checkpoints.load``.
        revision: revision of a hub model.
        dtype: the dtype that you will run with.
        device: the device that you will run on.
        rows: requests whose answers are compared. None: generated images of several shapes.

    Raises:
        DeeplayerError: the checkpoint cannot be loaded, or no row of ``rows`` can be read.
    """
    questions = _questions(rows) if rows is not None else _made_questions()
    checkpoint = checkpoints.load(model, revision=revision, dtype=dtype, device=device)
    yield Check("tensors", True, f"every name and shape as expected, {checkpoint.model.num_parameters():,} parameters")
    yield _check_tokenizer(checkpoint)
    yield _check_prompt(checkpoint)
    yield _check_tiles()
    run_dtype = checkpoint.model.dtype
    yield _check_answers(checkpoint, questions)
    yield _check_memory(checkpoint)
    if run_dtype != torch.float32:
        del checkpoint
        gc.collect()
        yield _check_float32(model, revision, device, questions)


def _check_tokenizer(checkpoint: Checkpoint) -> Check:
    sha256 = checkpoint.tokenizer.sha256
    known = sha256 in KNOWN_PROMPTS
    detail = f"sha256 {sha256[:16]}..., " + ("InternLM2's tokenizer" if known else "a tokenizer without recorded ids")
    return Check("tokenizer", True if known else None, detail)


def _check_prompt(checkpoint: Checkpoint) -> Check:
    tokenizer, prompt, expression = checkpoint.tokenizer, checkpoint.prompt, "lady with back to us"
    before = tokenizer.encode(prompt.before_image)
    after = [
        *tokenizer.encode_piece(prompt.after_image),
        *tokenizer.encode_expression(expression),
        *tokenizer.encode_piece(prompt.after_expression),
    ]
    whole = prompt.before_image + IMAGE_CONTEXT + prompt.after_image + expression + prompt.after_expression
    if tokenizer.encode(whole) != [*before, checkpoint.image_token_id, *after]:
        return Check("prompt", False, "the ids of the prompt's pieces differ from the ids of the whole prompt")
    known = KNOWN_PROMPTS.get(tokenizer.sha256)
    if known is None:
        return Check("prompt", True, f"{len(before)} + {len(after)} ids, equal in pieces and as a whole")
    return Check("prompt", (before, after) == known, f"{len(before)} + {len(after)} ids, compared with the original's")


def _check_tiles() -> Check:
    wrong = [
        f"{width} x {height}: {count_tiles((width, height), Tiling())} instead of {tiles}"
        for width, height, tiles in KNOWN_TILES
        if count_tiles((width, height), Tiling()) != tiles
    ]
    return Check("tiles", not wrong, "; ".join(wrong) or f"{len(KNOWN_TILES)} image sizes, cut as the original does")


def _check_answers(checkpoint: Checkpoint, questions: Sequence[Question]) -> Check:
    """Compare the unpruned engine with transformers' ``generate()``, token for token."""
    dtype = str(checkpoint.model.dtype).removeprefix("torch.")
    n_layers = checkpoint.model.config.text_config.num_hidden_layers
    engine = Engine(checkpoint, pruning.build("none", pruning.Options(pruning.Budget()), n_layers))
    same = sum(_ask_engine(engine, checkpoint, ask) == _ask_generate(checkpoint, ask) for ask in questions)
    detail = f"{same} of {len(questions)} equal to transformers' generate(), token for token"
    if checkpoint.model.dtype == torch.float32:
        return Check(f"answers, {dtype}", same == len(questions), detail)
    # In half precision, kernels round differently. So a different answer does not prove a fault.
    return Check(f"answers, {dtype}", True if same == len(questions) else None, detail)


def _check_float32(model: str, revision: str | None, device: str, questions: Sequence[Question]) -> Check:
    try:
        checkpoint = checkpoints.load(model, revision=revision, dtype="float32", device=device)
    except DeeplayerError as error:
        return Check("answers, float32", None, str(error))
    return _check_answers(checkpoint, questions)


def _check_memory(checkpoint: Checkpoint) -> Check:
    device = checkpoint.model.device
    where = " on the GPU" if device.type == "cuda" else ""
    return Check("memory", True, f"peak {peak_bytes(device) / 2**30:.1f} GiB{where}")


def _ask_engine(engine: Engine, checkpoint: Checkpoint, question: Question) -> list[int]:
    tiles = torch.from_numpy(tile_image(question.image, checkpoint.tiling))[None]
    row = Row(0, checkpoint.tokenizer.encode_expression(question.expression))
    prompts = engine.prefill(engine.prefix(engine.encode(tiles)), [row], N_NEW)
    return engine.decode(prompts, N_NEW)[0].token_ids


def _ask_generate(checkpoint: Checkpoint, question: Question) -> list[int]:
    tiles = torch.from_numpy(tile_image(question.image, checkpoint.tiling))
    return generate(checkpoint, tiles, checkpoint.tokenizer.encode_expression(question.expression), N_NEW)


def _questions(rows: Iterable[Request | BadRequest]) -> list[Question]:
    questions: list[Question] = []
    for row in rows:
        if isinstance(row, Request):
            with suppress(RowError):
                questions.append(Question(open_in_time(row.path), row.expression))
        if len(questions) == N_QUESTIONS:
            break
    if not questions:
        raise DeeplayerError("no row of --data can be read: nothing would be compared")
    return questions


def _made_questions() -> list[Question]:
    """Questions about blurred noise in shapes of 1 to 7 tiles. There is nothing to find; they exercise the engine."""
    rng = random.Random(0)
    sizes = ((448, 448), (640, 480), (480, 640), (900, 300))
    images = [Image.frombytes("RGB", (16, 12), rng.randbytes(16 * 12 * 3)).resize(size) for size in sizes]
    expressions = ("the red thing", "left one")
    return [Question(image, expression) for image in images for expression in expressions]
