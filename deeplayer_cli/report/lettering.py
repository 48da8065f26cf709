"""Text in pictures: fonts, characters that they lack, lines."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from PIL import ImageFont

from deeplayer_cli.errors import DeeplayerError, printable

if TYPE_CHECKING:
    from pathlib import Path

    AnyFont = ImageFont.FreeTypeFont | ImageFont.ImageFont

_SYSTEM_FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "NotoSansSC-Regular.otf"),
    *("SourceHanSansSC-Regular.otf", "wqy-zenhei.ttc", "wqy-microhei.ttc", "DroidSansFallbackFull.ttf"),
    *("Arial Unicode.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc", "NotoSansDevanagari-Regular.ttf"),
)
"""Fonts to look for where Pillow's own font, which has ASCII only, lacks a character."""

_NOWHERE = "\uffff"  # no font has it, so every font draws its replacement character
_ESCAPES = "\\Uux0123456789abcdef"
_LONGEST = 2000  # characters that are looked at


class Lettering:
    r"""Chooses a font for each text: the given one, or Pillow's own, or a font of the system that has its characters.

    Attributes:
        lacking: characters that no font had; they are written as escapes, such as ``\u4e2d``.

    Args:
        font: a TrueType or OpenType file to prefer.

    Raises:
        DeeplayerError: the file is not a font.
    """

    def __init__(self, font: Path | None = None) -> None:
        self.lacking: set[str] = set()
        self._first = None if font is None else str(font)  # None is Pillow's own
        if font is not None:
            try:
                ImageFont.truetype(str(font), 16)
            except (OSError, ValueError) as error:
                raise DeeplayerError(f"--font {font} is not a font that can be read: {error}") from error

    def fit(self, text: str, size: int) -> tuple[str, AnyFont]:
        """Return a text as it can be drawn, and the font for it.

        Args:
            text: one line; characters that cannot be printed become escapes.
            size: of the letters, in pixels.
        """
        shown = printable(text)
        names = [name for name in (self._first, None, *_SYSTEM_FONTS) if _exists(name)]
        # The first font that has the whole text, or else the one that lacks the least, and can draw escapes.
        best = min(names, key=lambda name: len(_lacks(name, shown)) and len(_lacks(name, shown + _ESCAPES)))
        lacks = _lacks(best, shown)
        self.lacking |= lacks
        return "".join(ascii(one)[1:-1] if one in lacks else one for one in shown), _font(best, size)

    def lines(self, text: str, size: int, width: int, most: int) -> list[tuple[str, AnyFont]]:
        """Break a text into lines of at most ``width`` pixels; one of more than ``most`` lines ends in ``...``."""
        shown, font = self.fit(" ".join(text[:_LONGEST].split()), size)
        lines: list[str] = []
        rest = shown
        while rest and len(lines) < most:
            taken = _fitting(rest, font, width)
            if taken < len(rest) and " " in rest[1 : taken + 1]:
                taken = rest.rindex(" ", 1, taken + 1)
            lines.append(rest[:taken].rstrip())
            rest = rest[taken:].lstrip()
        if rest or len(text) > _LONGEST:
            last = lines[-1]
            while last and font.getlength(f"{last}...") > width:
                last = last[:-1]
            lines[-1] = f"{last}..."
        return [(line, font) for line in lines]


def _fitting(text: str, font: AnyFont, width: int) -> int:
    """Return how many characters fit into a width; at least one."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if font.getlength(text[:middle]) <= width:
            low = middle
        else:
            high = middle - 1
    return low


@cache
def _font(name: str | None, size: int) -> AnyFont:
    return ImageFont.load_default(size) if name is None else ImageFont.truetype(name, size)


@cache
def _exists(name: str | None) -> bool:
    try:
        _font(name, 16)
    except OSError:
        return False
    return True


def _lacks(name: str | None, text: str) -> set[str]:
    return {one for one in set(text) if not one.isspace() and not _has(name, one)}


@cache
def _has(name: str | None, character: str) -> bool:
    font = _font(name, 16)
    return bytes(font.getmask(character)) != bytes(font.getmask(_NOWHERE))
