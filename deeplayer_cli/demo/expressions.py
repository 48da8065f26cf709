"""Referring expressions about drawn objects. Each is true of exactly one object of its scene, by a clear margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deeplayer_cli.demo.shapes import COLOURS, SHAPES, SIZES, SYNONYMS, Thing

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

_MARGIN = 14.0  # pixels; a place or relation holds for the target, and fails for all others, by at least this
_PER_KIND = 7
_ATTEMPTS = 40  # per kind

Direction = tuple[int, int]  # axis (0 is x, 1 is y) and sign of the wanted side

_PLACES: dict[str, Direction] = {
    "the leftmost {}": (0, -1),
    "the {} on the left": (0, -1),
    "the {} farthest to the left": (0, -1),
    "the rightmost {}": (0, 1),
    "the {} on the right": (0, 1),
    "the {} farthest to the right": (0, 1),
    "the topmost {}": (1, -1),
    "the highest {}": (1, -1),
    "the {} at the top": (1, -1),
    "the lowest {}": (1, 1),
    "the {} at the bottom": (1, 1),
}
_RELATIONS: dict[str, Direction] = {
    "left of": (0, -1),
    "to the left of": (0, -1),
    "right of": (0, 1),
    "to the right of": (0, 1),
    "above": (1, -1),
    "over": (1, -1),
    "below": (1, 1),
    "under": (1, 1),
}
_THAT_IS = "that is"  # between the two relations of a chain
_ANY = ("object", "thing", "shape")  # nouns for every shape
_PATTERNS = (*_PLACES, *_RELATIONS, _THAT_IS)

_SECOND_WORDS = frozenset(word for words in SYNONYMS.values() for word in words)
WORDS = tuple(
    sorted({*COLOURS, *SHAPES, *SIZES, *_ANY, *_SECOND_WORDS} | set(" ".join(_PATTERNS).replace("{}", "").split())),
)


@dataclass(frozen=True)
class Referral:
    """An expression and the object that it refers to.

    Attributes:
        expression: text that is true of exactly one object.
        kind: ``attribute``, ``place``, ``relation`` or ``chain``.
        box: box of the object, xyxy in pixels.
        unsaid: the words for the object's size, colour and shape that the expression does not mention; all three words
            if it mentions all three.
    """

    expression: str
    kind: str
    box: tuple[float, float, float, float]
    unsaid: str


@dataclass(frozen=True)
class _Description:
    """A class of objects: all attributes that are not None must match."""

    shape: str | None
    colour: str | None
    size: str | None

    def fits(self, thing: Thing) -> bool:
        return (
            self.shape in (None, thing.shape)
            and self.colour in (None, thing.colour)
            and self.size in (None, thing.size)
        )

    def unsaid(self, thing: Thing) -> str:
        """Return the attributes of ``thing`` that the description does not mention; all if it mentions all."""
        pairs = ((self.size, thing.size), (self.colour, thing.colour), (self.shape, thing.shape))
        return " ".join(own for told, own in pairs if told is None) or thing.name

    def said(self, rng: random.Random) -> str:
        """Return the description in words; synonyms are chosen at random."""
        noun = self.shape or rng.choice(_ANY)
        return " ".join(rng.choice((word, *SYNONYMS.get(word, ()))) for word in (self.size, self.colour, noun) if word)


_Said = tuple[str, Thing, _Description]  # an expression, the object it refers to, and the description of that object


def refer(
    rng: random.Random, things: tuple[Thing, ...], kinds: Iterable[str], *, synonyms: bool = True
) -> tuple[Referral, ...]:
    """Make up to seven expressions of each kind about a scene; the kinds alternate.

    Args:
        rng: chooses among the possible expressions.
        things: objects of the scene.
        kinds: kinds of expressions (see ``Referral``).
        synonyms: whether expressions may contain synonyms.

    Returns:
        The expressions; fewer than seven of a kind if the scene does not allow more.
    """
    unwanted = frozenset() if synonyms else _SECOND_WORDS
    columns = [_sample(rng, things, kind, unwanted) for kind in kinds]
    return tuple(column[row] for row in range(_PER_KIND) for column in columns if row < len(column))


def _sample(rng: random.Random, things: tuple[Thing, ...], kind: str, unwanted: frozenset[str]) -> list[Referral]:
    found: dict[str, Referral] = {}
    for _ in range(_ATTEMPTS):
        said = _MAKERS[kind](rng, things)
        if said is not None and unwanted.isdisjoint(said[0].split()):
            expression, thing, description = said
            found.setdefault(expression, Referral(expression, kind, thing.box, description.unsaid(thing)))
        if len(found) == _PER_KIND:
            break
    return list(found.values())


def _attribute(rng: random.Random, things: tuple[Thing, ...]) -> _Said | None:
    target = rng.choice(things)
    description = _describe(rng, target, most=3)
    if sum(map(description.fits, things)) != 1:
        return None
    return rng.choice(("the {}", "{}")).format(description.said(rng)), target, description


def _place(rng: random.Random, things: tuple[Thing, ...]) -> _Said | None:
    """Refer to the extreme one of at least two objects that fit a description, ahead of the next by the margin."""
    description = _describe(rng, rng.choice(things), most=1)
    pattern, (axis, sign) = rng.choice(tuple(_PLACES.items()))
    ranked = sorted(filter(description.fits, things), key=lambda thing: -sign * thing.centre[axis])
    if len(ranked) < 2 or sign * (ranked[0].centre[axis] - ranked[1].centre[axis]) < _MARGIN:
        return None
    return pattern.format(description.said(rng)), ranked[0], description


def _relation(rng: random.Random, things: tuple[Thing, ...]) -> _Said | None:
    """Refer to the only object that fits and lies on one side of an anchor, which a description identifies."""
    found = _beside_named(rng, things)
    return (f"the {found.noun} {found.where}", found.thing, found.description) if found else None


def _chain(rng: random.Random, things: tuple[Thing, ...]) -> _Said | None:
    """Refer to the only object that fits and lies on one side of an anchor, which a relation identifies."""
    anchor = _beside_named(rng, things)
    if anchor is None:
        return None
    found = _beside(rng, things, f"the {anchor.noun} {_THAT_IS} {anchor.where}", anchor.thing)
    return (f"the {found.noun} {found.where}", found.thing, found.description) if found else None


@dataclass(frozen=True)
class _Beside:
    """An object, its description in words (``noun``), and its relation to an anchor in words (``where``)."""

    noun: str
    where: str
    thing: Thing
    description: _Description


def _beside_named(rng: random.Random, things: tuple[Thing, ...]) -> _Beside | None:
    """Choose an object beside an anchor that a description identifies."""
    anchor = rng.choice(things)
    named = _describe(rng, anchor, most=2)
    return _beside(rng, things, f"the {named.said(rng)}", anchor) if sum(map(named.fits, things)) == 1 else None


def _beside(rng: random.Random, things: tuple[Thing, ...], named: str, anchor: Thing) -> _Beside | None:
    """Choose the only object of a class that lies on one side of ``anchor``, which is called ``named``."""
    others = [thing for thing in things if thing is not anchor]
    if not others:
        return None
    description = _describe(rng, rng.choice(others), most=1)
    relation, (axis, sign) = rng.choice(tuple(_RELATIONS.items()))
    leads = [(sign * (thing.centre[axis] - anchor.centre[axis]), thing) for thing in others if description.fits(thing)]
    inside = [thing for lead, thing in leads if lead >= _MARGIN]
    if len(inside) != 1 or any(-_MARGIN < lead < _MARGIN for lead, _ in leads):
        return None
    return _Beside(description.said(rng), f"{relation} {named}", inside[0], description)


def _describe(rng: random.Random, thing: Thing, most: int) -> _Description:
    """Describe ``thing`` by up to ``most`` of its attributes; by none only if ``most`` is 1."""
    told = set(rng.sample(("shape", "colour", "size"), rng.randint(1 if most > 1 else 0, most)))
    return _Description(
        thing.shape if "shape" in told else None,
        thing.colour if "colour" in told else None,
        thing.size if "size" in told else None,
    )


_MAKERS: dict[str, Callable[[random.Random, tuple[Thing, ...]], _Said | None]] = {
    "attribute": _attribute,
    "place": _place,
    "relation": _relation,
    "chain": _chain,
}
KINDS = ("attribute", "place", "relation")
