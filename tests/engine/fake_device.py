"""The engine on a device that computes nothing: it counts kernels, host syncs, copies, attention calls and bytes.

Tensors are fake: they have a shape, a dtype and a device, but no values. So the 8B runs at its real shapes on any
machine. Torch can have only one such device per process: run this module as a program, which prints its counts as JSON.
"""

from __future__ import annotations

import json
import sys
import weakref
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deeplayer_cli.device import float64

DEVICE = "fakegpu"
MODEL, TILES, MAX_NEW_TOKENS = "random:8b", 7, 3
EXPRESSIONS = (
    "the small red circle left of the blue square",
    "a dog",
    "the cup",
    "the large green triangle at the top",
)
METHODS = ("none", "deep-layer", "deep-layer-mis", "fastv", "pyramiddrop", "primed", "scout-focus", "sparsevlm-nomerge")
N_LAYERS = 7  # the fewest where the three drops of SparseVLM come after different layers
MEASURED = ("none", "deep-layer", "deep-layer-mis", "divprune")
_NO_KERNEL = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "_unsafe_view",
    "_reshape_alias",
}


@dataclass
class Counts:
    """What a device did; places are lines of the package, as ``file:line``.

    Attributes:
        kernels: number of kernels.
        waits: places that read a value from the device while the host waits, one tensor's element or size each.
        reads: places that copy from the device to the host, which waits for the copy.
        blocking: places that copy from the host to the device, and wait.
        grouped: places that call attention with a mask and with keys that several heads share.
        doubles: places that make a float64 tensor on the device.
        peak: peak bytes above those of the weights.
    """

    kernels: int = 0
    waits: Counter = field(default_factory=Counter)
    reads: Counter = field(default_factory=Counter)
    blocking: Counter = field(default_factory=Counter)
    grouped: Counter = field(default_factory=Counter)
    doubles: Counter = field(default_factory=Counter)
    peak: int = 0


class Probe(TorchDispatchMode):
    """Counts what runs on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.counts, self.live, self._alive = Counts(), 0, set()

    @contextmanager
    def phase(self, found, name):
        """Count what happens inside for a phase of this name."""
        self.counts = Counts(peak=self.live)
        yield
        found[name], self.counts = vars(self.counts), Counts()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.namespace == "prim":  # asks for the device of a tensor
            return func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        if name == "_local_scalar_dense" and isinstance(args[0], FakeTensor):
            return self._value(args[0])
        if name in ("_unique2", "nonzero"):
            self.counts.waits[_place()] += 1
            indices = args[0].new_empty(args[0].shape[-1], dtype=torch.int64)  # as if most were the same
            return (indices, indices, indices) if name == "_unique2" else indices[:, None]
        before = {_kind(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, torch.Tensor)}
        result = func(*args, **kwargs)
        tensors = [tensor for tensor in tree_leaves(result) if isinstance(tensor, torch.Tensor)]
        after = {_kind(tensor) for tensor in tensors}
        if name in ("_to_copy", "copy_") and {"cpu", DEVICE} <= before | after:
            is_blocking = not (kwargs.get("non_blocking") or (name == "copy_" and args[2:] == (True,)))
            if DEVICE not in after:
                self.counts.reads[_place()] += 1
            elif is_blocking:
                self.counts.blocking[_place()] += 1
        if any(_kind(tensor) == DEVICE and tensor.dtype == torch.float64 for tensor in tensors):
            self.counts.doubles[_place()] += 1
        if DEVICE in after:
            self.counts.kernels += not func.is_view and name not in _NO_KERNEL
            self._hold(tensors)
        return result

    def _value(self, tensor):
        """An answer for code that asks for a value: yes; in the rounds of the independent set, no after the third."""
        if _kind(tensor) == DEVICE:
            place = _place()
            self.counts.waits[place] += 1
            if tensor.dtype == torch.bool:
                return "independent_set" not in place or self.counts.waits[place] % 3 != 0
        return {torch.bool: False, torch.float32: 0.5}.get(tensor.dtype, 1)

    def _hold(self, tensors):
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if _kind(tensor) == DEVICE and storage._cdata not in self._alive:
                self._alive.add(storage._cdata)
                self.live += storage.nbytes()
                self.counts.peak = max(self.counts.peak, self.live)
                weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())

    def _free(self, key, n_bytes):
        self._alive.discard(key)
        self.live -= n_bytes

    def attention(self, queries, keys, values, attn_mask=None, *, is_causal=False, enable_gqa=False, **_):
        """Stands in for torch's attention: one kernel, which allocates its result only."""
        assert enable_gqa or queries.shape[1] == keys.shape[1]
        assert is_causal or attn_mask is None or attn_mask.shape[-2:] == (queries.shape[2], keys.shape[2])
        if attn_mask is not None and queries.shape[1] != keys.shape[1]:
            self.counts.grouped[_place()] += 1
        self.counts.kernels += 1
        return torch.empty_like(queries)


