"""A slow, plain reference for pruned inference: transformers' own forward over the whole sequence, every time anew.

Nothing is cached, shared or gathered. Layer K's attention is read by hooks from the eager implementation; from layer
K+1 on, dropped visual tokens are still there but masked out as keys. What a layer puts out for frozen visual tokens is
replaced by what went in.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Reference:
    logits: torch.Tensor  # (vocabulary,) for the first answer token
    token_ids: list[int]


class PlainModel:
    """A checkpoint asked in the plainest way."""

    def __init__(self, checkpoint, *, renumbers: bool = False, freeze_after_layer: int | None = None) -> None:
        self.checkpoint = checkpoint
        self.renumbers = renumbers
        self.freeze_after_layer = freeze_after_layer
        self.model = checkpoint.model
        self.decoder = checkpoint.model.model.language_model
        self.replaced = {}  # by layer: positions of the prompt, and what the layer puts out there instead

    @contextmanager
    def eager(self):
        """Run with the implementation of attention that returns its weights (softmax in float32, always)."""
        self.model.set_attn_implementation("eager")
        try:
            yield
        finally:
            self.model.set_attn_implementation("sdpa")

    def prompt_ids(self, expression: str, n_visual: int) -> list[int]:
        tokenizer, prompt = self.checkpoint.tokenizer, self.checkpoint.prompt
        text = prompt.before_image + "<IMG_CONTEXT>" * n_visual + prompt.after_image + expression
        return tokenizer.encode(text + prompt.after_expression)

    @torch.no_grad()
    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        tiles = self.model.get_image_features(pixel_values=pixels.to(self.model.dtype)).pooler_output
        return tiles.flatten(0, 1)

    @torch.no_grad()
    def forward(self, ids: list[int], features: torch.Tensor, drops: list[tuple[int, list[int]]]):
        """Logits of the last position and every layer's attention (heads, N, N), where it is eager.

        ``drops``: after which layer which positions of the prompt are hidden.
        With ``renumbers``, the layers after a drop count what is not hidden, 0, 1, 2, ...
        """
        ids_tensor = torch.tensor([ids])
        embeds = self.decoder.embed_tokens(ids_tensor)
        embeds[0, self.visual_positions(ids)[: len(features)]] = features  # an answer may hold the image token as well
        lowest = torch.finfo(embeds.dtype).min
        causal = torch.full((len(ids), len(ids)), lowest, dtype=embeds.dtype).triu(1)[None, None]
        attentions = []

        def masking(dropped):
            pruned = causal.clone()
            pruned[..., dropped] = lowest
            pruned[..., range(len(ids)), range(len(ids))] = 0.0  # a dropped token's own, unseen row must stay finite

            positions = [position - sum(other < position for other in dropped) for position in range(len(ids))]

            def mask_columns(module, args, kwargs):
                kwargs["attention_mask"] = pruned
                if self.renumbers:
                    kwargs["position_embeddings"] = self.decoder.rotary_emb(embeds, torch.tensor([positions]))
                return args, kwargs

            return mask_columns

        def read_attention(module, args, output):
            attentions.append(output[1][0] if output[1] is not None else None)

        def keep_visual(module, args, output):
            kept = output.clone()
            kept[:, visual] = args[0][:, visual]
            return kept

        def replacing(positions, states):
            def replace(module, args, output):
                output = output.clone()
                output[0, positions] = states
                return output

            return replace

        visual = self.visual_positions(ids)[: len(features)]
        hooks = [block.self_attn.register_forward_hook(read_attention) for block in self.decoder.layers]
        if self.freeze_after_layer is not None:
            frozen = self.decoder.layers[self.freeze_after_layer :]
            hooks += [block.register_forward_hook(keep_visual) for block in frozen]
        for layer, (positions, states) in self.replaced.items():
            hooks.append(self.decoder.layers[layer - 1].register_forward_hook(replacing(positions, states)))
        for layer, dropped in drops:
            later = self.decoder.layers[layer:]
            hooks += [block.register_forward_pre_hook(masking(dropped), with_kwargs=True) for block in later]
        try:
            hidden = self.decoder(inputs_embeds=embeds, attention_mask=causal, use_cache=False).last_hidden_state
        finally:
            for hook in hooks:
                hook.remove()
        return self.model.lm_head(hidden[0, -1]), attentions

    def visual_positions(self, ids: list[int]) -> list[int]:
        return [index for index, token in enumerate(ids) if token == self.checkpoint.image_token_id]

    def select(self, ids: list[int], features: torch.Tensor, layer: int, rows: list[int], n_keep: int) -> list[int]:
        """Top-k visual indices by `scores`."""
        scores = self.scores(ids, features, layer, rows)
        return sorted(scores.argsort(descending=True, stable=True)[:n_keep].tolist())

    def scores(
        self,
        ids: list[int],
        features: torch.Tensor,
        layer: int,
        rows: list[int],
        stages: list[tuple[int, list[int]]] = (),
    ) -> torch.Tensor:
        """What each visual token gets of the eager attention of 1-based ``layer``, mean over heads and given rows."""
        with self.eager():
            _, attentions = self.forward(ids, features, self.drops(ids, stages))
        return attentions[layer - 1][:, rows][..., self.visual_positions(ids)].mean((0, 1))

    def projections(
        self, ids: list[int], features: torch.Tensor, layer: int, stages: list[tuple[int, list[int]]] = ()
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values of 1-based ``layer`` as its own linear layers give them: (heads, N, head_dim) each.

        Keys and values are repeated, so that all three have as many heads.
        """
        attention, seen = self.decoder.layers[layer - 1].self_attn, {}
        hooks = [
            getattr(attention, name).register_forward_hook(
                lambda module, args, output, name=name: seen.update({name: output})
            )
            for name in ("q_proj", "k_proj", "v_proj")
        ]
        try:
            self.forward(ids, features, self.drops(ids, stages))
        finally:
            for hook in hooks:
                hook.remove()
        queries, keys, values = (
            seen[name][0].unflatten(-1, (-1, attention.head_dim)).transpose(0, 1)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        group = len(queries) // len(keys)
        return queries, keys.repeat_interleave(group, dim=0), values.repeat_interleave(group, dim=0)

    def drops(self, ids: list[int], stages: list[tuple[int, list[int]]]) -> list[tuple[int, list[int]]]:
        """Stages as (layer, kept visual tokens) to (layer, dropped positions)."""
        visual = self.visual_positions(ids)
        return [(layer, [visual[i] for i in range(len(visual)) if i not in set(kept)]) for layer, kept in stages]

    def output_after(self, ids, features, layer: int, stages: list[tuple[int, list[int]]]) -> torch.Tensor:
        """What 1-based ``layer`` puts out after the drops of ``stages``, (N, C)."""
        seen = []
        hook = self.decoder.layers[layer - 1].register_forward_hook(lambda module, args, output: seen.append(output[0]))
        try:
            self.forward(ids, features, self.drops(ids, stages))
        finally:
            hook.remove()
        return seen[0]

    def outputs(self, ids: list[int], features: torch.Tensor, layer: int) -> torch.Tensor:
        """What 1-based ``layer`` puts out, (N, C); layer 0 is the input."""
        return self._read(ids, features).hidden_states[layer][0]

    def keys(self, ids: list[int], features: torch.Tensor, layer: int) -> torch.Tensor:
        """The keys of 1-based ``layer`` after RoPE, (1, kv_heads, N, head_dim)."""
        return self._read(ids, features).past_key_values.layers[layer - 1].keys

    @torch.no_grad()
    def _read(self, ids: list[int], features: torch.Tensor):
        embeds = self.decoder.embed_tokens(torch.tensor([ids]))
        embeds[0, self.visual_positions(ids)] = features
        return self.decoder(inputs_embeds=embeds, use_cache=True, output_hidden_states=True)

    def answer(
        self, ids: list[int], features: torch.Tensor, stages: list[tuple[int, list[int]]], n_new: int
    ) -> Reference:
        """Greedy answer with only those visual tokens visible after each layer; the first token is not the stop."""
        drops = self.drops(ids, stages)  # of the prompt: what is generated is never dropped
        sequence, first = list(ids), None
        while len(sequence) - len(ids) < n_new:
            logits, _ = self.forward(sequence, features, drops)
            if first is None:
                first = logits
                logits = logits.clone()
                logits[self.checkpoint.eos_id] = -torch.inf
            token = int(logits.argmax())
            if token == self.checkpoint.eos_id:
                break
            sequence.append(token)
        return Reference(first, sequence[len(ids) :])
