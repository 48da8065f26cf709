"""What ids, rows and messages call a source file, however its path was typed."""

from __future__ import annotations

import os
from pathlib import Path

from deeplayer_cli.schema.values import in_text


def file_name(path: Path) -> str:
    """Return ``FOLDER/FILE``: the name of the file's folder, with links followed, and the file's own name."""
    return name_in(path.parent, path.name)


def name_in(folder: Path, relative: Path | str) -> str:
    """Return ``FOLDER/relative``: the name of ``folder``, with links followed, and a path in it; in ``/``, the path."""
    parts = (Path(os.path.realpath(folder)).name, os.fspath(relative))
    return "/".join(in_text(part) for part in parts if part not in ("", "."))
