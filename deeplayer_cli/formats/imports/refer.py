"""The original RefCOCO files: ``refs(unc|google|umd).p`` with ``instances.json`` beside it (lichengunc/refer)."""

from __future__ import annotations

import pickle
import re
from typing import TYPE_CHECKING, Any, NoReturn

import orjson

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.formats.imports.example import ImportedExample
from deeplayer_cli.formats.imports.splits import name_dataset

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class PlainUnpickler(pickle.Unpickler):
    """Builds lists, dicts, strings and numbers; refuses every class and function, so that no code can run."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse.

        Raises:
            UnpicklingError: always.
        """
        raise pickle.UnpicklingError(f"it names {module}.{name}, and these files hold plain data only")


def read_refer(path: Path) -> Iterator[ImportedExample]:
    """One example for each sentence of each ref; boxes from ``instances.json``.

    Raises:
        DeeplayerError: a file is missing, is not what it should be, or would run code.
    """
    refs, instances = _load_refs(path), path.with_name("instances.json")
    if not instances.is_file():
        raise DeeplayerError(f"{path} needs {instances} beside it: the boxes are there")
    content = orjson.loads(instances.read_bytes())
    annotations = {one["id"]: one for one in content["annotations"]}
    images = {one["id"]: one for one in content["images"]}
    partition = re.search(r"\((\w+)\)", path.name)
    dataset = name_dataset(path.parent.name) or name_dataset(path.name)
    for ref in refs:
        image = images[ref["image_id"]]
        for sentence in ref["sentences"]:
            meta = {
                "dataset": dataset,
                "partition": partition[1] if partition else None,
                **{name: ref[name] for name in ("split", "ref_id", "ann_id", "image_id")},
                "sent_id": sentence["sent_id"],
            }
            yield ImportedExample(
                image["file_name"],  # the ref's own file_name has an annotation's number in it
                sentence["sent"],
                tuple(annotations[ref["ann_id"]]["bbox"]),
                (image["width"], image["height"]),
                meta={name: value for name, value in meta.items() if value is not None},
            )


def _load_refs(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open("rb") as stream:
            refs = PlainUnpickler(stream, encoding="latin-1").load()  # written by Python 2
    except Exception as error:  # a broken or hostile pickle raises nearly anything
        raise DeeplayerError(f"{path} is not a file of refs: {error}") from error
    if not isinstance(refs, list) or not all(isinstance(ref, dict) and "sentences" in ref for ref in refs):
        raise DeeplayerError(f"{path} is not a file of refs: it is no list of refs with sentences")
    return refs
