"""``OUTPUT.run.json``: with which settings the rows beside it were made."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import orjson

from deeplayer_cli.errors import DeeplayerError, writing
from deeplayer_cli.schema.values import show
from deeplayer_cli.sinks import disk

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What there is to know about a run.

    Attributes:
        settings: what an answer depends on besides its row and image; a resumed run must have the same.
        circumstances: what it does not depend on: the input's name, the device, batch sizes, the version.
        counts: rows by status, once the run has finished.
        profile: where the time of the last run went, if it was asked.
    """

    settings: Mapping[str, object]
    circumstances: Mapping[str, object]
    counts: Mapping[str, int] | None = None
    profile: Mapping[str, object] | None = None

    @property
    def fingerprint(self) -> str:
        """A short name for the settings."""
        settings = orjson.dumps(dict(self.settings), option=orjson.OPT_SORT_KEYS)
        return hashlib.blake2b(settings, digest_size=8).hexdigest()

    def save(self, output: Path) -> None:
        """Write it beside ``output``, whole or not at all.

        Raises:
            DeeplayerError: the system refuses.
        """
        target = record_path(output)
        partial = target.with_name(f"{target.name}.partial")
        content = {"fingerprint": self.fingerprint, **asdict(self)}
        data = memoryview(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        with writing(str(target)):
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            try:
                while data:
                    data = data[disk.write(descriptor, data) :]
                disk.sync(descriptor)
            finally:
                os.close(descriptor)
            disk.replace(partial, target)


def record_path(output: Path) -> Path:
    """Where the record of an output lies."""
    return output.with_name(f"{output.name}.run.json")


def load_record(output: Path) -> RunRecord | None:
    """The record beside ``output``; None without one.

    Raises:
        DeeplayerError: it cannot be read.
    """
    path = record_path(output)
    try:
        content = orjson.loads(path.read_bytes())
        return RunRecord(
            dict(content["settings"]), dict(content["circumstances"]), content["counts"], content.get("profile")
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DeeplayerError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DeeplayerError(f"{path} is no record of a run: --overwrite starts the run again") from error


def refuse_other_settings(output: Path, old: RunRecord, new: RunRecord) -> None:
    """Refuse to continue a run with settings that would change its answers.

    Raises:
        DeeplayerError: names every setting that changed, with its old and its new value.
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
