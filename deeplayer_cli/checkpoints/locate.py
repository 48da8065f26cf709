"""Find or download the folder that ``--model`` names."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import DryRunError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from deeplayer_cli.checkpoints.files import read_json
from deeplayer_cli.checkpoints.fitting import require_memory
from deeplayer_cli.errors import DeeplayerError, root_cause

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deeplayer_cli.device.placement import Placement

DEFAULT = "OpenGVLab/InternVL2_5-8B"
DEMO = "demo"
DEMO_FOLDER = Path(__file__).parent.parent / "demo" / "weights"

_FILES = ["*.json", "*.txt", "*.jinja", "tokenizer.model", "*.safetensors"]
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
logger = logging.getLogger("deeplayer")


@dataclass(frozen=True)
class Download:
    """Files of a model that are on the hub only.

    Attributes:
        name: of the model, with its revision.
        size: of the missing files, in bytes.
        weight_bytes: size of all weight files, in bytes.
        folder: where they go.
    """

    name: str
    size: int
    weight_bytes: int
    folder: Path

    def __str__(self) -> str:
        """Return name, size and place."""
        return f"{self.name}, {self.size / 1e9:.2f} GB, to {self.folder}"

    def require_disk(self) -> None:
        """Refuse a download that does not fit on its disk.

        Raises:
            DeeplayerError: it does not fit; the message gives the sizes.
        """
        existing = next(one for one in (self.folder, *self.folder.absolute().parents) if one.is_dir())
        free = shutil.disk_usage(existing).free
        if self.size > free:
            raise DeeplayerError(
                f"{self.name} is a download of {self.size / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free in "
                f"{self.folder}: set HF_HUB_CACHE to a folder on a larger disk, or use --model {DEMO}"
            )


def locate(name: str, revision: str | None, placement: Placement | None = None) -> Path:
    """Find the folder of a checkpoint, and download it if needed.

    Args:
        name: ``demo`` (the model that comes with this package), a folder, or a Hugging Face name such as
            ``OpenGVLab/InternVL2_5-8B``. For a folder with the name ``demo``, use ``./demo``.
        revision: branch, tag or commit of a Hugging Face name.
        placement: where the weights will go; if given, a download whose weights do not fit there is refused.

    Raises:
        DeeplayerError: the name is neither a folder nor a Hugging Face name, or the download fails or does not fit.
    """
    if name == DEMO and not DEMO_FOLDER.is_dir():
        raise DeeplayerError(f"the demo model is missing from {DEMO_FOLDER}: install deeplayer again")
    folder = DEMO_FOLDER if name == DEMO else _folder(name)
    if folder is not None:
        if revision is not None:
            raise DeeplayerError(
                f"--revision {revision} is for Hugging Face names, and {name!r} is a folder: leave it out"
            )
        return folder
    if not _HUB_NAME.fullmatch(name):
        raise DeeplayerError(
            f"--model {name!r} is neither a folder nor a Hugging Face name: use a folder, OWNER/NAME, {DEMO} or "
            "random:8b"
        )
    return _download(name, revision, placement)


def _folder(name: str) -> Path | None:
    with contextlib.suppress(OSError, RuntimeError):  # a name too long for a path, or ~ of an unknown user
        folder = Path(name).expanduser()
        if name and folder.is_dir():
            return folder
    return None


def pending_download(name: str, revision: str | None) -> Download | None:
    """Return what must be downloaded before a model can be loaded; None for nothing, or if the hub is unreachable.

    Raises:
        DeeplayerError: the hub has no such model or revision, or it is gated.
    """
    if name == DEMO or _folder(name) is not None or not _HUB_NAME.fullmatch(name):
        return None
    with _saying_why(name, revision), contextlib.suppress(DryRunError):
        wanted = snapshot_download(name, revision=revision, allow_patterns=_FILES, dry_run=True)
        size = sum(file.file_size or 0 for file in wanted if file.will_download)
        weights = sum(file.file_size or 0 for file in wanted if file.filename.endswith(".safetensors"))
        return Download(_called(name, revision), size, weights, Path(constants.HF_HUB_CACHE)) if size else None
    return None  # an earlier download may be there


def _download(name: str, revision: str | None, placement: Placement | None) -> Path:
    download = pending_download(name, revision)
    with _saying_why(name, revision):
        if download is not None:
            download.require_disk()
            if placement is not None:
                config = snapshot_download(name, revision=revision, allow_patterns=["config.json"])
                require_memory(name, download.weight_bytes // _stored_item_size(Path(config)), placement)
            logger.info("downloading %s (--model demo needs no download)", download)
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FILES))


def _stored_item_size(folder: Path) -> int:
    """Return the bytes of a stored weight, as the configuration states its dtype; 2 if it states none."""
    with contextlib.suppress(DeeplayerError):
        config = read_json(folder / "config.json")
        return 4 if "float32" in (config.get("dtype"), config.get("torch_dtype")) else 2
    return 2


def _called(name: str, revision: str | None) -> str:
    return f"{name} at revision {revision}" if revision else name


@contextlib.contextmanager
def _saying_why(name: str, revision: str | None) -> Iterator[None]:
    """Turn the hub's exceptions into a `DeeplayerError`."""
    try:
        yield
    except DeeplayerError:
        raise
    except GatedRepoError as error:
        raise DeeplayerError(
            f"{name} is gated: accept its terms on https://huggingface.co/{name} and log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise DeeplayerError(
            f"{name} has no revision {revision!r}: choose one listed on https://huggingface.co/{name}"
        ) from error
    except RepositoryNotFoundError as error:
        raise DeeplayerError(
            f"{name} is neither a folder here nor a public model on https://huggingface.co: check the spelling"
        ) from error
    except Exception as error:  # any error of the network, the disk or the hub's client
        raise DeeplayerError(
            f"cannot download {_called(name, revision)} ({root_cause(error)}), and it is not in "
            f"{constants.HF_HUB_CACHE}: check network and disk, or give a folder that holds it, or use --model {DEMO}"
        ) from error