def _kind(tensor):
    return getattr(tensor, "fake_device", tensor.device).type


def _place():
    frame = sys._getframe()
    while frame is not None and "/deeplayer_cli/" not in frame.f_code.co_filename:
        frame = frame.f_back
    if frame is None:
        return "elsewhere"
    return f"{frame.f_code.co_filename.rpartition('/deeplayer_cli/')[2]}:{frame.f_lineno}"


def register_device():
    """Register the fake device in this process, and import the engine for it."""
    backend_registration._setup_privateuseone_for_python_backend(DEVICE)
    FakeTensorMode.avoid_device_init = property(lambda _: True)
    inference_mode = torch.inference_mode
    torch.inference_mode = torch.no_grad  # for the engine's decorators: a Python backend has no inference tensors
    import_module("deeplayer_cli.engine")
    torch.inference_mode = inference_mode


def fake_checkpoint(n_layers):
    """The 8B with fewer decoder layers, as fake tensors; its RoPE is that of the published configuration."""
    from deeplayer_cli.checkpoints import Checkpoint, random_weights
    from deeplayer_cli.checkpoints.layout import empty_model

    layout = random_weights.read(MODEL)
    assert layout.config.text_config.rope_parameters["rope_type"] == "dynamic"
    layout.config.text_config.num_hidden_layers = n_layers
    layout.config.vision_config.num_hidden_layers = 2
    model = empty_model(layout.config, torch.bfloat16, "sdpa")
    for module in model.modules():
        for kind in (module._parameters, module._buffers):
            for name, tensor in kind.items():
                if tensor is not None:
                    moved = torch.empty(tensor.shape, dtype=tensor.dtype, device=DEVICE)
                    kind[name] = torch.nn.Parameter(moved, requires_grad=False) if kind is module._parameters else moved
    tokenizer = layout.tokenizer
    return Checkpoint(MODEL, model, tokenizer, layout.prompt, layout.tiling, tokenizer.token_id("<|im_end|>"))


def run(probe, checkpoint, method, *, n_images=2, n_rows=4, union=False, mass=None):
    """Answer rows about images with a method; the counts of each phase."""
    from deeplayer_cli import pruning
    from deeplayer_cli.engine import Engine, Row, each_row, union_of_rows
    from deeplayer_cli.models.internvl.answer_format import TemplateDraft

    weights, found, n_layers = probe.live, {}, checkpoint.model.config.text_config.num_hidden_layers
    engine = Engine(
        checkpoint,
        pruning.build(method, pruning.Options(pruning.Budget(0.1, mass=mass)), n_layers),
        draft=TemplateDraft.from_tokenizer(checkpoint.tokenizer),
        pruned_layers=union_of_rows if union else each_row,
        watched=(5, 6, 7),
    )
    with probe.phase(found, "encode"):
        images = engine.encode(torch.empty(n_images, TILES, 3, 448, 448, dtype=torch.uint8))
    n_visual = images.features.shape[1]
    places = pruning.token_places((TILES - 1, 1), TILES, n_visual).expand(n_images, -1, -1)
    with probe.phase(found, "prefix"):
        prefix = engine.prefix(images, places)
    ids = [checkpoint.tokenizer.encode_expression(expression) for expression in EXPRESSIONS]
    rows = [Row(index % n_images, ids[index % len(ids)], index) for index in range(n_rows)]
    with probe.phase(found, "prefill"):
        prompts = engine.prefill(prefix, rows, MAX_NEW_TOKENS)
    with probe.phase(found, "decode"):
        answers = engine.decode(prompts, MAX_NEW_TOKENS)
    for counts in found.values():
        counts["peak"] -= weights  # what comes before a phase and stays in memory counts for it
    return found | {"passes": max(answer.n_passes for answer in answers), "expression": max(map(len, ids))}


def main():
    """Print the counts of every case."""
    register_device()
    probe = Probe()
    functional.scaled_dot_product_attention = probe.attention
    with FakeTensorMode(allow_non_fake_inputs=True), probe:
        small, whole = fake_checkpoint(N_LAYERS), fake_checkpoint(32)
        cases = {method: run(probe, small, method) for method in METHODS}
        cases["union"] = run(probe, small, "deep-layer", n_images=1, union=True)
        cases["adaptive"] = run(probe, small, "deep-layer", mass=0.5)
        cases["one layer more"] = run(probe, fake_checkpoint(N_LAYERS + 1), "none")
        cases |= {f"{method}, all layers": run(probe, whole, method, n_images=4) for method in MEASURED}
        with patch.object(float64, "_WITHOUT", {DEVICE}):
            cases |= {f"{method}, no float64": run(probe, small, method) for method in ("cdpruner", "random")}
            cases["adaptive, no float64"] = run(probe, small, "deep-layer", mass=0.5)
    json.dump(cases, sys.stdout)


if __name__ == "__main__":
    main()
