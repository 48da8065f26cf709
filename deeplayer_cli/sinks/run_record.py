"""``OUTPUT.run.json``: the settings of the run that wrote ``OUTPUT``."""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import orjson

from deeplayer_cli.errors import DeeplayerError, writing
from deeplayer_cli.schema.prediction import STATUSES
from deeplayer_cli.schema.values import show
from deeplayer_cli.sinks import disk

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from deeplayer_cli.schema import Status


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The settings, the circumstances and the result of a run.

    Attributes:
        settings: everything that an answer depends on, besides its row and image; a resumed run must have the same.
        circumstances: what an answer does not depend on, such as the name of the input and the version.
        counts: rows by status, once the run has finished.
        profile: where the time of the last run went, if it was requested.
        part: the part of its input that the last run was asked for, such as ``{"limit": 5}``; empty for all of it.
    """

    settings: Mapping[str, object]
    circumstances: Mapping[str, object]
    counts: Mapping[str, int] | None = None
    profile: Mapping[str, object] | None = None
    part: Mapping[str, object] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """A short hash of the settings."""
        settings = orjson.dumps(dict(self.settings), option=orjson.OPT_SORT_KEYS)
        return hashlib.blake2b(settings, digest_size=8).hexdigest()

    def save(self, output: Path) -> None:
        """Write the record beside ``output``, as a whole or not at all.

        Raises:
            DeeplayerError: the file cannot be written.
        """
        with self.saving(output):
            pass

    @contextmanager
    def saving(self, output: Path) -> Iterator[None]:
        """Bring the record to the disk, run the block, and then replace the record beside ``output``.

        The old record stays if the block raises.

        Raises:
            DeeplayerError: the file cannot be written.
        """
        target = record_path(output)
        content = {"fingerprint": self.fingerprint, **asdict(self)}
        data = orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        partial = _partial(target)
        try:
            with writing(str(target)):
                _write(partial, data)
            yield
            with writing(str(target)):
                disk.replace(partial, target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def status_counts(statuses: Counter[Status]) -> dict[str, int]:
    """The ``counts`` of a record: all rows, and the rows of each status."""
    return {"rows": statuses.total(), **{status: statuses[status] for status in STATUSES}}


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        disk.write_all(descriptor, data)
        disk.sync(descriptor)
    finally:
        os.close(descriptor)


def _partial(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial")


def record_path(output: Path) -> Path:
    """Return the path of the record of an output."""
    return output.with_name(f"{output.name}.run.json")


def load_record(output: Path) -> RunRecord | None:
    """Read the record beside ``output``; None without one.

    Raises:
        DeeplayerError: the file cannot be read, or is not a record.
    """
    path = record_path(output)
    try:
        content = orjson.loads(path.read_bytes())
        return RunRecord(
            dict(content["settings"]),
            dict(content["circumstances"]),
            content["counts"],
            content.get("profile"),
            dict(content.get("part") or {}),
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DeeplayerError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DeeplayerError(f"{path} is not the record of a run: remove it, or run again with --overwrite") from error


def refuse_other_settings(output: Path, old: RunRecord, new: RunRecord) -> None:
    """Refuse to continue a run with settings that would change its answers.

    Raises:
        DeeplayerError: a setting differs; the message names each one with its old and its new value.
    """
    names = sorted(old.settings.keys() | new.settings.keys())
    changed = [
        f"{name} was {show(old.settings.get(name))} and is now {show(new.settings.get(name))}"
        for name in names
        if old.settings.get(name) != new.settings.get(name)
    ]
    if changed:
        raise DeeplayerError(
            f"{output} cannot be resumed with other settings: {'; '.join(changed)}. Use the old settings, or another -o"
        )
