"""A parameter of a method, which its users may set."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deeplayer_cli.errors import DeeplayerError

Value = int | float | str


@dataclass(frozen=True)
class Parameter:
    """A parameter of a method: ``--method NAME@PARAMETER=VALUE`` sets it.

    Attributes:
        default: its value if it is not set; a value has the same type.
        about: what it does, in a few words.
        choices: the values that it may have; empty for a number.
        low, high: the least and the greatest number that it may be.
    """

    default: Value
    about: str
    choices: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf

    @property
    def allowed(self) -> str:
        """The values that it may have, in words."""
        if self.choices:
            return " or ".join(self.choices)
        kind = "a whole number" if isinstance(self.default, int) else "a number"
        if math.isinf(self.high):
            return kind if math.isinf(self.low) else f"{kind} of at least {self.low:g}"
        return f"{kind} from {self.low:g} to {self.high:g}"

    def read(self, text: str) -> Value:
        """Read a value.

        Raises:
            DeeplayerError: the parameter cannot have this value; the message says which it can have.
        """
        try:
            value = type(self.default)(text)
        except ValueError:
            value = None
        if value is None or (self.choices and value not in self.choices) or not self._is_in_range(value):
            raise DeeplayerError(f"must be {self.allowed}, not {text!r}")
        return value

    def _is_in_range(self, value: Value) -> bool:
        return isinstance(value, str) or self.low <= value <= self.high  # False for a NaN
