"""Files that a command writes as a whole: tables, plots, priors, converted data."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from deeplayer_cli.errors import DeeplayerError, writing
from deeplayer_cli.sinks import disk
from deeplayer_cli.sinks.descriptors import named_descriptor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def refuse_output(path: Path, *, inputs: Iterable[str | Path] = (), overwrite: bool = False) -> None:
    """Refuse an output before any work.

    Args:
        path: of the output, a file or a folder.
        inputs: files and folders that the command reads.
        overwrite: whether the output may replace what exists.

    Raises:
        DeeplayerError: the output is an input, exists already, or its folder does not exist.
    """
    if named_descriptor(path, dash=1) is not None:
        return
    for source in inputs:
        with suppress(OSError):  # one of them does not exist
            if path.samefile(source):
                raise DeeplayerError(f"{path} is also an input: write to another file")
    if os.path.lexists(path) and not overwrite and not _is_stream(path):
        raise DeeplayerError(f"{path} exists: --overwrite replaces it")
    if not path.parent.is_dir():
        raise DeeplayerError(f"{path} cannot be written: there is no folder {path.parent}")


def refuse_folder(folder: Path) -> None:
    """Refuse a path that cannot be a folder to write into, before any work.

    Raises:
        DeeplayerError: it is stdout or another stream, a file, or the root of the file system; or the folder that it
            would be in does not exist.
    """
    is_other = os.path.lexists(folder) and not folder.is_dir()
    if is_other or named_descriptor(folder, dash=1) is not None or not Path(os.path.realpath(folder)).name:
        raise DeeplayerError(f"{folder} is not a folder that can be written: name another")
    if not folder.parent.is_dir():
        raise DeeplayerError(f"{folder} cannot be written: there is no folder {folder.parent}")


def is_stream(path: Path) -> bool:
    """Whether an output is no file of its own: an open descriptor such as ``-``, a pipe or a device."""
    return named_descriptor(path, dash=1) is not None or _is_stream(path)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file as a whole or not at all.

    The block writes to the path that it gets. When it ends well, that file is on the disk and takes the place of
    ``path``. A link stays a link: the file that it points to is replaced. The mode of a replaced file stays. A pipe or
    a device is written directly; an open descriptor, such as ``-`` for stdout, gets what the block wrote at the end.

    Raises:
        DeeplayerError: the system refuses; what was there before is still there.
    """
    descriptor = named_descriptor(path, dash=1)
    if descriptor is not None:
        with TemporaryDirectory() as folder:
            yield (written := Path(folder, "output"))
            _copy(written, descriptor)
        return
    if path.is_dir():
        raise DeeplayerError(f"{path} is a folder: name a file in it")
    if _is_stream(path):
        with writing(str(path)):
            yield path
        return
    target = Path(os.path.realpath(path))
    partial = target.with_name(f".{target.stem}.partial{target.suffix}")  # writers look at the suffix
    with writing(str(path)):
        try:
            yield partial
            _finish(partial, target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def replacing_entries(folder: Path) -> Iterator[Path]:
    """Write entries of a folder as a whole or not at all, and leave its other entries alone.

    The block fills the folder that it gets. When it ends well, each entry in there takes the place of the one in
    ``folder`` that has the same name; ``folder`` is made if it is missing.

    Raises:
        DeeplayerError: the system refuses, or a folder to be replaced holds files of another kind than the new one;
            what was there before is still there.
    """
    target = Path(os.path.realpath(folder))
    partial, old = (target.with_name(f".{target.name}.{name}") for name in ("partial", "old"))
    with writing(str(folder)):
        try:
            if partial.is_dir():  # a run was killed before its end, perhaps with entries set aside
                _put_back(old, target)
            for one in (partial, old):
                if one.is_dir():
                    shutil.rmtree(one)
                one.mkdir()
            yield partial
            if not target.is_dir():
                target.mkdir()
            _refuse_foreign_files(partial, target)
            for entry in partial.iterdir():
                if os.path.lexists(target / entry.name):
                    disk.replace(target / entry.name, old / entry.name)
                disk.replace(entry, target / entry.name)
        except BaseException:
            _put_back(old, target)
            for one in (partial, old):
                shutil.rmtree(one, ignore_errors=True)
            raise
        shutil.rmtree(partial)
        shutil.rmtree(old)


def _refuse_foreign_files(partial: Path, target: Path) -> None:
    """Refuse to replace folders that hold files whose suffix no new file has, such as images or the input."""
    suffixes = {
        ".cache",
        *(file.suffix for file in partial.rglob("*") if file.is_file()),
    }  # ultralytics' cache of labels
    for entry in partial.iterdir():
        for file in (target / entry.name).rglob("*") if entry.is_dir() else ():
            if not file.is_dir() and file.suffix not in suffixes:
                raise DeeplayerError(f"{file} would be lost with its folder: move it, or name another folder")


def _put_back(old: Path, target: Path) -> None:
    for entry in old.iterdir() if old.is_dir() else ():
        new = target / entry.name
        shutil.rmtree(new) if new.is_dir() and not new.is_symlink() else new.unlink(missing_ok=True)
        entry.replace(new)


def _copy(path: Path, descriptor: int) -> None:
    if descriptor == 1:
        sys.stdout.flush()
    name = "stdout" if descriptor == 1 else f"/dev/fd/{descriptor}"
    with path.open("rb") as file, writing(name), open(descriptor, "wb", closefd=False) as stream:
        shutil.copyfileobj(file, stream)


def _finish(partial: Path, target: Path) -> None:
    """Bring a written file to the disk, with the mode of the file that it is going to replace, and replace that."""
    descriptor = os.open(partial, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(FileNotFoundError):
            os.fchmod(descriptor, stat.S_IMODE(target.stat().st_mode))
        disk.sync(descriptor)
    finally:
        os.close(descriptor)
    disk.replace(partial, target)


def _is_stream(path: Path) -> bool:
    """Whether something is there that is neither a file nor a folder."""
    return path.exists() and not path.is_file() and not path.is_dir()
