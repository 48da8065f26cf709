"""The same rows under several settings: grounders of one loaded model take turns on them, and share their work."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Protocol

from deeplayer_cli import checkpoints
from deeplayer_cli.runtime.grounder import Grounder
from deeplayer_cli.runtime.identity import ModelIdentity
from deeplayer_cli.runtime.prefix_cache import PrefixCache
from deeplayer_cli.runtime.prepare import PreparedRun
from deeplayer_cli.runtime.prior_file import load_prior, prior_digest
from deeplayer_cli.runtime.scope_check import ScopeCheck

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from deeplayer_cli.checkpoints import Checkpoint, Layout
    from deeplayer_cli.images.loader import LoadedRequest
    from deeplayer_cli.pruning import Prior
    from deeplayer_cli.runtime.settings import Settings
    from deeplayer_cli.schema import BadRequest, Prediction, Request

    Row = Request | BadRequest
    IsUnanswered = Callable[[Row], bool]
    LoadModel = Callable[..., "ComparedModel"]
    """The interface of `LoadedModel.load`."""


class ComparedModel(Protocol):
    """The interface of a model that answers rows under several settings, in this process or elsewhere."""

    @property
    def checkpoint(self) -> Checkpoint | Layout:
        """The model, or its description."""

    @property
    def identity(self) -> ModelIdentity:
        """The identity of the model, for the records."""

    @property
    def prior(self) -> Prior | None:
        """The prior for calibrated methods."""

    @property
    def seconds(self) -> Mapping[Settings, float]:
        """The time that each settings would have taken alone, so far; empty if workers answer, who share the time."""

    def answer(
        self, rows: Iterable[Row], unanswered: Mapping[Settings, IsUnanswered], stopped: Callable[[], bool]
    ) -> Iterator[tuple[Settings, Prediction]]:
        """Answer rows under settings that differ only in their method; rows of the same settings come in order.

        Args:
            rows: requests with different ids, that at least one of the settings has no answer to.
            unanswered: by settings: whether a row must be answered under them.
            stopped: called after every batch; once it is true, finished answers are yielded and no more rows are read.
        """


class LoadedModel:
    """A model in this process that answers rows under several settings; see `ComparedModel`.

    Attributes:
        checkpoint: the model.
        identity: its identity.
        prior: prior for calibrated methods.
        scope: says once what the model does not know.
        seconds: see `ComparedModel`.
    """

    def __init__(self, checkpoint: Checkpoint, identity: ModelIdentity, prior: Prior | None) -> None:
        self.checkpoint, self.identity, self.prior = checkpoint, identity, prior
        self.scope = ScopeCheck(checkpoint, strict=False)
        self.seconds: dict[Settings, float] = {}
        self._prefixes = PrefixCache()
        self._grounders: dict[Settings, Grounder] = {}

    @classmethod
    def load(
        cls, model: str, *, revision: str | None, dtype: str, device: str, prior: Path | None = None
    ) -> LoadedModel:
        """Load a model; arguments as for `checkpoints.load`, and the prior file for calibrated methods.

        Raises:
            DeeplayerError: the model or the prior cannot be loaded.
        """
        return prepare_model(model, revision=revision, dtype=dtype, device=device, prior=prior).load()

    def answer(
        self, rows: Iterable[Row], unanswered: Mapping[Settings, IsUnanswered], stopped: Callable[[], bool]
    ) -> Iterator[tuple[Settings, Prediction]]:
        """Answer rows; see `ComparedModel.answer`.

        Methods share work in each batch: the vision tower runs once, and methods with the same kind of prefix share it.
        The methods run in the order of their layers, so that these are neighbours.
        """
        grounders = {one: self._grounder(one) for one in unanswered}
        in_turn = sorted(unanswered, key=lambda one: grounders[one].method.layer or 0)
        lines = [RunLine(grounders[one], unanswered[one]) for one in in_turn]
        for number, prediction in take_turns(lines, rows, stopped):
            settings = in_turn[number]
            self.seconds[settings] = lines[number].seconds
            yield settings, prediction

    def _grounder(self, settings: Settings) -> Grounder:
        if settings not in self._grounders:
            prior = self.prior if settings.prior else None
            self._grounders[settings] = Grounder(
                self.checkpoint, settings, prior=prior, prefixes=self._prefixes, scope=self.scope
            )
        return self._grounders[settings]


def prepare_model(
    model: str, *, revision: str | None, dtype: str, device: str, prior: Path | None
) -> PreparedRun[LoadedModel]:
    """Check a model without loading it; arguments and errors as for `LoadedModel.load`."""
    identity = ModelIdentity.from_name(model, revision=revision, dtype=dtype, device=device)

    def load() -> LoadedModel:
        checkpoint = checkpoints.load(model, revision=revision, dtype=dtype, device=device)
        return LoadedModel(checkpoint, identity, load_prior(prior, checkpoint) if prior else None)

    digest = prior_digest(prior) if prior else None
    return PreparedRun({"weights": identity.weights, "dtype": identity.dtype, "prior": digest}, load)


def answer_each(
    model: ComparedModel, rows: Sequence[Row], settings: Sequence[Sequence[Settings]]
) -> Iterator[Prediction]:
    """Yield the answers to some rows: for each row, in order, one under each of its ``settings``, in order."""
    asked: dict[Settings, set[object]] = {}
    for row, wanted in zip(rows, settings, strict=True):
        for one in wanted:
            asked.setdefault(one, set()).add(row.id)
    unanswered = {one: partial(_is_among, ids) for one, ids in asked.items()}
    found = {(one, answer.id): answer for one, answer in model.answer(rows, unanswered, lambda: False)}
    for row, wanted in zip(rows, settings, strict=True):
        for one in wanted:
            yield found[one, row.id]


def _is_among(ids: set[object], row: Row) -> bool:
    return row.id in ids


class WindowAnswerer(Protocol):
    """The interface that answerers need to take turns on the same rows; a `Grounder` has it."""

    @property
    def seconds_saved(self) -> float:
        """Seconds of shared work that other answerers have done for this one, so far."""

    def windows(self, rows: Iterable[Row], *, stopped: Callable[[], bool]) -> Iterator[Sequence[LoadedRequest]]:
        """Yield rows with their images, a window at a time, from which batches are made."""

    def answer_window(
        self, window: Sequence[LoadedRequest], stopped: Callable[[], bool]
    ) -> Iterator[Sequence[Prediction]]:
        """Answer a window; after every batch, yield the predictions that are next in the order of rows, if any."""


@dataclass
class RunLine:
    """One of several answerers that take turns on the same rows.

    Attributes:
        answerer: gives the answers.
        unanswered: whether it must answer a row.
        seconds: the time that this would have taken without the other lines.
    """

    answerer: WindowAnswerer
    unanswered: IsUnanswered
    seconds: float = 0.0

    def batches(self, window: Sequence[LoadedRequest], stopped: Callable[[], bool]) -> Iterator[Sequence[Prediction]]:
        """Answer its rows of a window, a batch at a time, and add the time to ``seconds``."""
        own = [loaded for loaded in window if self.unanswered(loaded.request)]
        batches = self.answerer.answer_window(own, stopped)
        while True:
            begun, saved = time.perf_counter(), self.answerer.seconds_saved
            batch = next(batches, None)
            if batch is None:
                return
            self.seconds += time.perf_counter() - begun + self.answerer.seconds_saved - saved
            yield batch


def take_turns(
    lines: Sequence[RunLine], rows: Iterable[Row], stopped: Callable[[], bool]
) -> Iterator[tuple[int, Prediction]]:
    """Answer rows with every line in turn, a batch each; yield the number of the line and the prediction.

    Args:
        lines: at least one; the first loads the images of all.
        rows: requests that at least one line must answer.
        stopped: called after every batch; once it is true, finished answers are yielded and no more rows are read.
    """
    for window in lines[0].answerer.windows(rows, stopped=stopped):
        turns = [line.batches(window, stopped) for line in lines]
        for batches in zip_longest(*turns, fillvalue=()):
            for number, batch in enumerate(batches):
                for prediction in batch:
                    yield number, prediction
