"""Folders of images: which files are read, and which are skipped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.images.formats import OTHER_SUFFIXES, SUFFIXES, way_out
from deeplayer_cli.schema import in_text
from deeplayer_cli.schema.values import counted
from deeplayer_cli.sources.expression_file import EXPRESSION_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SHOWN = 3  # names in a sentence


class Folder:
    """The images of a folder and its subfolders, sorted.

    Hidden files and folders are left out. A linked subfolder is read, unless its images are read anyway, or the link
    leads to a folder around this one, or out of ``inside``; such a link is yielded in place of its images, so that it
    becomes a bad row.

    Args:
        root: the folder.
        inside: the folder that linked subfolders must lie in; None for no limit.

    Attributes:
        unread: the images of the last walk in formats that are not read.
        links: the linked subfolders of the last walk that were not followed.
        n_others: the number of other files in the last walk, without the text files of images.
    """

    def __init__(self, root: Path, inside: Path | None = None) -> None:
        self.root = root
        self._real = Path(os.path.realpath(root))
        self._inside = None if inside is None else Path(os.path.realpath(inside))
        self.unread: list[Path] = []
        self.links: list[Path] = []
        self.n_others = 0

    def __iter__(self) -> Iterator[Path]:
        """Walk through the folder.

        Raises:
            DeeplayerError: a folder cannot be listed; the message names it.
        """
        self.unread, self.links, self.n_others = [], [], 0
        waiting, walked = [self.root], set[Path]()
        while waiting:
            folder = waiting.pop()
            if folder.is_symlink() and folder != self.root:
                if self._leads_out(folder):
                    yield folder
                    continue
                if self._leads_back(folder):
                    self.links.append(folder)
                    continue
            real = Path(os.path.realpath(folder))
            if real in walked:
                self.links.append(folder)
                continue
            walked.add(real)
            files, folders = _entries(folder)
            yield from self._images_of(files)
            waiting += reversed(folders)

    def skipped(self) -> list[str]:
        """Return sentences about what the last walk left out."""
        sentences = []
        for way, suffixes in _by_way_out(self.unread).items():
            files = [path for path in self.unread if path.suffix.lower() in suffixes]
            sentences.append(
                f"{in_text(self.root)}: {self._names(files)} skipped: {', '.join(suffixes)} is not read; {way}"
            )
        if self.links:
            sentences.append(
                f"{in_text(self.root)}: {self._names(self.links)} skipped: the linked folder is read already, or "
                "contains this one"
            )
        if self.n_others:
            what = counted(self.n_others, "file that is no image", "files that are no images")
            sentences.append(f"{in_text(self.root)}: {what} skipped")
        return sentences

    def _leads_out(self, link: Path) -> bool:
        return self._inside is not None and not Path(os.path.realpath(link)).is_relative_to(self._inside)

    def _leads_back(self, link: Path) -> bool:
        target = Path(os.path.realpath(link))
        if target.is_relative_to(self._real):
            return not any(part.startswith(".") for part in target.relative_to(self._real).parts)
        return self._real.is_relative_to(target)

    def _images_of(self, files: Sequence[Path]) -> Iterator[Path]:
        images = [file for file in files if file.suffix.lower() in SUFFIXES]
        texts = {image.with_suffix(EXPRESSION_SUFFIX) for image in images}
        unread = [file for file in files if file.suffix.lower() in OTHER_SUFFIXES]
        self.unread += unread
        self.n_others += len(files) - len(images) - len(unread) - sum(file in texts for file in files)
        yield from images

    def _names(self, paths: Sequence[Path]) -> str:
        """Return the first paths within the folder, and how many more there are."""
        shown = ", ".join(in_text(path.relative_to(self.root)) for path in paths[:_SHOWN])
        return f"{shown} and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else shown


def _by_way_out(paths: Sequence[Path]) -> dict[str, list[str]]:
    """Return the endings of files that are not read, by what lets them be read."""
    found: dict[str, list[str]] = {}
    for suffix in sorted({path.suffix.lower() for path in paths}):
        found.setdefault(way_out(suffix), []).append(suffix)
    return found


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files and the folders in a folder, without hidden ones, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise DeeplayerError(f"{in_text(folder)} cannot be read: {error.strerror}") from error
    files: list[Path] = []
    folders: list[Path] = []
    for path in (folder / name for name in names):
        (folders if os.path.isdir(path) else files).append(path)  # noqa: PTH112 - false where it cannot be told
    return files, folders
