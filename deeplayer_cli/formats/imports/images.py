"""Where the images of an imported file lie."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

_REFER_SUFFIX = re.compile(r"_\d+(?=\.jpg$)")  # refs(unc).p name an image file once for each annotation
_COCO_FOLDERS = ("", "train2014", "val2014", "train2017", "val2017", "images")


@dataclass
class ImageFinder:
    """Finds image files below a folder, by the longest tail of their path that exists there.

    ``data/coco/train2014/1.jpg`` is found as ``FOLDER/data/coco/train2014/1.jpg``, else as
    ``FOLDER/coco/train2014/1.jpg``, and so on; a bare name also in COCO's usual subfolders.

    Attributes:
        folder: that images are searched in.
        missing: images that were not found, with how often.
    """

    folder: Path
    missing: dict[str, int] = field(default_factory=dict)
    _known: dict[str, Path | None] = field(default_factory=dict, repr=False)

    def find(self, image: str) -> Path | None:
        """The file of an image; None where there is none, which is noted in ``missing``."""
        if image not in self._known:
            self._known[image] = next((path for path in self._candidates(image) if path.is_file()), None)
        if self._known[image] is None:
            self.missing[image] = self.missing.get(image, 0) + 1
        return self._known[image]

    def _candidates(self, image: str) -> list[Path]:
        parts = [part for part in PurePosixPath(image).parts if part not in ("/", "..", ".")]
        names = [PurePosixPath(*parts[start:]) for start in range(len(parts))]
        bare = parts[-1]
        names += [PurePosixPath(folder, bare) for folder in _COCO_FOLDERS]
        plain = _REFER_SUFFIX.sub("", bare)
        names += [PurePosixPath(folder, plain) for folder in _COCO_FOLDERS]
        return [self.folder / name for name in names]
