"""Why rows failed: a count and an example for each kind of error."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deeplayer_cli.schema.values import counted

if TYPE_CHECKING:
    from deeplayer_cli.schema import Prediction

_SHOWN = 10


@dataclass
class FailureKinds:
    """The error rows of a run, by the type of their error.

    Attributes:
        counts: number of error rows.
        examples: the message of the first of them; it names the file and the line.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, prediction: Prediction) -> None:
        """Count a prediction; only error rows matter."""
        if prediction.status != "error":
            return
        error = prediction.error or {}
        kind = str(error.get("type", "error"))
        self.counts[kind] += 1
        self.examples.setdefault(kind, str(error.get("message", prediction.id)))

    def sentences(self) -> list[str]:
        """Return a sentence for each kind of error, the most frequent first; rare kinds of many share the last one."""
        common = self.counts.most_common()
        said = [
            f"{counted(n, 'row')} failed with {kind}{', the first' if n > 1 else ''}: {self.examples[kind]}"
            for kind, n in common[:_SHOWN]
        ]
        if rest := common[_SHOWN:]:
            said.append(f"{counted(sum(n for _, n in rest), 'row')} failed in {counted(len(rest), 'other way')}")
        return said
