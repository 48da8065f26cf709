"""Rows drawn into the files of a folder."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from typing import TYPE_CHECKING

from PIL.PngImagePlugin import PngInfo

from deeplayer_cli.errors import DeeplayerError, RowError, printable, writing
from deeplayer_cli.report.overlay import draw_row
from deeplayer_cli.sinks.output_file import refuse_folder, refuse_output, replacing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from PIL import Image

    from deeplayer_cli.report.lettering import Lettering
    from deeplayer_cli.report.row_images import RowImages
    from deeplayer_cli.report.tokens import Heat
    from deeplayer_cli.schema import Id, Prediction

    HeatOf = Callable[[Image.Image, Prediction], Heat | None]

SUFFIXES = {"png": ".png", "jpeg": ".jpg"}
"""The formats of pictures, and how their files end."""

_SIGNATURE = "drawn by deeplayer"
_SIGNED_BYTES = 1024  # the signature stands before the pixels
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class Pictures:
    """Draws rows into the files of a folder, a file for each.

    Attributes:
        n_drawn: number of pictures so far.
        problems: for each kind of problem, the sentence about the first row that could not be drawn.
        heat: gives the values of an image's visual tokens to draw; None, as by default, to draw the kept ones.

    Args:
        folder: it is made with the first picture.
        images: finds the rows' images.
        lettering: draws text.
        format: ``"png"`` or ``"jpeg"``.
        overwrite: replace pictures that were drawn before; nothing else is ever replaced.
    """

    def __init__(
        self,
        folder: Path,
        images: RowImages,
        lettering: Lettering,
        *,
        format: str = "png",
        overwrite: bool = False,
    ) -> None:
        self._folder, self._images, self._lettering = folder, images, lettering
        self._format, self._overwrite = format, overwrite
        self._taken: set[str] = set()
        self.n_drawn = 0
        self.heat: HeatOf = lambda *_: None
        self.problems: dict[str, str] = {}
        self._n_problems: Counter[str] = Counter()

    def refuse_folder(self) -> None:
        """Refuse a folder that cannot be made, before any work.

        Raises:
            DeeplayerError: the folder is a file, or the folder that it would be in does not exist.
        """
        refuse_folder(self._folder)

    def refuse(self, row_id: Id) -> None:
        """Refuse a row whose picture exists already and may not be replaced.

        Raises:
            DeeplayerError: the message names the file.
        """
        self._refuse(self._folder / f"{safe_name(row_id)}{SUFFIXES[self._format]}")

    def add(self, row: Prediction) -> None:
        """Draw a row; one that cannot be drawn is counted.

        Raises:
            DeeplayerError: the picture cannot be written, or something is there that may not be replaced.
        """
        try:
            source, image = self._images.find(row), self._images.open(row)
            picture = draw_row(image, row, self._lettering, self.heat(image, row))
        except RowError as error:
            self.fail(error.kind, error.message)
        except ValueError as error:
            self.fail("bad_row", f"row {printable(str(row.id))}: {error}")
        else:
            self._write(picture, row, source)
            self.n_drawn += 1

    def summary(self) -> str:
        """One line: how many pictures there are, and what is missing."""
        drawn = f"{self._folder}: {self.n_drawn} picture{'s' * (self.n_drawn != 1)}"
        left_out = ", ".join(f"{count} {kind}" for kind, count in self._n_problems.items())
        return f"{drawn}; rows not drawn: {left_out}" if left_out else drawn

    def fail(self, kind: str, message: str) -> None:
        """Count a row that could not be drawn."""
        self._n_problems[kind] += 1
        self.problems.setdefault(kind, message)

    def _write(self, picture: Image.Image, row: Prediction, source: Path) -> None:
        name = safe_name(row.id)
        if name.casefold() in self._taken:  # on some file systems, A.png is a.png
            name = f"{name}-{_digest(row.id)}"
        self._taken.add(name.casefold())
        path = self._folder / f"{name}{SUFFIXES[self._format]}"
        with writing(str(self._folder)):
            self._folder.mkdir(exist_ok=True)
        self._refuse(path, source)
        with replacing(path) as partial:
            if self._format == "png":
                info = PngInfo()
                info.add_text("Software", _SIGNATURE)
                picture.save(partial, pnginfo=info)
            else:
                picture.save(partial, quality=92, subsampling=0, comment=_SIGNATURE.encode())

    def _refuse(self, path: Path, *inputs: Path) -> None:
        if not os.path.lexists(path):
            return
        refuse_output(path, inputs=inputs, overwrite=self._overwrite)
        if not _is_ours(path):
            raise DeeplayerError(f"{path} was not drawn by deeplayer, so it is not replaced: name another folder")


def safe_name(row_id: Id) -> str:
    """Return a file name for an id, without a suffix: the id itself if it is safe, or else its safe part and a digest.

    Different ids have different names, whatever they contain; some differ in case only.
    """
    text = str(row_id)
    if _SAFE_ID.fullmatch(text) and (isinstance(row_id, int) or not text.isdecimal()):
        return text
    return f"{_UNSAFE.sub('_', text)[:80].strip('._-') or 'row'}-{_digest(row_id)}"


def _digest(row_id: Id) -> str:
    return hashlib.blake2b(repr(row_id).encode(errors="surrogatepass"), digest_size=5).hexdigest()


def _is_ours(path: Path) -> bool:
    """Whether a file is a picture that was drawn here."""
    with writing(str(path)):
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return _SIGNATURE.encode() in file.read(_SIGNED_BYTES)
