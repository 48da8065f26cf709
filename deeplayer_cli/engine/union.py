"""From layer K on: all prompts about one image go on with the union of what each of them would keep.

The union runs through layers K+1..L once, whatever the number of expressions. Its tokens see more than any expression
chose, so an answer depends on which expressions share the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from deeplayer_cli.engine.late import Choice, survivors, wanted_features

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
) -> tuple[Tensor, Tensor, list[LayerCache]]:
    """As `late.finish`, for one stage and rows of one image, which all keep the union of their choices."""
    hidden, queries, keys = own
    (stage,) = stages
    n_visual, n_own = prefix.visual.shape[1], hidden.shape[1]
    everything = torch.arange(n_visual, device=language.device).expand(len(image), -1)
    choose = Choice(asking, prefix.places[image], language, n_own)
    chosen = choose(stage, queries, keys, wanted_features(stage, prefix.visual)[image], everything)
    kept, one = chosen.unique()[None], image[:1]
    shared = torch.cat([survivors(language, prefix, one, kept), prefix.text[one]], dim=1)
    text = torch.arange(language.n_p0 + n_visual, prefix.n_shared + n_own, device=language.device)[None]
    own_text = text[:, -n_own:]
    shared_rotation = language.rotation(torch.cat([language.n_p0 + kept, text[:, :-n_own]], dim=1))
    own_rotation = language.rotation(own_text)
    caches = []
    for index in range(len(prefix.keys), len(language.layers)):
        shared, _, shared_keys, shared_values = language.run_layer(index, shared, shared_rotation)
        hidden, _, cache = language.run_own(index, hidden, own_rotation, shared_keys, shared_values, room)
        caches.append(cache)
    return hidden, kept.expand(len(image), -1), caches
