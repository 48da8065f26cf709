"""Find or download the folder that ``--model`` names."""

from __future__ import annotations

import contextlib
import logging
import re
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import DryRunError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from deeplayer_cli.errors import DeeplayerError

DEFAULT = "OpenGVLab/InternVL2_5-8B"
DEMO = "demo"
DEMO_FOLDER = Path(__file__).parent.parent / "demo" / "weights"

_FILES = ["*.json", "*.txt", "*.jinja", "tokenizer.model", "*.safetensors"]
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_LOG = logging.getLogger("deeplayer")


def locate(name: str, revision: str | None) -> Path:
    """Find the folder of a checkpoint, and download it if needed.

    Args:
        name: ``demo`` (the model that comes with this package), a folder, or a Hugging Face name such as
            ``OpenGVLab/InternVL2_5-8B``. For a folder with the name ``demo``, use ``./demo``.
        revision: branch, tag or commit of a Hugging Face name.

    Raises:
        DeeplayerError: the name is neither a folder nor a Hugging Face name, or the download fails.
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
    return _download(name, revision)


def _folder(name: str) -> Path | None:
    with contextlib.suppress(OSError, RuntimeError):  # a name too long for a path, or ~ of an unknown user
        folder = Path(name).expanduser()
        if name and folder.is_dir():
            return folder
    return None


def _download(name: str, revision: str | None) -> Path:
    where = f"{name} at revision {revision}" if revision else name
    try:
        with contextlib.suppress(DryRunError):  # the hub is unreachable: an earlier download may be there
            wanted = snapshot_download(name, revision=revision, allow_patterns=_FILES, dry_run=True)
            if size := sum(file.file_size or 0 for file in wanted if file.will_download):
                _LOG.info(
                    "downloading %s, %.2f GB, to %s (--model demo needs no download)",
                    where,
                    size / 1e9,
                    constants.HF_HUB_CACHE,
                )
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FILES))
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
            f"cannot download {where} ({type(error).__name__}), and it is not in {constants.HF_HUB_CACHE}: check "
            f"network and disk, or give a folder that holds it, or use --model {DEMO}"
        ) from error
