"""The image formats that are read: always the same six, AVIF where Pillow has it, and HEIC where pillow-heif is."""

from __future__ import annotations

from contextlib import suppress

from PIL import features

_NAMES = {
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
}
_OPTIONAL = {"AVIF": (".avif",), "HEIF": (".heic", ".heif", ".hif")}
_NEVER = (".jp2", ".j2k", ".jxl")


def _available() -> dict[str, tuple[str, ...]]:
    """Return Pillow's names of the formats, and the endings of their files."""
    found = {"AVIF"} if features.check("avif") else set()
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
        found.add("HEIF")
    return _NAMES | {name: endings for name, endings in _OPTIONAL.items() if name in found}


_AVAILABLE = _available()

FORMATS = tuple(_AVAILABLE)
"""Pillow's names of the formats that are read."""

SUFFIXES = frozenset(ending for endings in _AVAILABLE.values() for ending in endings)
"""The endings of files in these formats."""

OTHER_SUFFIXES = frozenset(ending for endings in (*_OPTIONAL.values(), _NEVER) for ending in endings) - SUFFIXES
"""The endings of images in formats that are not read."""


def way_out(suffix: str) -> str:
    """Return what lets a file with this ending, one of `OTHER_SUFFIXES`, be read."""
    if suffix in _OPTIONAL["HEIF"]:
        return "`pip install pillow-heif`, or convert to JPEG or PNG"
    return "convert to JPEG or PNG"
