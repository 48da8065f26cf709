"""Requests in, predictions out: the library's front door."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch

from deeplayer_cli import boxes, calibration, checkpoints, pruning
from deeplayer_cli.batching import Batching, affordable_tokens
from deeplayer_cli.checkpoints.placement import Placement
from deeplayer_cli.engine import Engine, Row, TemplateDraft
from deeplayer_cli.engine.failures import is_device_lost, is_out_of_memory
from deeplayer_cli.engine.stopwatch import Stopwatch
from deeplayer_cli.errors import DeeplayerError, RowError
from deeplayer_cli.imaging import MAX_PIXELS, open_image
from deeplayer_cli.pipeline import Effort, Job, TiledImage, by_image, read_ahead
from deeplayer_cli.prefixes import Prefixes
from deeplayer_cli.schema import BadRequest, Prediction, Request, parse_request
from deeplayer_cli.spending import Spending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from deeplayer_cli.checkpoints import Checkpoint
    from deeplayer_cli.engine import Answer, Prefix
    from deeplayer_cli.pruning import QueryRows

logger = logging.getLogger("deeplayer")

Share = Literal["each", "union", "off"]
_Row = TypeVar("_Row")

_SPEED = frozenset({"batch_size", "batch_tokens", "compiled", "profile", "share", "workers"})
_POLL_SECONDS = 0.01
_WINDOW = 4  # batches of the largest images, among whose rows those that fit together are looked for


@dataclass(frozen=True)
class Settings:
    """How to ground.

    Attributes:
        method: a name from ``deeplayer_cli.pruning.methods()``.
        keep: share of the visual tokens that stay, over all tiles and the thumbnail together.
        keep_tokens: an absolute number instead.
        layer: 1-based decoder layer to drop after; None for the method's own.
        query: prompt rows whose attention scores, for methods that read attention.
        prior: file of attention by place, for methods that are calibrated; see `deeplayer_cli.calibration`.
        max_tiles: tiles an image may be cut into, the thumbnail not counted; None for the checkpoint's own.
        max_pixels: the largest image that is decoded; None for `deeplayer_cli.imaging.MAX_PIXELS`.
        exif_transpose: turn images as their EXIF orientation says; boxes are then in the turned frame.
        max_new_tokens: the longest answer.
        seed: for methods that draw at random.
        with_kept: put the indices of the kept visual tokens into each row.
        share: what expressions about one image share: the image's way through layers 1..K (``"each"``), nothing
            (``"off"``, which changes no answer), or from there on also the ``"union"`` of their kept visual tokens.
        batch_size: the most prompts, and images, in one forward pass.
        batch_tokens: the most prompt tokens in one forward pass; None for what free memory allows.
        compiled: run the selection path through ``torch.compile``; None for yes on CUDA.
        workers: threads that read and tile images; None for one a core, at most 8.
        profile: wait for the device at every change of phase, so that `Grounder.watch` tells a GPU's phases apart.

    Raises:
        DeeplayerError: a value that no model could run with.
    """

    method: str = "deep-layer"
    keep: float = 0.1
    keep_tokens: int | None = None
    layer: int | None = None
    query: QueryRows = "last"
    prior: Path | None = None
    max_tiles: int | None = None
    max_pixels: int | None = None
    exif_transpose: bool = False
    max_new_tokens: int = 100
    seed: int = 0
    with_kept: bool = False
    share: Share = "each"
    batch_size: int = 32
    batch_tokens: int | None = None
    compiled: bool | None = None
    workers: int | None = None
    profile: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "batch_tokens", "max_new_tokens", "max_pixels", "max_tiles", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DeeplayerError(f"--{name.replace('_', '-')} must be at least 1; it was {value}")
        pruning.require_known(self.method)
        pruning.Budget(self.keep, self.keep_tokens)  # an impossible one is said before a model is loaded
        needs_prior = pruning.methods()[self.method].is_calibrated
        if needs_prior != (self.prior is not None):
            said = "needs --prior FILE, which `deeplayer calibrate` makes" if needs_prior else "takes no --prior"
            raise DeeplayerError(f"method {self.method} {said}")

    def deciding(self) -> dict[str, object]:
        """Those that an answer depends on; the others change only how long it takes."""
        settings = {name: value for name, value in asdict(self).items() if name not in _SPEED}
        return settings | {"union": self.share == "union"}

    def pruning_options(self, checkpoint: Checkpoint) -> pruning.Options:
        """What these settings say about the method.

        Raises:
            DeeplayerError: the prior is of another model, or cannot be read.
        """
        prior = calibration.load(self.prior, checkpoint) if self.prior else None
        budget = pruning.Budget(self.keep, self.keep_tokens)
        return pruning.Options(budget, self.layer, checkpoint.grounding_layer, self.query, prior)


@dataclass(frozen=True)
class _Task:
    """A request that is ready to be asked, and its place in the window."""

    index: int
    request: Request
    image: TiledImage
    expression_ids: Sequence[int]


@dataclass(frozen=True)
class _Shared:
    """Images whose prefix has been computed."""

    images: Sequence[TiledImage] = ()
    prefix: Prefix | None = None


class Grounder:
    """A loaded model that answers requests.

    Attributes:
        watch: seconds by phase, so far.
        effort: what the threads that prepare images took meanwhile.
        n_tokens: tokens of all answers so far.
        spending: what the same rows would have cost unpruned.
        spared: seconds that others have spent on its prefixes.

    Args:
        checkpoint: the model.
        settings: how to ask it.
        prefixes: those of methods that take turns with this one, see `answer_window`.

    Example:
        >>> grounder = Grounder.load("demo", method="none")
        >>> for row in grounder.ground([{"image": "photo.jpg", "expression": "the red circle"}]):
        ...     print(row.box)
    """

    def __init__(
        self, checkpoint: Checkpoint, settings: Settings | None = None, *, prefixes: Prefixes | None = None
    ) -> None:
        self.checkpoint = checkpoint
        self.settings = settings = settings or Settings()
        self.tiling = replace(checkpoint.tiling, max_tiles=settings.max_tiles or checkpoint.tiling.max_tiles)
        decoder = checkpoint.model.config.text_config
        self.method = pruning.build(settings.method, settings.pruning_options(checkpoint), decoder.num_hidden_layers)
        if settings.share == "union" and not self.method.drops_once:
            raise DeeplayerError(f"method {settings.method} drops in several steps: it cannot --share a union")
        self._prefixes, self.spared = prefixes or Prefixes(), 0.0
        self.effort = Effort()
        self.n_tokens = 0
        self.watch = Stopwatch(checkpoint.model.device if settings.profile else None)
        on_cuda = checkpoint.model.device.type == "cuda"
        self._engine = Engine(
            checkpoint,
            self.method,
            draft=TemplateDraft.of(checkpoint.tokenizer),
            compiled=on_cuda if settings.compiled is None else settings.compiled,
            union=settings.share == "union",
            watch=self.watch,
        )
        self.spending = Spending(checkpoint, self.method)
        self._max_positions: int = decoder.max_position_embeddings
        self._shared = _Shared()
        model = checkpoint.model
        tokens = settings.batch_tokens or affordable_tokens(model.config, model.dtype, model.device)
        self._batching = Batching(settings.batch_size, tokens)
        self._warned_of_words = False

    @classmethod
    def load(
        cls,
        model: str = checkpoints.DEFAULT,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        settings: Settings | None = None,
        **options: Any,
    ) -> Grounder:
        """Load ``model`` (a hub name, a folder, ``demo`` or ``random:8b``).

        Args:
            model: see ``checkpoints.load``, also for the next three.
            revision: of a hub model.
            dtype: of the weights.
            device: to run on.
            settings: how to ground.
            options: fields of ``Settings``, instead of ``settings`` or in place of its own.

        Raises:
            DeeplayerError: the model or a setting will not do; the message says why.
        """
        wanted = replace(settings or Settings(), **options)
        return cls(checkpoints.load(model, revision=revision, dtype=dtype, device=device), wanted)

    @property
    def n_layers(self) -> int:
        """Decoder layers of the model."""
        return self._engine.n_layers

    def mean_keep(self, n_visual: int, n_kept: int) -> float:
        """Share of an image's ``n_visual`` tokens that is seen, averaged over layers, where ``n_kept`` stayed."""
        if self.settings.share == "union" and self.method.layer is not None:
            early = self.method.layer / self.n_layers
            return early + (1 - early) * n_kept / n_visual
        return self.method.mean_keep(n_visual, self.n_layers)

    def ground(
        self,
        rows: Iterable[Request | BadRequest | Mapping[str, object]],
        *,
        stopped: Callable[[], bool] = lambda: False,
        ready: Callable[[], bool] = lambda: True,
    ) -> Iterator[Prediction]:
        """Answer every row, in order, one prediction each; rows and images are streamed.

        A mapping is read as a row of a JSONL file would be, its relative paths from the working directory. A row's
        answer depends on the row, its image and the settings, and on nothing else; with ``share="union"``, also on the
        other rows about its image.

        Args:
            rows: requests, or mappings with the fields of one.
            stopped: asked after every batch, and while there is no row; once it is true, what is answered is handed
                over and nothing more asked.
            ready: whether the next of ``rows`` is there; while it is not, those that are there do not wait for it.

        Raises:
            DeeplayerError: with ``share="union"``, an image comes up again after others.
        """
        for jobs in self.windows(rows, stopped=stopped, ready=ready):
            for predictions in self.answer_window(jobs, stopped):
                yield from predictions

    def windows(
        self,
        rows: Iterable[Request | BadRequest | Mapping[str, object]],
        *,
        stopped: Callable[[], bool] = lambda: False,
        ready: Callable[[], bool] = lambda: True,
    ) -> Iterator[list[Job]]:
        """Rows with their images, as many at a time as are worth looking at together; arguments as for `ground`."""
        workers = self.settings.workers or min(8, os.cpu_count() or 1)
        rows = _until_stopped(rows, stopped, ready)
        requests = (_as_request(row, index) for index, row in enumerate(rows, start=1))
        read = partial(
            open_image,
            max_pixels=self.settings.max_pixels or MAX_PIXELS,
            exif_transpose=self.settings.exif_transpose,
        )
        windows = read_ahead(
            requests, self.tiling, read=read, workers=workers, window=self._window(), ready=ready, effort=self.effort
        )
        if self.settings.share == "union":
            windows = by_image(chain.from_iterable(windows), lambda job: job.request)
        while not stopped():
            with self.watch.timing("wait for images"):
                jobs = next(windows, None)
            if jobs is None:
                return
            yield jobs

    def _window(self) -> int:
        """Rows to look at together: their images wait in the host's memory, so fewer where a batch holds few."""
        most_tiles = self.tiling.max_tiles + self.tiling.thumbnail
        largest = self._engine.n_prompt_text + most_tiles * self.checkpoint.tokens_per_tile
        return max(self.settings.batch_size, _WINDOW * self._batching.count(largest))

    def answer_window(self, jobs: Sequence[Job], stopped: Callable[[], bool]) -> Iterator[list[Prediction]]:
        """Answer rows with their images: after every batch the predictions that are next in order, if any.

        Grounders that differ in their method alone, and were given one `Prefixes`, may do so in turn, a batch each.
        """
        predictions: dict[int, Prediction] = {}
        tasks = []
        for index, job in enumerate(jobs):
            try:
                tasks.append(self._task(index, job))
            except RowError as error:
                predictions[index] = self._failed(job.request, error)
        self._count(tasks)
        batches, n_handed = self._answer(tasks), 0
        while n_handed < len(jobs):
            if n_handed not in predictions:
                if stopped():
                    return
                predictions |= next(batches)
            now = list(takewhile(predictions.__contains__, range(n_handed, len(jobs))))
            n_handed += len(now)
            yield [predictions.pop(index) for index in now]

    def release(self) -> None:
        """Let go of the last images' prefix."""
        self._shared = _Shared()

    def _count(self, tasks: Sequence[_Task]) -> None:
        by_image: dict[TiledImage, list[int]] = {}
        for task in tasks:
            by_image.setdefault(task.image, []).append(len(task.expression_ids))
        for image, expressions in by_image.items():
            self.spending.add(len(image.tiles) * self.checkpoint.tokens_per_tile, expressions)

    def _task(self, index: int, job: Job) -> _Task:
        if job.error is not None:
            raise job.error
        assert isinstance(job.request, Request) and job.image is not None  # noqa: S101 - a job without error has both
        ids = self.checkpoint.tokenizer.encode_expression(job.request.expression)
        if not ids:
            raise RowError(
                "bad_expression", f"{job.request.where}: the expression has no tokens in this model's vocabulary"
            )
        if self.checkpoint.tokenizer.unknown_id in ids and not self._warned_of_words:
            self._warned_of_words = True
            logger.warning(
                "%s: %r has words that this model does not know and cannot tell apart; said once for all rows",
                *(job.request.where, job.request.expression),
            )
        n_visual = len(job.image.tiles) * self.checkpoint.tokens_per_tile
        needed = self._engine.n_prompt_text + n_visual + len(ids) + self.settings.max_new_tokens
        if needed > self._max_positions:
            raise RowError(
                "prompt_too_long",
                f"{job.request.where}: the prompt and its answer need {needed} positions ({len(ids)} of expression, "
                f"{n_visual} for the image), and this model has {self._max_positions}",
            )
        image = replace(job.image) if self.settings.share == "off" else job.image  # a copy is another image
        return _Task(index, job.request, image, ids)

    def _answer(self, tasks: Sequence[_Task]) -> Iterator[dict[int, Prediction]]:
        """Answer tasks, a batch at a time: the first that is left, and those that go with it.

        Where memory runs short, this and every later batch is smaller; a task that does not fit alone has failed.
        """
        while tasks:
            tasks = sorted(tasks, key=lambda task: task.image not in self._shared.images)
            try:
                answered = self._answer_batch(self._next_batch(tasks))
            except Exception as error:
                answered = self._retreat(tasks, error)
            yield answered
            tasks = [task for task in tasks if task.index not in answered]

    def _next_batch(self, tasks: Sequence[_Task]) -> list[_Task]:
        """The next tasks whose images share a prefix, which is computed if the first task's image has none yet."""
        first = tasks[0].image
        if first not in self._shared.images:
            self._shared = _Shared()  # the old one makes room first
            alike = (task.image for task in tasks if len(task.image.tiles) == len(first.tiles))
            images = list(dict.fromkeys(alike))[: self._batching.count(self._prompt_tokens(tasks[0]))]
            prefix, spared = self._prefixes.of(self._engine, images)
            self._shared, self.spared = _Shared(images, prefix), self.spared + spared
        batch = [task for task in tasks if task.image in self._shared.images]
        return (
            batch
            if self.settings.share == "union"
            else batch[: self._batching.fitting(map(self._prompt_tokens, batch))]
        )

    def _answer_batch(self, batch: Sequence[_Task]) -> dict[int, Prediction]:
        """Answer tasks whose images the current prefix holds."""
        prefix = self._shared.prefix
        assert prefix is not None  # noqa: S101 - a task is in a prefix
        rows = [
            Row(self._shared.images.index(task.image), task.expression_ids, self._row_seed(task.request))
            for task in batch
        ]
        predictions = {}
        for task, answer in zip(batch, self._engine.answer(prefix, rows, self.settings.max_new_tokens), strict=True):
            self.n_tokens += len(answer.token_ids)
            if answer.broken_layer is None:
                predictions[task.index] = self._prediction(task, answer)
            else:
                message = f"{task.request.where}: numbers overflow in layer {answer.broken_layer}: try another --dtype"
                predictions[task.index] = self._failed(task.request, RowError("not_finite", message))
        return predictions

    def _prompt_tokens(self, task: _Task) -> int:
        n_visual = len(task.image.tiles) * self.checkpoint.tokens_per_tile
        return self._engine.n_prompt_text + n_visual + len(task.expression_ids)

    def _retreat(self, tasks: Sequence[_Task], error: Exception) -> dict[int, Prediction]:
        """After the first batch of ``tasks`` failed for lack of memory, make the next one smaller."""
        if is_device_lost(error):
            raise DeeplayerError(f"the device has failed ({_first_line(error)}): rows until here are safe") from error
        if not is_out_of_memory(error):
            raise error
        self.release()
        self._prefixes.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.settings.share == "union" and len(tasks) > 1:
            return self._out_of_memory(tasks, "with all expressions about its image: use --share each")
        prompt_tokens = self._prompt_tokens(tasks[0])
        most = 1 if self.settings.share == "union" else self._batching.count(prompt_tokens)
        if most == 1:
            return self._out_of_memory(tasks[:1], "even alone: use a smaller --max-tiles or --max-new-tokens")
        logger.warning("out of memory with %d prompts at once: going on with %d", most, most // 2)
        self._batching = self._batching.halved(prompt_tokens)
        return {}

    def _out_of_memory(self, tasks: Sequence[_Task], said: str) -> dict[int, Prediction]:
        return {
            task.index: self._failed(
                task.request, RowError("out_of_memory", f"{task.request.where}: out of memory, {said}")
            )
            for task in tasks
        }

    def _failed(self, request: Request | BadRequest, error: RowError) -> Prediction:
        return Prediction.failed(request, error, method=self.method.name, layer=self.method.layer)

    def _prediction(self, task: _Task, answer: Answer) -> Prediction:
        text = self.checkpoint.tokenizer.decode(answer.token_ids)
        return Prediction.answered(
            task.request,
            text.strip(),
            task.image.resolution_wh,
            score=self._score(answer, text),
            visual_tokens=len(task.image.tiles) * self.checkpoint.tokens_per_tile,
            kept_tokens=len(answer.kept),
            method=self.method.name,
            layer=self.method.layer,
            kept=answer.kept if self.settings.with_kept else None,
            fallback=None if answer.as_drafted or not self.method.reads_draft else True,
            share="union" if self.settings.share == "union" else None,
        )

    def _score(self, answer: Answer, text: str) -> float | None:
        """Mean probability of the tokens that write the first box's coordinates in ``text``; None without a box."""
        decode = self.checkpoint.tokenizer.decode
        ends = [len(decode(answer.token_ids[: n + 1])) for n in range(len(answer.token_ids))]
        spans = boxes.coordinate_spans(text)
        coordinates = [
            probability
            for start, end, probability in zip([0, *ends], ends, answer.probabilities, strict=False)
            if any(start < span_end and span_start < end for span_start, span_end in spans)
        ]
        return sum(coordinates) / len(coordinates) if coordinates else None

    def _row_seed(self, request: Request) -> int:
        """A number that depends on ``--seed`` and the row's id alone."""
        digest = hashlib.blake2b(f"{self.settings.seed}\0{request.id!r}".encode(), digest_size=4).digest()
        return int.from_bytes(digest, "little")


def describe(
    model: str, settings: Settings, *, revision: str | None = None, dtype: str = "auto", device: str = "auto"
) -> dict[str, object]:
    """What an answer depends on besides its row and image, without loading the model; arguments as `Grounder.load`'s.

    Raises:
        DeeplayerError: there is no such model, dtype or device.
    """
    chosen = Placement.choose(device, dtype).dtype
    weights = checkpoints.identify(model, revision)
    prior = calibration.digest(settings.prior) if settings.prior else None
    dtype = str(chosen).removeprefix("torch.")
    return {"weights": weights, "dtype": dtype, **settings.deciding(), "prior": prior}


def _until_stopped(rows: Iterable[_Row], stopped: Callable[[], bool], ready: Callable[[], bool]) -> Iterator[_Row]:
    """The rows, up to one that has not come before the run is stopped."""
    rows = iter(rows)
    while True:
        while not ready():
            if stopped():
                return
            time.sleep(_POLL_SECONDS)
        row = next(rows, None)
        if row is None:
            return
        yield row


def _as_request(row: Request | BadRequest | Mapping[str, object], index: int) -> Request | BadRequest:
    if isinstance(row, Request | BadRequest):
        return row
    return parse_request(row, f"row {index}", index, Path())


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
