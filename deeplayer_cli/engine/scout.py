"""A scout: layers 1..K over P1 and suffixes, which only score.

P1 runs with the suffixes, not with the image: both are short, and each pass reads all weights of a layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from deeplayer_cli.device.transfer import to_device
from deeplayer_cli.engine.decoder import packed_mask
from deeplayer_cli.engine.row_groups import RowGroups
from deeplayer_cli.engine.types import LayerView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from deeplayer_cli.engine.language_model import LanguageModel
    from deeplayer_cli.engine.types import Prefix, Row


def run_scout(language: LanguageModel, prefix: Prefix, rows: Sequence[Row], embeddings: Tensor) -> LayerView:
    """Run P1 and the suffixes of B rows through layers 1..K, and return layer K over the whole prompts.

    G groups of up to M rows about one image share its prefix and one copy of P1. Their suffixes follow it one by one.

    Args:
        language: the model.
        prefix: of the rows' images; a scout's.
        rows: at least one.
        embeddings: (B, T, C) of the suffixes.
    """
    images, (_, n_suffix, _) = [row.image for row in rows], embeddings.shape
    groups, n_p1 = RowGroups.by_image(images, language.device), prefix.text.shape[1]
    packed = groups.pack(embeddings[:, None])[:, 0]  # (G, M * T, C)
    hidden = torch.cat([prefix.text_embeddings.expand(len(groups), -1, -1), packed], dim=1)
    places, own = _layout(n_p1, packed.shape[1], n_suffix, language.device)
    n_before = prefix.n_shared - n_p1
    rotation = language.rotation((n_before + places)[None])
    visible = torch.cat([own.new_ones(1, 1).expand(len(own), n_before), own], dim=1)
    mask = packed_mask(visible[None, None], language.group, hidden.dtype)
    order = groups.of_groups(images)
    pick = slice(None) if order == list(range(len(prefix.visual))) else to_device(order, language.device)
    for index, shared in enumerate(zip(prefix.keys, prefix.values, strict=True)):
        keys, values = (part[pick] for part in shared)
        hidden, queries, keys, values = language.run_after(index, hidden, rotation, keys, values, mask)

    def of_rows(states: Tensor, n_shared: int) -> Tensor:
        """States of groups (G, heads, n_shared + M * T, D) as states of rows, (B, heads, n_shared + T, D)."""
        if groups.members is None:
            return states
        suffixes = groups.unpack(states[:, :, n_shared:], n_suffix)
        return torch.cat([states[groups.of_row[0], :, :n_shared], suffixes], dim=2)

    def whole_hidden() -> Tensor:
        visual = prefix.visual[to_device(images, language.device)]
        return torch.cat([visual, of_rows(hidden[:, None], n_p1)[:, 0]], dim=1)

    return LayerView(
        of_rows(queries, n_p1), of_rows(keys, prefix.n_shared), of_rows(values, prefix.n_shared), whole_hidden
    )


def _layout(n_p1: int, n_packed: int, n_suffix: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where P1 and the suffixes that follow it stand in their prompts.

    Returns:
        The place of each token after the visual tokens (n_p1 + n_packed,), and to which of these tokens each attends
        (n_p1 + n_packed, n_p1 + n_packed) bool: those of P1 and of its own suffix, up to itself.
    """
    p1, packed = (torch.arange(n, device=device) for n in (n_p1, n_packed))
    row = torch.cat([torch.full_like(p1, -1), packed // n_suffix])
    places = torch.cat([p1, n_p1 + packed % n_suffix])
    return places, ((row[:, None] == row) | (row == -1)).tril()
