"""Packed linear layers compute what torch's own do, and a model loaded on a CPU has them."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch.nn import functional

from deeplayer_cli import checkpoints
from deeplayer_cli.checkpoints import checkpoint as loading
from deeplayer_cli.checkpoints.identity import fingerprint
from deeplayer_cli.device.packed_linear import PackedLinear, pack_linears

if not torch.backends.mkldnn.is_available():
    pytest.skip("this torch has no oneDNN", allow_module_level=True)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (2, 211), (3, 0), (1, 1500)])
def test_a_packed_layer_computes_what_the_plain_one_does(shape, bias):
    linear = nn.Linear(96, 160, bias=bias)
    inputs = torch.randn(*shape, 128)[..., 16:112]  # a view, as the engine's often are
    with torch.inference_mode():
        assert torch.allclose(
            PackedLinear(linear)(inputs), functional.linear(inputs, linear.weight, linear.bias), atol=1e-5
        )


needs_bfloat16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN has no bfloat16 on this processor"
)
DTYPES = [torch.float32, pytest.param(torch.bfloat16, marks=needs_bfloat16)]


@needs_bfloat16
@pytest.mark.parametrize("shape", [(1, 1), (2, 211), (1, 1500)])
def test_in_bfloat16_only_the_result_is_rounded(shape):
    linear = nn.Linear(96, 160, dtype=torch.bfloat16)
    inputs = torch.randn(*shape, 96).bfloat16()
    with torch.inference_mode():
        exact = functional.linear(inputs.double(), linear.weight.double(), linear.bias.double())
        torch.testing.assert_close(PackedLinear(linear)(inputs).double(), exact, atol=1e-4, rtol=2**-7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_plain_weight_can_be_read_back(dtype):
    linear = nn.Linear(33, 65, dtype=dtype)
    assert torch.equal(PackedLinear(linear).weight.to_dense(), linear.weight)


def test_a_weight_shared_with_an_embedding_is_not_copied():
    model = nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 8, bias=False), nn.Linear(8, 4))
    model[1].weight = model[0].weight
    pack_linears(model, torch.float32)
    assert [type(layer) for layer in model] == [nn.Embedding, nn.Linear, PackedLinear]


def test_a_dtype_that_cannot_be_packed_stays():
    model = nn.Sequential(nn.Linear(4, 4, dtype=torch.float64))
    pack_linears(model, torch.float64)
    assert type(model[0]) is nn.Linear


def test_a_torch_without_the_operators_stays():
    model = nn.Sequential(nn.Linear(4, 4))
    with patch("deeplayer_cli.device.packed_linear._pack", side_effect=AttributeError):
        pack_linears(model, torch.float32)
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_model_on_a_cpu_is_packed_and_keeps_its_fingerprint(dtype):
    name = str(dtype).removeprefix("torch.")
    packed = checkpoints.load("demo", device="cpu", dtype=name)
    with patch.object(loading, "pack_linears"):
        plain = checkpoints.load("demo", device="cpu", dtype=name)
    assert type(packed.model.lm_head) is PackedLinear and type(plain.model.lm_head) is nn.Linear
    assert fingerprint(packed.model) == fingerprint(plain.model)
    assert packed.model.num_parameters() == plain.model.num_parameters()
