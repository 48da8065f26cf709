"""What ``ground --profile`` tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deeplayer_cli.grounder import Grounder

_IDLE = ("wait for images", "rest")


def spent(grounder: Grounder, seconds: float) -> dict[str, float]:
    """Seconds by phase of a run that took ``seconds``; what belongs to none, such as writing, is the rest."""
    phases = dict(grounder.watch.seconds)
    return phases | {"rest": seconds - sum(phases.values())}


def told(phases: dict[str, float], rows: int) -> str:
    """One line: phases by their share, and how long the device had nothing to do."""
    total = sum(phases.values())
    shares = [f"{name} {value / total:.1%}" for name, value in sorted(phases.items(), key=lambda item: -item[1])]
    idle = sum(phases.get(name, 0.0) for name in _IDLE)
    return f"{', '.join(shares)}; device idle {idle / total:.1%}; {rows / total:.2f} rows/s"
