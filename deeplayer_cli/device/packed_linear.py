"""Linear layers with packed weights: on a CPU, oneDNN multiplies by them faster than torch does by plain ones.

In float32, torch keeps weights row by row and calls MKL; in bfloat16, it calls oneDNN, which reorders them each time. A
packed weight is one that oneDNN has reordered once for its own kernels. ``torch.compile`` with frozen weights packs in
the same way; without a compiler, there is no public call.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """A linear layer for inference on a CPU.

    Args:
        linear: the layer to copy.

    Attributes:
        weight: (out, in), in oneDNN's layout; ``weight.to_dense()`` is the plain weight.
        bias: (out,) or None.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(_pack(linear.weight.detach()), requires_grad=False)
        self.bias = linear.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiply ``inputs`` (..., in) by the weight; returns (..., out)."""
        return multiply(inputs, self.weight, self.bias)


def multiply(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply ``inputs`` (..., in) by the transpose of a plain or packed weight (out, in), by oneDNN: (..., out)."""
    outputs: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return outputs


def can_multiply(dtype: torch.dtype, *, packed: bool) -> bool:
    """Whether this torch and this processor `multiply` by plain or packed weights of a dtype."""
    inputs, weight = torch.ones(1, 2, dtype=dtype), torch.ones(2, 2, dtype=dtype)
    try:
        return bool(multiply(inputs, _pack(weight) if packed else weight).isfinite().all())
    except (RuntimeError, AttributeError):  # AttributeError: a torch without oneDNN lacks the operators
        return False


@torch.inference_mode()
def pack_linears(model: nn.Module, dtype: torch.dtype) -> None:
    """Replace the linear layers of a model on a CPU, one after the other, if weights of its dtype can be packed.

    A layer that shares its weight with an embedding stays as it is, because packing would copy the weight.
    """
    if dtype not in (torch.float32, torch.bfloat16) or not can_multiply(dtype, packed=True):
        return
    shared = {module.weight.data_ptr() for module in model.modules() if isinstance(module, nn.Embedding)}
    names = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    for name in names:  # names, not modules: the memory of one is free before the next is packed
        linear = model.get_submodule(name)
        if isinstance(linear, nn.Linear) and linear.weight.data_ptr() not in shared:
            model.set_submodule(name, PackedLinear(linear))


def plain_weight(weight: Tensor) -> Tensor:
    """The numbers of a weight in torch's own order; a packed weight has another."""
    return weight.to_dense() if weight.is_mkldnn else weight.detach()


def has_packed_linears(model: nn.Module) -> bool:
    """Whether any linear layer of a model is packed."""
    return any(isinstance(module, PackedLinear) for module in model.modules())


def _pack(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, None)  # None: for any number of rows
    return packed
