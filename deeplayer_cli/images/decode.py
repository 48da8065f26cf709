"""Decoding image files within limits, to the same pixels as InternVL's own code.

``convert("RGB")`` drops alpha, and EXIF orientation is not applied (OpenGVLab/InternVL, ``eval/refcoco``).
"""

from __future__ import annotations

import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from PIL import Image, ImageOps, UnidentifiedImageError

from deeplayer_cli.errors import RowError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})

MAX_PIXELS = 178_956_970
"""Largest image to decode, in pixels: Pillow itself refuses larger images as decompression bombs."""

MAX_BYTES = 512 * 2**20
"""Largest image file to read, in bytes."""


def open_image(
    path: Path, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES, exif_transpose: bool = False
) -> Image.Image:
    """Decode a whole image file into RGB.

    For an animation, this is the first frame. 16-bit grey is clipped to 255, as in Pillow and in the original code. A
    truncated file is refused.

    Args:
        path: of the file.
        max_pixels: larger images are refused.
        max_bytes: larger files are refused.
        exif_transpose: turn the image by its EXIF orientation; the original code does not.

    Raises:
        RowError: ``image_missing``, ``image_unreadable`` (not a regular file, or no permission), ``image_too_large``
            or ``image_broken`` (empty, truncated, or in no format of `FORMATS`).
    """
    with _opened(path, max_pixels, max_bytes) as image:
        return (ImageOps.exif_transpose(image) if exif_transpose else image).convert("RGB")


def read_size(path: Path) -> tuple[int, int]:
    """Return (width, height) of an image file in pixels, as stored, without decoding it.

    Raises:
        RowError: as `open_image`, as far as the file's header shows the problem.
    """
    with _opened(path, MAX_PIXELS, MAX_BYTES) as image:
        return image.size


@contextmanager
def _opened(path: Path, max_pixels: int, max_bytes: int) -> Iterator[Image.Image]:
    """Open an image file within limits; errors inside become a ``RowError``."""
    _check_file(path, max_bytes)
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise RowError(
                    "image_too_large", f"{path} has {width} x {height} pixels; at most {max_pixels:,} are decoded"
                )
            yield image
    except RowError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise RowError("image_too_large", f"{path} is too large to decode: {error or 'out of memory'}") from error
    except UnidentifiedImageError as error:
        raise RowError("image_broken", f"{path} is not an image in any of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # a broken file makes decoders raise nearly anything: SyntaxError, struct.error, ...
        refused = isinstance(error, OSError) and error.errno is not None  # by the system, not by the decoder
        kind = "image_unreadable" if refused else "image_broken"
        raise RowError(kind, f"{path} cannot be decoded: {error}") from error


def _check_file(path: Path, max_bytes: int) -> None:
    """Refuse files that must not be opened: opening a pipe would wait for a writer forever."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise RowError("image_missing", f"{path} does not exist") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise RowError("image_unreadable", f"{path} cannot be read: {error}") from error
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise RowError("image_unreadable", f"{path} is {what}, not an image")
    if status.st_size == 0:
        raise RowError("image_broken", f"{path} is empty")
    if status.st_size > max_bytes:
        raise RowError("image_too_large", f"{path} has {status.st_size:,} bytes; at most {max_bytes:,} are read")
