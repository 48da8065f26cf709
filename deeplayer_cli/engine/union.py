"""From layer K on: all prompts about one image go on with the union of what each of them would keep.

The union runs through layers K+1..L once, whatever the number of expressions. Its tokens see more than any expression
chose, so an answer depends on which expressions share the image. Rows that are asked anew, because their answers did
not begin as drafted, unite once more among themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from deeplayer_cli.engine.late import Choice, survivors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from deeplayer_cli.engine.asking import Asking
    from deeplayer_cli.engine.cache import LayerCache
    from deeplayer_cli.engine.engine import Prefix
    from deeplayer_cli.engine.language import Language
    from deeplayer_cli.engine.selection import Select
    from deeplayer_cli.pruning import Stage


def finish_together(
    language: Language,
    stages: Sequence[tuple[Stage, Select]],
    prefix: Prefix,
    image: Tensor,
    own: tuple[Tensor, Tensor, Tensor],
    asking: Asking,
    room: int,
    *,
    renumbers: bool,
) -> tuple[Tensor, Tensor, list[LayerCache]]:
    """As `late.finish`, for one stage and rows of one image, which all keep the union of their choices."""
    hidden, _, _ = own
    n_own = hidden.shape[1]
    (stage,) = stages
    choose = Choice.of(language, prefix, image, asking, n_own, renumbers=renumbers)
    kept, one = choose.first(stage, prefix, image, own).unique()[None], image[:1]
    positions = choose.numbering(kept)
    own_start = choose.numbering.text_start(kept.shape[1]) + prefix.text.shape[1]
    shared = torch.cat([survivors(language, prefix, one, kept), prefix.text[one]], dim=1)
    shared_rotation = language.rotation(positions[:, language.n_p0 : -n_own])
    own_rotation = language.rotation(positions[:, -n_own:])
    caches = []
    for index in range(len(prefix.keys), len(language.layers)):
        shared, _, shared_keys, shared_values = language.run_layer(index, shared, shared_rotation)
        hidden, _, cache = language.run_own(index, hidden, own_rotation, shared_keys, shared_values, own_start, room)
        caches.append(cache)
    return hidden, kept.expand(len(image), -1), caches
