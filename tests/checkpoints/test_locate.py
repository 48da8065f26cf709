from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import typer
from huggingface_hub.errors import (
    DryRunError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from deeplayer_cli.checkpoints import fitting
from deeplayer_cli.checkpoints import locate as module
from deeplayer_cli.checkpoints.locate import locate, pending_download
from deeplayer_cli.commands.options import agree_to_download
from deeplayer_cli.device.placement import Placement
from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "OpenGVLab/InternVL2_5-8B"


def hub(monkeypatch: pytest.MonkeyPatch, *, listing: Any = (), folder: Any = "snapshot") -> list[dict[str, Any]]:
    """Answer every call with ``listing`` (dry runs) or ``folder``; an exception is raised."""
    calls = []

    def snapshot_download(name: str, **options: Any) -> Any:
        calls.append({"name": name} | options)
        answer = listing if options.get("dry_run") else folder
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(module, "snapshot_download", snapshot_download)
    return calls


def file(size: int, *, wanted: bool = True, name: str = "model.safetensors") -> SimpleNamespace:
    """A line of the hub's listing."""
    return SimpleNamespace(file_size=size, will_download=wanted, filename=name)


def error(kind: type[Exception]) -> Exception:
    """An exception of the hub, without the response that its constructor asks for."""
    return kind.__new__(kind)


def test_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate(str(tmp_path), None) == tmp_path
    (tmp_path / "org" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert locate("org/model", None) == Path("org/model")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~/org", None) == tmp_path / "org"


def test_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEMO_FOLDER", tmp_path)
    assert locate("demo", None) == tmp_path
    monkeypatch.setattr(module, "DEMO_FOLDER", tmp_path / "gone")
    with pytest.raises(DeeplayerError, match=r"the demo model is missing from .*gone: install deeplayer again"):
        locate("demo", None)


def test_a_revision_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DeeplayerError, match="--revision main is for Hugging Face names"):
        locate(str(tmp_path), "main")


@pytest.mark.parametrize(
    "name", ["./nowhere", "/no/where", "InternVL2_5-8B", "a/b/c", "", "~/nowhere", "~nobody-here/x", "x" * 5000]
)
def test_nothing_of_that_name(name: str) -> None:
    with pytest.raises(
        DeeplayerError, match="is neither a folder nor a Hugging Face name: use a folder, OWNER/NAME, demo"
    ):
        locate(name, None)


def test_a_download_is_announced(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    sizes = [(16_000_000_000, True), (150_000_000, True), (5_000_000_000, False)]
    calls = hub(monkeypatch, listing=[file(size, wanted=wanted) for size, wanted in sizes])
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**12))
    with caplog.at_level(logging.INFO, logger="deeplayer"):
        assert locate(NAME, "v1") == Path("snapshot")
    assert f"downloading {NAME} at revision v1, 16.15 GB, to " in caplog.text
    assert "--model demo needs no download" in caplog.text
    assert all(call["revision"] == "v1" for call in calls)
    patterns = calls[-1]["allow_patterns"]
    assert "*.safetensors" in patterns
    assert not {"*", "*.py", "*.bin", "*.pt"} & set(patterns)


def test_a_download_that_is_there_already_says_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub(monkeypatch, listing=[file(5, wanted=False)])
    with caplog.at_level(logging.INFO, logger="deeplayer"):
        locate(NAME, None)
    assert not caplog.text


def test_an_earlier_download_works_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, listing=DryRunError())
    assert locate(NAME, None) == Path("snapshot")


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (GatedRepoError, f"{NAME} is gated: accept its terms on https://huggingface.co/{NAME}"),
        (RepositoryNotFoundError, f"{NAME} is neither a folder here nor a public model .*: check the spelling"),
        (RevisionNotFoundError, f"{NAME} has no revision 'v9': choose one listed on"),
        (
            LocalEntryNotFoundError,
            f"cannot download {NAME} at revision v9 .*LocalEntryNotFoundError.*, and it is not in",
        ),
        (OSError, "cannot download .*OSError.*or use --model demo"),
    ],
)
@pytest.mark.parametrize("listed", [False, True])
def test_failures(monkeypatch: pytest.MonkeyPatch, kind: type[Exception], sentence: str, listed: bool) -> None:
    hub(monkeypatch, listing=[] if listed else DryRunError(), folder=error(kind))
    with pytest.raises(DeeplayerError, match=sentence):
        locate(NAME, "v9")


