"""Check that a model fits into the free memory before its weights are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deeplayer_cli.checkpoints.sizes import SIZES
from deeplayer_cli.device.memory import free_bytes
from deeplayer_cli.device.placement import DTYPES
from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from deeplayer_cli.device.placement import Placement

_GIB = 2**30


def require_memory(name: str, parameters: int, placement: Placement) -> None:
    """Refuse a model whose weights do not fit into the free memory.

    Args:
        name: name of the model, for the message.
        parameters: number of parameters.
        placement: device and dtype of the weights.

    Raises:
        DeeplayerError: the weights do not fit. The message gives the sizes, and dtypes or models that fit.
    """
    free, needed = free_bytes(placement.device), parameters * placement.dtype.itemsize
    if free is None or needed <= free:
        return
    dtypes = [
        f"--dtype {dtype} ({parameters * kind.itemsize / _GIB:.1f} GiB)"
        for dtype, kind in DTYPES.items()
        if kind.itemsize < placement.dtype.itemsize and parameters * kind.itemsize <= free
    ]
    sizes = [size.name for size in SIZES if size.parameters * placement.dtype.itemsize <= free]
    smaller = [f"a smaller InternVL2.5 ({', '.join(sizes)})"] if sizes else ["--model demo"]
    raise DeeplayerError(
        f"{name} needs {needed / _GIB:.1f} GiB for its weights in {str(placement.dtype).removeprefix('torch.')}, and "
        f"{free / _GIB:.1f} GiB are free on {placement.device}: use {' or '.join(dtypes + smaller)}"
    )
