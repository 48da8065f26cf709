"""Decoding image files within limits, to the same pixels as InternVL's own code.

`to_rgb` drops alpha, and EXIF orientation is not applied (OpenGVLab/InternVL, ``eval/refcoco``).
"""

from __future__ import annotations

from contextlib import contextmanager
from errno import EINVAL
from typing import TYPE_CHECKING, BinaryIO

from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from deeplayer_cli.errors import RowError
from deeplayer_cli.images.files import MAX_BYTES, opened_file
from deeplayer_cli.images.formats import FORMATS
from deeplayer_cli.images.headers import ExcessiveHeaderError, check_exif, check_header, describe_tiff
from deeplayer_cli.images.pixels import UnsupportedPixelsError, to_rgb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_PIXELS = 178_956_970
"""Largest image to decode, in pixels: Pillow itself refuses larger images as decompression bombs."""

MAX_SIDE = 65_535
"""Longest side of an image to decode, in pixels: the memory of a resize grows with it."""


def open_image(
    path: Path, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES, exif_transpose: bool = False
) -> Image.Image:
    """Decode a whole image file into RGB.

    For an animation or a file of several pages, this is the first one. Grey with more than 8 bits is scaled, see
    `to_rgb`. A truncated file is refused.

    Args:
        path: of the file.
        max_pixels: larger images are refused.
        max_bytes: larger files are refused.
        exif_transpose: turn the image by its EXIF orientation; the original code does not.

    Raises:
        RowError: ``image_missing``, ``image_unreadable`` (not a regular file, or no permission), ``image_too_large``,
            ``image_unsupported`` (pixels that Pillow cannot decode or `to_rgb` cannot scale) or ``image_broken``
            (empty, truncated, or in no format of `FORMATS`).
    """
    with _opened(path, max_pixels, max_bytes) as image:
        tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
        bits, white_is_zero = tags.get(ExifTags.Base.BitsPerSample, (16,))[0], tags.get(_PHOTOMETRIC) == 0
        framed = _turned(image) if exif_transpose else _stored(image)
        return to_rgb(framed, bits=bits, white_is_zero=white_is_zero)


def read_size(path: Path, *, exif_transpose: bool = False) -> tuple[int, int]:
    """Return (width, height) of an image file in pixels without decoding it.

    Args:
        path: of the file.
        exif_transpose: turn the image by its EXIF orientation; otherwise the size is that of the stored image.

    Raises:
        RowError: as `open_image`, as far as the file's header shows the problem.
    """
    with _opened(path, MAX_PIXELS, MAX_BYTES) as image:
        width, height = _stored_size(image)
        return (height, width) if exif_transpose and _orientation(image) in _ON_THEIR_SIDE else (width, height)


def read_orientation(path: Path) -> int:
    """Return the EXIF orientation of an image file, from 1 (as stored) to 8; 1 without one.

    Raises:
        RowError: as `read_size`.
    """
    with _opened(path, MAX_PIXELS, MAX_BYTES) as image:
        return _orientation(image)


_ON_THEIR_SIDE = frozenset({5, 6, 7, 8})
"""EXIF orientations that swap width and height."""

_PHOTOMETRIC = ExifTags.Base.PhotometricInterpretation


def _orientation(image: Image.Image) -> int:
    check_exif(image.info.get("exif", b""))
    value = image.getexif().get(ExifTags.Base.Orientation, 1)
    return value if value in range(1, 9) else 1


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Return an image's size before any turning; for a TIFF, Pillow reports the size after it."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return image.tag_v2[ExifTags.Base.ImageWidth], image.tag_v2[ExifTags.Base.ImageLength]
    return image.size


def _stored(image: Image.Image) -> Image.Image:
    """Load an image as it is stored."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        image.load()
        return image
    image.getexif()[ExifTags.Base.Orientation] = 1  # Pillow turns a TIFF while it loads it, by this
    image.load()
    return image if image.size == _stored_size(image) else image.copy()  # a copy has the size of its pixels


def _turned(image: Image.Image) -> Image.Image:
    """Load an image and turn it by its orientation."""
    image.load()
    check_exif(image.info.get("exif", b""))
    ImageOps.exif_transpose(image, in_place=True)
    return image


@contextmanager
def _opened(path: Path, max_pixels: int, max_bytes: int) -> Iterator[Image.Image]:
    """Open an image file within limits; errors inside become a ``RowError``."""
    with opened_file(path, max_bytes) as file, _refusing(path, file):
        check_header(file, max_pixels)
        with Image.open(file, formats=FORMATS) as image:
            width, height = _stored_size(image)
            if width * height > max_pixels:
                raise RowError(
                    "image_too_large", f"{path} has {width} x {height} pixels; at most {max_pixels:,} are decoded"
                )
            if max(width, height) > MAX_SIDE:
                raise RowError(
                    "image_too_large", f"{path} has {width} x {height} pixels; a side may have at most {MAX_SIDE:,}"
                )
            yield image


@contextmanager
def _refusing(path: Path, file: BinaryIO) -> Iterator[None]:
    """Turn whatever a decoder raises into a ``RowError``."""
    try:
        yield
    except RowError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise RowError("image_too_large", f"{path} is too large to decode: {str(error) or 'out of memory'}") from error
    except ExcessiveHeaderError as error:
        raise RowError("image_too_large", f"{path} is not decoded: {error}") from error
    except UnsupportedPixelsError as error:
        raise RowError("image_unsupported", f"{path} cannot be shown in 8 bits: {error}") from error
    except UnidentifiedImageError as error:
        raise _unidentified(path, file) from error
    except Exception as error:  # a broken file makes decoders raise nearly anything: SyntaxError, struct.error, ...
        if "MAX_TEXT" in str(error):  # Pillow's limits of a PNG's text, by their names in its source
            raise RowError(
                "image_too_large", f"{path} has more text in its PNG chunks than is read; save it without the text"
            ) from error
        # Refused by the system, not by the decoder; EINVAL is a seek to where a broken header points.
        refused = isinstance(error, OSError) and error.errno not in (None, EINVAL)
        kind = "image_unreadable" if refused else "image_broken"
        raise RowError(kind, f"{path} cannot be decoded: {' '.join(str(error).split())}") from error


def _unidentified(path: Path, file: BinaryIO) -> RowError:
    """Return the error of a file that Pillow does not recognise as an image."""
    if samples := describe_tiff(file):
        return RowError(
            "image_unsupported",
            f"{path} is a TIFF with {samples} samples, in a layout that is not supported; save it as an 8-bit PNG",
        )
    return RowError("image_broken", f"{path} is not an image in any of the formats {', '.join(FORMATS)}")
