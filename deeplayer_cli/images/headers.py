"""Checks of what an image file's header claims, before Pillow uses it.

Pillow makes a Python object of every value of a tag, before it knows the size of the image. libtiff allocates a
whole tile, and libwebp a whole canvas, before their sizes are compared with a limit. So the header is read here first.
"""

from __future__ import annotations

import re
from itertools import islice
from mmap import ACCESS_READ, mmap
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

MAX_EXIF_BYTES = 2**20
"""The most bytes of EXIF in a file that is decoded."""

MAX_TAG_VALUES = 2**18
"""The most numbers in one tag of a TIFF: enough for a strip for each row of the highest image, in four planes."""

MAX_TAGS = 2**12
"""The most tags in one directory of a TIFF."""

_SUB_DIRECTORIES = frozenset({0x8769, 0x8825, 0xA005})  # EXIF, GPS and interoperability
_BITS, _SAMPLE_FORMAT = 0x0102, 0x0153
_GEOMETRY = _WIDTH, _LENGTH, _STRIP_OFFSETS, _STRIP_ROWS, _TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS = (
    *(0x0100, 0x0101, 0x0111, 0x0116),
    *(0x0142, 0x0143, 0x0144),
)
_SAMPLE_FORMATS = {1: "integer", 2: "signed integer", 3: "float"}
_MAX_DIRECTORIES = 16
_MAX_COVERS = 16  # four planes, each of tiles that reach over both edges
_INTEGERS = {3: "H", 4: "I", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_NUMBERS = _INTEGERS.keys() | {5, 10, 11, 12}
"""TIFF's types whose values become Python objects; those of the others stay bytes."""

_TOO_MUCH_EXIF = f"it has more than {MAX_EXIF_BYTES:,} bytes of EXIF; remove them"
_JPEG_EXIF = re.compile(rb"\xff\xe1..Exif\0", re.DOTALL)
_JPEG_SEGMENT_BYTES = 2**16


class ExcessiveHeaderError(ValueError):
    """A header claims more than any image needs."""


class _Tag(NamedTuple):
    number: int
    type: int
    n_values: int
    data: bytes  # the first values, or where they are


class _TiffNumbers(NamedTuple):
    """The numbers of a TIFF: byte order, and whether it is a BigTIFF."""

    order: str
    big: bool

    @property
    def offset(self) -> Struct:
        return Struct(self.order + ("Q" if self.big else "I"))

    @property
    def length(self) -> Struct:
        return Struct(self.order + ("Q" if self.big else "H"))

    @property
    def tag(self) -> Struct:
        return Struct(self.order + ("HHQ8s" if self.big else "HHI4s"))


def check_header(file: BinaryIO, max_pixels: int) -> None:
    """Refuse a file whose header alone would take long to read, or much memory; leave the file at its beginning.

    Raises:
        ExcessiveHeaderError: the tags of a TIFF or the EXIF of a JPEG are beyond the limits of this module; or the
            canvas of a WebP or a tile of a TIFF has more than ``max_pixels`` pixels.
    """
    start = file.read(30)
    if numbers := _tiff_numbers(start):
        first = _first_directory(start, numbers)
        _check_directories(file, numbers, first)
        _check_pieces(file, numbers, first, max_pixels)
    elif start.startswith(b"\xff\xd8"):
        _check_jpeg(file)
    elif start.startswith(b"RIFF"):
        width, height = _webp_size(start)
        if width * height > max_pixels:
            raise ExcessiveHeaderError(f"it has {width} x {height} pixels; at most {max_pixels:,} are decoded")
    file.seek(0)


def check_exif(exif: bytes) -> None:
    """Refuse an EXIF block that is too long.

    Raises:
        ExcessiveHeaderError: the block is longer than `MAX_EXIF_BYTES`.
    """
    if len(exif) > MAX_EXIF_BYTES:
        raise ExcessiveHeaderError(_TOO_MUCH_EXIF)


def describe_tiff(file: BinaryIO) -> str | None:
    """Name the samples of a TIFF, such as ``64-bit float``; None for other files."""
    file.seek(0)
    start = file.read(16)
    if not (numbers := _tiff_numbers(start)):
        return None
    tags = {tag.number: tag for tag in _tags(file, numbers, _first_directory(start, numbers))}
    if _BITS not in tags:
        return None
    bits = _first_value(file, numbers, tags[_BITS])
    kind = _first_value(file, numbers, tags[_SAMPLE_FORMAT]) if _SAMPLE_FORMAT in tags else 1
    return f"{bits}-bit {_SAMPLE_FORMATS.get(kind, 'unusual')}"


def _check_jpeg(file: BinaryIO) -> None:
    """Count the segments that may be EXIF, wherever Pillow finds them."""
    with mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        most = MAX_EXIF_BYTES // _JPEG_SEGMENT_BYTES
        if sum(1 for _ in islice(_JPEG_EXIF.finditer(content), most + 1)) > most:
            raise ExcessiveHeaderError(_TOO_MUCH_EXIF)


def _webp_size(start: bytes) -> tuple[int, int]:
    """The size of the canvas by the first chunk; (0, 0) for a file that is not WebP."""
    if start[8:15] != b"WEBPVP8" or len(start) < 30:
        return 0, 0
    if start[15:16] == b"X":
        return 1 + int.from_bytes(start[24:27], "little"), 1 + int.from_bytes(start[27:30], "little")
    if start[15:16] == b"L":
        both = int.from_bytes(start[21:25], "little")
        return 1 + (both & 0x3FFF), 1 + (both >> 14 & 0x3FFF)
    return int.from_bytes(start[26:28], "little") & 0x3FFF, int.from_bytes(start[28:30], "little") & 0x3FFF


def _tiff_numbers(start: bytes) -> _TiffNumbers | None:
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None or len(start) < 16 or not {42, 43} & {*start[2:4]}:
        return None
    return _TiffNumbers(order, big=start[2] == 43)  # as Pillow tells them apart


def _first_directory(start: bytes, numbers: _TiffNumbers) -> int:
    place: int = numbers.offset.unpack_from(start, 8 if numbers.big else 4)[0]
    return place


def _check_directories(file: BinaryIO, numbers: _TiffNumbers, place: int) -> None:
    """Check a directory and those inside of it."""
    places = [place]
    for directory in places:
        for tag in _tags(file, numbers, directory):
            if tag.type in _NUMBERS and tag.n_values > MAX_TAG_VALUES:
                raise ExcessiveHeaderError(
                    f"its tag {tag.number} claims {tag.n_values:,} values; at most {MAX_TAG_VALUES:,} are read"
                )
            if tag.number in _SUB_DIRECTORIES and (inner := _first_value(file, numbers, tag)) not in places:
                places.append(inner)
        if len(places) > _MAX_DIRECTORIES:
            raise ExcessiveHeaderError(f"it has more than {_MAX_DIRECTORIES} directories of tags for one image")


def _check_pieces(file: BinaryIO, numbers: _TiffNumbers, place: int, max_pixels: int) -> None:
    """Check the strips or tiles of an image: how large one is, and how often all of them cover the image."""
    tags = [tag for tag in _tags(file, numbers, place) if tag.number in _GEOMETRY]
    values = {tag.number: value for tag in reversed(tags) if (value := _first_value(file, numbers, tag))}
    width, height = values.get(_WIDTH, 0), values.get(_LENGTH, 0)
    tile_width, tile_height = values.get(_TILE_WIDTH, 0), values.get(_TILE_LENGTH, 0)
    if tile_width * tile_height > max_pixels:
        raise ExcessiveHeaderError(
            f"its tiles have {tile_width} x {tile_height} pixels; at most {max_pixels:,} are decoded"
        )
    for places, piece_width, piece_height in (
        (_STRIP_OFFSETS, width, min(values.get(_STRIP_ROWS, height), height)),
        (_TILE_OFFSETS, tile_width, tile_height),
    ):
        n_pieces = max((tag.n_values for tag in tags if tag.number == places), default=0)
        whole = max(width, piece_width) * max(height, piece_height)
        if n_pieces * piece_width * piece_height > _MAX_COVERS * whole:
            raise ExcessiveHeaderError(f"its {n_pieces:,} strips or tiles cover it more than {_MAX_COVERS} times")


def _tags(file: BinaryIO, numbers: _TiffNumbers, place: int) -> Iterator[_Tag]:
    """Yield the tags of a directory, up to the end of the file."""
    count = _unpacked(file, numbers.length, place)
    if count and count[0] > MAX_TAGS:
        raise ExcessiveHeaderError(f"one of its directories claims {count[0]:,} tags; at most {MAX_TAGS:,} are read")
    for index in range(count[0] if count else 0):
        tag = _unpacked(file, numbers.tag, place + numbers.length.size + index * numbers.tag.size)
        if not tag:
            return
        yield _Tag(*tag)


def _first_value(file: BinaryIO, numbers: _TiffNumbers, tag: _Tag) -> int:
    """Return a tag's first value; 0 without a value, or if it is not an integer."""
    if tag.type not in _INTEGERS:
        return 0
    number = Struct(numbers.order + _INTEGERS[tag.type])
    if tag.n_values * number.size <= len(tag.data):
        return int(number.unpack_from(tag.data)[0])
    return int((_unpacked(file, number, numbers.offset.unpack_from(tag.data)[0]) or (0,))[0])


def _unpacked(file: BinaryIO, struct: Struct, place: int) -> tuple[Any, ...]:
    """Unpack the bytes at a place of the file; an empty tuple if the file ends before."""
    if not 0 <= place < 2**63:
        return ()
    file.seek(place)
    data = file.read(struct.size)
    return struct.unpack(data) if len(data) == struct.size else ()