def test_the_error_that_the_hubs_client_hides_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = error(LocalEntryNotFoundError)
    hidden.__cause__ = OSError("certificate verify failed: self-signed certificate")
    hub(monkeypatch, folder=hidden)
    with pytest.raises(DeeplayerError, match=r"\(OSError: certificate verify failed: self-signed certificate\), and"):
        locate(NAME, None)


def test_without_any_double_the_hub_is_offline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The real client, which the environment of the tests keeps off the network."""
    real: Callable[..., str] = module.snapshot_download
    monkeypatch.setattr(
        module, "snapshot_download", lambda *args, **options: real(*args, cache_dir=tmp_path, **options)
    )
    with pytest.raises(DeeplayerError, match=f"cannot download {NAME} .*HF_HUB_OFFLINE"):
        locate(NAME, None)
    commit = "a" * 40
    repository = tmp_path / f"models--{NAME.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    assert locate(NAME, None) == repository / "snapshots" / commit


def test_a_download_that_does_not_fit_on_the_disk_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = hub(monkeypatch, listing=[file(16 * 10**9)])
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=15 * 10**9))
    with pytest.raises(DeeplayerError, match=r"16.00 GB, and 15.00 GB are free in .*: set HF_HUB_CACHE .*--model demo"):
        locate(NAME, None)
    assert [call["dry_run"] for call in calls] == [True]


def test_weights_that_do_not_fit_into_memory_are_not_downloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """8 billion weights, stored in 16 bits: 32 GB in float32."""
    files = [file(16 * 10**9), file(10**6, name="tokenizer.model")]
    calls = hub(monkeypatch, listing=files, folder=str(tmp_path))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**12))
    monkeypatch.setattr(fitting, "free_bytes", lambda _: 20 * 10**9)
    with pytest.raises(DeeplayerError, match=r"needs 29.8 GiB .* in float32, and 18.6 GiB are free"):
        locate(NAME, None, Placement.choose("cpu", "fp32"))
    assert [call["allow_patterns"] for call in calls[1:]] == [["config.json"]]
    locate(NAME, None, Placement.choose("cpu", "bf16"))
    locate(NAME, None)  # nothing is known of where the weights go
    (tmp_path / "config.json").write_text('{"torch_dtype": "float32"}')
    locate(NAME, None, Placement.choose("cpu", "fp32"))  # these are 4 billion weights
    monkeypatch.setattr(fitting, "free_bytes", lambda _: 10**9)
    hub(monkeypatch, listing=[file(16 * 10**9, wanted=False)], folder=str(tmp_path))
    assert locate(NAME, None, Placement.choose("cpu", "fp32")) == tmp_path, "it is there already"


@pytest.mark.parametrize(("answer", "yes", "asked"), [("y", False, True), ("n", False, True), ("", True, False)])
def test_a_terminal_is_asked(monkeypatch: pytest.MonkeyPatch, answer: str, yes: bool, asked: bool) -> None:
    hub(monkeypatch, listing=[file(16 * 10**9)])
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**12))
    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    questions: list[str] = []
    monkeypatch.setattr(typer, "confirm", lambda text, **_: questions.append(text) or answer == "y")
    if answer == "n":
        with pytest.raises(DeeplayerError, match="was not downloaded: use --model demo"):
            agree_to_download(NAME, None, yes=yes)
    else:
        agree_to_download(NAME, None, yes=yes)
    assert [text.startswith(f"download {NAME}, 16.00 GB, to ") for text in questions] == [True] * asked


def test_nothing_is_asked_for_what_needs_no_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = hub(monkeypatch, listing=[file(5)])
    for name in ("demo", "random:1b", str(tmp_path)):
        assert pending_download(name, None) is None
    assert not calls
    hub(monkeypatch, listing=DryRunError())
    assert pending_download(NAME, None) is None
