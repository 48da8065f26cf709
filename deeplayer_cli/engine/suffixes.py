"""The suffixes of a batch on the device: expression, closing, draft and padding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deeplayer_cli.device.transfer import to_device
from deeplayer_cli.engine.types import QueryRows, SuffixLengths

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor

    from deeplayer_cli.engine.types import Row


def copy_suffixes(
    rows: Sequence[Row], closing: Sequence[int], drafts: Sequence[Sequence[int]], device: torch.device
) -> tuple[Tensor, Tensor, QueryRows]:
    """Copy the suffixes of B prompts to a device.

    Args:
        rows: at least one.
        closing: token ids between an expression and its answer.
        drafts: the drafted beginning of each answer, as token ids.
        device: the device.

    Returns:
        Ids (B, T) int64, padded with 0; the index of each row's image (B,) int64; and where expression, prompt and
        draft end in each suffix.
    """
    prompts = [[*row.expression_ids, *closing] for row in rows]
    suffixes = [[*prompt, *draft] for prompt, draft in zip(prompts, drafts, strict=True)]
    lengths = SuffixLengths([len(row.expression_ids) for row in rows], [*map(len, prompts)], [*map(len, suffixes)])
    numbers = ([row.image for row in rows], [row.seed for row in rows], lengths.expressions, lengths.prompts)
    ids, drafted, images, seeds, expressions, ends = pad_rows(suffixes, device, *numbers)
    return ids, images, QueryRows(lengths, expressions, ends, drafted, seeds)


def pad_rows(
    rows: Sequence[Sequence[int]], device: torch.device, *numbers: Sequence[int], least: int = 0
) -> tuple[Tensor, ...]:
    """Pad rows of token ids on the right, and copy them to a device, with more numbers for each row, in one copy.

    Args:
        rows: of token ids.
        device: the device.
        numbers: more numbers for each row.
        least: the least number of tokens.

    Returns:
        Ids (B, T) int64, padded with 0; lengths (B,) int64; and each of ``numbers`` as (B,) int64.
    """
    longest = max(least, *map(len, rows))
    packed = [[*row, *[0] * (longest - len(row)), len(row), *more] for row, *more in zip(rows, *numbers, strict=True)]
    moved = to_device(packed, device)
    return moved[:, :longest], *moved[:, longest:].unbind(1)
