"""Where the images of an imported file lie."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from deeplayer_cli.sinks.output_file import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator

_REFER_SUFFIX = re.compile(r"(?<=_\d{12})_\d+$")  # refs(unc).p name an image file once for each annotation
_COCO_ID = re.compile(r"(?:^|_)(\d{12})(?:_\d+)?$")
_SPLITS = ("train2014", "val2014", "train2017", "val2017", "test2017")
_USUAL_FOLDERS = (*_SPLITS, "images", *(f"{above}/{split}" for above in ("images", "coco") for split in _SPLITS))
_SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"RIFF": ".webp", b"BM": ".bmp", b"GIF8": ".gif"}
_UNSAFE = re.compile(r"[^\w.+-]")


@dataclass
class ImageFinder:
    """Finds image files below a folder, by the longest tail of their path that exists there.

    ``data/coco/train2014/1.jpg`` is found as ``FOLDER/data/coco/train2014/1.jpg``, else as
    ``FOLDER/coco/train2014/1.jpg``, and so on; a bare name also in COCO's usual subfolders.

    Attributes:
        folder: that images are searched in.
        anywhere: also take the path as it is, absolute or from ``folder`` on, even if it leads out of the folder.
        missing: images that were not found, with how often.
    """

    folder: Path
    anywhere: bool = False
    missing: dict[str, int] = field(default_factory=dict)
    _known: dict[str, Path | None] = field(default_factory=dict, repr=False)

    def find(self, image: str) -> Path | None:
        """The file of an image; None where there is none, which is noted in ``missing``."""
        if image not in self._known:
            self._known[image] = next((path for path in self._candidates(image) if is_file(path)), None)
        if self._known[image] is None:
            self.missing[image] = self.missing.get(image, 0) + 1
        return self._known[image]

    def _candidates(self, image: str) -> Iterator[Path]:
        if self.anywhere:
            yield self.folder / image
        parts = [part for part in PurePosixPath(image).parts if part not in ("/", "..", ".")]
        if not parts:
            return
        bare = PurePosixPath(parts[-1])
        names = [bare] if (plain := plain_name(bare)) == bare else [bare, plain]
        tails = (PurePosixPath(*parts[start:]) for start in range(len(parts)))
        usual = (PurePosixPath(folder, name) for name in names for folder in ("", *_USUAL_FOLDERS))
        for name in chain(tails, usual):
            yield self.folder / name


def plain_name(name: PurePosixPath) -> PurePosixPath:
    """A file name without the number of an annotation that RefCOCO's files append to COCO's names."""
    return name.with_name(_REFER_SUFFIX.sub("", name.stem) + name.suffix)


def coco_image_id(image: str) -> int | None:
    """The image id in a file name of COCO, such as ``COCO_train2014_000000000009.jpg``; None in other names."""
    found = _COCO_ID.search(PurePosixPath(image).stem)
    return int(found[1]) if found else None


def is_file(path: Path) -> bool:
    """Whether a path is a file; a path that the system does not take is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a NUL
        return False


def write_image(content: bytes, folder: Path, name: str) -> Path:
    """Write an image that lay inside a file, if it is not there yet; equal images become one file.

    Args:
        content: of the image.
        folder: to write in; made if needed.
        name: as the file calls it.

    Returns:
        The path: the name's stem, a hash of the content, and the suffix of the image's format.

    Raises:
        DeeplayerError: it cannot be written.
    """
    known = (suffix for magic, suffix in _SUFFIXES.items() if content.startswith(magic))
    stem = _UNSAFE.sub("_", plain_name(PurePosixPath(PurePosixPath(name).name or "image")).stem)[:80]
    digest = hashlib.blake2b(content, digest_size=8).hexdigest()
    path = folder / f"{stem}-{digest}{next(known, '.jpg')}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_bytes(content)
    return path
