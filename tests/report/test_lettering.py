"""Text in pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageFont

from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.report import lettering
from deeplayer_cli.report.lettering import Lettering


@given(st.text(max_size=400), st.integers(60, 400), st.integers(1, 4))
def test_lines_are_not_longer_than_their_width(text: str, width: int, most: int) -> None:
    lines = Lettering().lines(text, 14, width, most)
    assert len(lines) <= most
    assert all(font.getlength(line) <= width for line, font in lines)
    assert all(line.isprintable() for line, _ in lines)


def test_words_stay_whole_and_the_rest_is_left_out() -> None:
    (first, _), (second, _) = Lettering().lines("the dog on the left side of the picture of a dog", 14, 120, 2)
    assert first == "the dog on the left" and second.startswith("side of") and second.endswith("...")
    assert Lettering().lines("x" * 10**6, 14, 120, 2)[-1][0].endswith("...")


def test_a_character_that_no_font_has_is_written_as_an_escape(monkeypatch) -> None:
    monkeypatch.setattr(lettering, "_SYSTEM_FONTS", ())
    plain = Lettering()
    assert plain.fit("the dog", 14)[0] == "the dog" and plain.lacking == set()
    assert plain.fit("狗 dog", 14)[0] == "\\u72d7 dog" and plain.lacking == {"狗"}
    assert plain.fit("a\x1b[31m", 14)[0] == "a\\x1b[31m"


def test_a_font_that_has_the_characters_is_found() -> None:
    try:
        ImageFont.truetype("DejaVuSans.ttf", 14)
    except OSError:
        pytest.skip("DejaVu Sans is not installed")
    found = Lettering()
    text, font = found.fit("größe", 14)
    assert (text, font.getname()[0], found.lacking) == ("größe", "DejaVu Sans", set())


def test_a_font_that_lacks_a_character_is_passed_over(tmp_path, monkeypatch) -> None:
    mpl = pytest.importorskip("matplotlib")
    monkeypatch.setattr(lettering, "_SYSTEM_FONTS", ())
    fonts = Path(mpl.get_data_path()) / "fonts/ttf"
    symbols, latin = Lettering(fonts / "STIXSizFourSymReg.ttf"), Lettering(fonts / "DejaVuSans.ttf")
    for text in ("the dog", "狗 the dog"):  # not in a font that lacks the escapes too
        assert symbols.fit(text, 14)[1].getname()[0] == "Aileron"
        assert latin.fit(text, 14)[1].getname()[0] == "DejaVu Sans"
    assert latin.fit("größe 狗", 14)[0] == "größe \\u72d7" and latin.lacking == {"狗"}


def test_a_file_that_is_no_font_is_refused(tmp_path) -> None:
    (tmp_path / "a.ttf").write_bytes(b"no font")
    for name in ("a.ttf", "missing.ttf"):
        with pytest.raises(DeeplayerError, match=f"--font .*{name} is not a font"):
            Lettering(tmp_path / name)
