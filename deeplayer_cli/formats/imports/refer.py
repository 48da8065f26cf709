"""The original RefCOCO files: ``refs(unc|google|umd).p`` with ``instances.json`` beside it (lichengunc/refer)."""

from __future__ import annotations

import pickle
import re
from mmap import ACCESS_READ, mmap
from typing import TYPE_CHECKING, Any, NoReturn

from deeplayer_cli.errors import DeeplayerError, RowError
from deeplayer_cli.formats.imports.coco import read_images, stated_size
from deeplayer_cli.formats.imports.example import BadExample, ImportedExample
from deeplayer_cli.formats.imports.json_stream import object_members
from deeplayer_cli.formats.imports.splits import name_dataset

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from deeplayer_cli.formats.imports.example import Example

MAX_PICKLE_BYTES = 2**29
"""The largest file of refs, in bytes: a pickle is read as a whole."""

_BEGINNINGS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"(l", b"(d", b"]q", b"}q", b"c", b"(c")
_PLAIN = pickle.MARK + pickle.STOP + pickle.POP + pickle.POP_MARK + pickle.DUP + pickle.PROTO + pickle.FRAME
_PLAIN += pickle.INT + pickle.BININT + pickle.BININT1 + pickle.BININT2 + pickle.LONG + pickle.LONG1 + pickle.LONG4
_PLAIN += pickle.FLOAT + pickle.BINFLOAT + pickle.NONE + pickle.NEWTRUE + pickle.NEWFALSE
_PLAIN += pickle.STRING + pickle.BINSTRING + pickle.SHORT_BINSTRING + pickle.BINBYTES + pickle.SHORT_BINBYTES
_PLAIN += pickle.UNICODE + pickle.BINUNICODE + pickle.SHORT_BINUNICODE + pickle.BINUNICODE8
_PLAIN += pickle.EMPTY_LIST + pickle.LIST + pickle.APPEND + pickle.APPENDS + pickle.EMPTY_DICT + pickle.DICT
_PLAIN += pickle.SETITEM + pickle.SETITEMS + pickle.EMPTY_TUPLE + pickle.TUPLE
_PLAIN += pickle.TUPLE1 + pickle.TUPLE2 + pickle.TUPLE3
_PLAIN += pickle.GET + pickle.BINGET + pickle.LONG_BINGET + pickle.PUT + pickle.BINPUT + pickle.LONG_BINPUT
_PLAIN += pickle.MEMOIZE


# Python's own implementation: the one in C reserves memory for every number below the largest of its memo.
class PlainUnpickler(pickle._Unpickler):
    """Builds lists, dicts, strings and numbers. It knows no instruction that could name, make or call anything else."""

    dispatch = {code: load for code, load in pickle._Unpickler.dispatch.items() if code in _PLAIN}  # noqa: RUF012

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse.

        Raises:
            UnpicklingError: always.
        """
        raise pickle.UnpicklingError(f"it names {module}.{name}, and these files hold plain data only")


def is_pickle(path: Path) -> bool:
    """Whether a file begins as pickles of a list or a dict do, in any protocol, or calls itself one."""
    with path.open("rb") as stream:
        return stream.read(2).startswith(_BEGINNINGS) or path.suffix in (".p", ".pkl", ".pickle")


def read_refer(path: Path) -> Iterator[Example]:
    """One example for each sentence of each ref; boxes from ``instances.json``, xywh in pixels.

    Raises:
        DeeplayerError: a file is missing, is not what it should be, or would run code.
    """
    refs, instances = _load_refs(path), path.with_name("instances.json")
    if not instances.is_file():
        raise DeeplayerError(f"{path} needs {instances} beside it: the boxes are there")
    wanted = {ref["ann_id"] for ref in refs if isinstance(ref.get("ann_id"), int)}
    boxes = {
        one["id"]: one["bbox"]
        for name, one in object_members(instances)
        if name == "annotations" and isinstance(one, dict) and one.get("id") in wanted
    }
    images, _ = read_images(instances)
    partition = re.search(r"\((\w+)\)", path.name)
    named: dict[str, object] = {"dataset": name_dataset(path.parent.name) or name_dataset(path.name)}
    named["partition"] = partition[1] if partition else None
    named = {name: value for name, value in named.items() if value is not None}
    for ref in refs:
        try:
            yield from _examples(ref, images, boxes, named)
        except (KeyError, TypeError) as error:
            yield BadExample(RowError("bad_row", f"ref {_plain(ref.get('ref_id'))!r} has no usable {error}"))


def _examples(
    ref: Mapping[str, Any],
    images: Mapping[int, Mapping[str, Any]],
    boxes: Mapping[int, object],
    named: dict[str, object],
) -> Iterator[Example]:
    image = images[ref["image_id"]]  # the ref's own file_name has an annotation's number in it
    ids = {name: _plain(ref[name]) for name in ("split", "ref_id", "ann_id", "image_id")}
    for sentence in ref["sentences"]:
        meta = named | ids | {"sent_id": _plain(sentence["sent_id"])}
        yield ImportedExample(
            image["file_name"], _plain(sentence["sent"]), boxes[ref["ann_id"]], stated_size(image), meta=meta
        )


def _plain(value: object) -> str | int | None:
    """A string or a number; a pickle may hold nested lists that are endless when written."""
    return value if isinstance(value, (str, int)) else None


def _load_refs(path: Path) -> list[dict[str, Any]]:
    try:
        if path.stat().st_size > MAX_PICKLE_BYTES:
            raise pickle.UnpicklingError(f"it is larger than {MAX_PICKLE_BYTES:,} bytes")
        # A file in memory gives no more than it has, whatever length an instruction claims.
        with path.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
            refs = PlainUnpickler(content, encoding="latin-1").load()  # written by Python 2
    except KeyError as error:  # no such instruction
        raise DeeplayerError(
            f"{path} is refused: it holds more than lists, dicts, strings and numbers, so reading it could run code "
            f"(instruction {error})"
        ) from error
    except Exception as error:  # a broken or hostile pickle raises nearly anything
        raise DeeplayerError(f"{path} is not a file of refs: {error}") from error
    if not isinstance(refs, list) or not all(isinstance(ref, dict) and "sentences" in ref for ref in refs):
        raise DeeplayerError(f"{path} is not a file of refs: it is no list of refs with sentences")
    return refs
