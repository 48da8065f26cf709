"""Read the files of a checkpoint as untrusted input."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from collections.abc import Iterator

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_FLOATS = ("F64", "F32", "F16", "BF16")
_JSON_LIMIT = 64 * 2**20  # bytes; the largest tokenizer.json in use has 11 million bytes


def read_text(path: Path) -> str:
    """Read a text file of a checkpoint.

    Raises:
        DeeplayerError: the file is missing, larger than 64 MiB, or not UTF-8.
    """
    try:
        if path.stat().st_size > _JSON_LIMIT:
            raise DeeplayerError(
                f"{path} is larger than {_JSON_LIMIT // 2**20} MiB: no text file of InternVL is that large"
            )
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DeeplayerError(
            f"cannot read {path}: there is no such file, so {path.parent} is no whole checkpoint; name another folder, "
            "or download it again"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DeeplayerError(f"cannot read {path} ({error}): download the checkpoint again") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file whose content is an object.

    Raises:
        DeeplayerError: the file cannot be read, is not JSON, or holds a JSON value that is not an object.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DeeplayerError(f"{path} is not valid JSON ({error}): download the checkpoint again") from error
    if not isinstance(content, dict):
        raise DeeplayerError(f"{path} holds a JSON {type(content).__name__}, but must hold an object")
    return content


@dataclass(frozen=True)
class StoredTensor:
    """The location and the shape of a stored tensor.

    Attributes:
        file: safetensors file that holds the tensor.
        shape: shape of the tensor.
    """

    file: Path
    shape: tuple[int, ...]


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """List the tensors of a checkpoint folder by name, from the headers of its safetensors files.

    Raises:
        DeeplayerError: the folder has no safetensors files, a file is missing, damaged or outside of the folder, or a
            tensor does not have a float dtype.
    """
    index = folder / INDEX
    promised = _weight_map(index) if index.is_file() else {}
    names = sorted(set(promised.values())) or [SINGLE]
    if outside := [name for name in names if Path(name).name != name]:
        raise DeeplayerError(f"{index} points outside its folder, to {outside[0]!r}: do not trust this checkpoint")
    found: dict[str, StoredTensor] = {}
    for file in (folder / name for name in names):
        found.update(_headers(file))
    if absent := [name for name in promised if name not in found]:
        raise DeeplayerError(f"{index} lists {absent[0]!r}, but no file holds it: download the checkpoint again")
    return found


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise DeeplayerError(f"{index} has no map of tensor names to file names: download the checkpoint again")
    return weight_map


def _headers(file: Path) -> dict[str, StoredTensor]:
    if not file.is_file():
        raise DeeplayerError(_missing(file))
    with open_tensors(file) as tensors:
        slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - not a dict
        if odd := [name for name, part in slices.items() if part.get_dtype() not in _FLOATS]:
            kind = slices[odd[0]].get_dtype()
            raise DeeplayerError(
                f"{file} stores {odd[0]!r} as {kind}: quantised checkpoints are not supported, use the original"
            )
        return {name: StoredTensor(file, tuple(part.get_shape())) for name, part in slices.items()}


@contextmanager
def open_tensors(file: Path) -> Iterator[Any]:
    """Open a safetensors file as a context manager, for lazy reading on the CPU.

    Raises:
        DeeplayerError: the file cannot be read, on opening or inside the ``with`` block.
    """
    try:
        with safe_open(file, framework="pt", device="cpu") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise DeeplayerError(f"{file} is damaged ({error}): download it again") from error


def _missing(file: Path) -> str:
    if any(path.suffix in PICKLES for path in file.parent.iterdir()):
        return f"{file.parent} has its weights only as a pickle, and a pickle can run code: convert it to {SINGLE}"
    return f"{file.parent} has no {file.name}: download the checkpoint again"
