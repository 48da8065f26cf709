"""Rules that read boxes from the text of an answer."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from deeplayer_cli.boxes import clip_box, from_permille, to_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from deeplayer_cli.boxes import Box, Resolution

OFFICIAL_RULE = "internvl"

# The official pattern is \[*\[(.*?),(.*?),(.*?),(.*?)\]\]*. This one finds the same matches without backtracking: a
# lazy group ends at the first delimiter; if nothing matches from there, no later delimiter gives a match. The
# official form needs minutes for a degenerate answer such as "[" and a few hundred commas.
_OFFICIAL_BOX = re.compile(r"\[++([^,\n]*+),([^,\n]*+),([^,\n]*+),([^\]\n]*+)\]++")

_STRICT_BOX = r"\[\d{1,4}(?:,\s*\d{1,4}){3}\]"
_STRICT_ANSWER = re.compile(rf"[^\[\]]*\[({_STRICT_BOX}(?:,\s*{_STRICT_BOX})*)\][^\[\]]*", re.ASCII)

_NUMBER = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_NUMBER_LIST = re.compile(rf"\[\s*({_NUMBER})" + rf"(?:\s*,\s*|\s+)({_NUMBER})" * 3 + r"\s*\]")


def parse_answer(answer: str, resolution_wh: Resolution, rule: str = OFFICIAL_RULE) -> tuple[Box, ...]:
    """Return all boxes of an answer, in pixels and in the answer's order; empty if the rule finds none.

    The first box is the one that is scored. A box with a number that is not finite does not count as a box.

    Args:
        answer: the decoded text.
        resolution_wh: width and height of the stored image, in pixels.
        rule: a name in `ANSWER_RULES`.
    """
    return tuple(ANSWER_RULES[rule](answer, resolution_wh))


def echo_end(answer: str, expression: str) -> int:
    """Return where the text behind the echo starts: the length of the repeated expression, or 0 without an echo.

    A model repeats the expression before the box. A bracket in the expression must not be read as the box. Runs of
    white space count as one space, and white space before the echo belongs to it.
    """
    echo = re.match(r"\s*" + r"\s+".join(map(re.escape, expression.split())), answer)
    return echo.end() if echo else 0


def coordinate_spans(answer: str, start: int = 0) -> list[tuple[int, int]]:
    """Return the spans (start, end) of the numbers of the first box by the official rule; an empty list without one.

    Args:
        answer: the decoded text.
        start: where to begin reading, see `echo_end`.
    """
    match = _OFFICIAL_BOX.search(answer, start)
    if match is None or _read_official_box(match.groups(), (1, 1)) is None:
        return []
    numbers = [(match.start(group), match[group]) for group in range(1, 5)]
    return [(place + len(text) - len(text.lstrip()), place + len(text.rstrip())) for place, text in numbers]


def _read_internvl(answer: str, resolution_wh: Resolution) -> list[Box]:
    """OpenGVLab/InternVL ``eval/refcoco/evaluate_grounding.py``: no clipping, no reordering of corners.

    Only the first match counts; if its numbers cannot be read, the answer has no box. The official script accepts NaN
    and infinity, and then counts the answer as wrong. Such a box must not reach a file, so here the answer has no box;
    it counts as wrong too.
    """
    boxes = [_read_official_box(match, resolution_wh) for match in _OFFICIAL_BOX.findall(answer)]
    return [box for box in boxes if box is not None] if boxes and boxes[0] is not None else []


def _read_official_box(numbers: Sequence[str], resolution_wh: Resolution) -> Box | None:
    try:
        doubles = [float(number) for number in numbers]
    except ValueError:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.asarray(doubles, dtype=np.float32)
        # Four numbers that sum to 4 or more cannot be fractions of the image: they are per mille.
        fractions = values / np.float32(1000) if values.sum() >= 4 else values
        box = to_pixels(fractions, resolution_wh)
    return box if np.isfinite(box).all() else None


def _read_strict(answer: str, resolution_wh: Resolution) -> list[Box]:
    """Exactly what InternVL was trained to write: one list of boxes, four ordered integers from 0 to 1000 in each.

    Text without brackets may stand around the list, such as the echoed expression. One bad box makes the whole
    answer invalid.
    """
    answered = _STRICT_ANSWER.fullmatch(answer)
    if answered is None:
        return []
    numbers = [int(number) for number in re.findall(r"\d+", answered[1])]
    boxes = [numbers[start : start + 4] for start in range(0, len(numbers), 4)]
    if any(not (x1 < x2 <= 1000 and y1 < y2 <= 1000) for x1, y1, x2, y2 in boxes):
        return []
    return [from_permille(box, resolution_wh) for box in boxes]


def _read_vlmevalkit(answer: str, resolution_wh: Resolution) -> list[Box]:
    """open-compass/VLMEvalKit ``vlmeval/dataset/refcoco.py``: forgiving, and guesses the unit from the largest number.

    Takes ``[a, b, c, d]`` or, without one, the first four numbers anywhere in the text.
    """
    boxes: list[tuple[str, ...]] = _NUMBER_LIST.findall(answer)
    if not boxes:
        loose = re.findall(_NUMBER, answer)[:4]
        boxes = [tuple(loose)] if len(loose) == 4 else []
    return [_guess_unit([float(number) for number in box], resolution_wh) for box in boxes]


def _guess_unit(numbers: Sequence[float], resolution_wh: Resolution) -> Box:
    width, height = resolution_wh
    largest = max(abs(number) for number in numbers)
    per_unit = 1.0 if largest <= 1.5 else 1000.0
    x1, y1, x2, y2 = numbers
    if largest <= 1000:
        x1, y1, x2, y2 = x1 / per_unit * width, y1 / per_unit * height, x2 / per_unit * width, y2 / per_unit * height
    x1, y1, x2, y2 = clip_box((x1, y1, x2, y2), resolution_wh)
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


ANSWER_RULES: Mapping[str, Callable[[str, Resolution], list[Box]]] = MappingProxyType(
    {OFFICIAL_RULE: _read_internvl, "strict": _read_strict, "vlmevalkit": _read_vlmevalkit}
)
"""The rules by name. Each takes the text and ``(width, height)``, and returns boxes in pixels."""
