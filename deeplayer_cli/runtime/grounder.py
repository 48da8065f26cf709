"""The grounder: a loaded model that answers requests."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from functools import partial
from itertools import count, takewhile
from typing import TYPE_CHECKING, Any

from deeplayer_cli import checkpoints, pruning
from deeplayer_cli.cost.savings import PruningSavings
from deeplayer_cli.cost.shape import ModelShape, PromptLengths
from deeplayer_cli.engine import Engine, each_row, union_of_rows
from deeplayer_cli.engine.stopwatch import Stopwatch
from deeplayer_cli.errors import DeeplayerError, RowError, did_you_mean
from deeplayer_cli.images.loader import WorkerTimes
from deeplayer_cli.models.internvl.answer_format import TemplateDraft
from deeplayer_cli.runtime.batching import Batching, affordable_tokens
from deeplayer_cli.runtime.box_score import NumberTokens
from deeplayer_cli.runtime.fallback import with_fallback
from deeplayer_cli.runtime.identity import ModelIdentity, deciding
from deeplayer_cli.runtime.model_runner import ModelRunner
from deeplayer_cli.runtime.postprocess import failed_prediction
from deeplayer_cli.runtime.prefix_cache import PrefixCache
from deeplayer_cli.runtime.prior_file import load_prior
from deeplayer_cli.runtime.profile import Profile
from deeplayer_cli.runtime.scheduler import Scheduler, Task
from deeplayer_cli.runtime.scope_check import ScopeCheck
from deeplayer_cli.runtime.settings import Settings
from deeplayer_cli.runtime.totals import MeanKeep
from deeplayer_cli.runtime.windows import loaded_windows
from deeplayer_cli.schema import Request
from deeplayer_cli.schema.values import show

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from deeplayer_cli.checkpoints import Checkpoint
    from deeplayer_cli.images.loader import LoadedImage, LoadedRequest
    from deeplayer_cli.runtime.windows import AnyRow
    from deeplayer_cli.schema import Prediction

logger = logging.getLogger("deeplayer")

_EXPRESSION = 16  # tokens of an expression, to estimate memory; a long one
_WINDOW = 4  # batches of the largest images in a window, from whose rows the scheduler makes batches


class Grounder:
    """A loaded model that answers requests.

    Attributes:
        watch: seconds by phase, so far.
        worker_times: seconds of the threads that prepare images.
        savings: what the same rows would have cost unpruned.

    Args:
        checkpoint: the model.
        settings: how to answer.
        prior: the content of the settings' prior file, if it has been read; otherwise the file is read.
        prefixes: the prefix cache shared with grounders that take turns with this one, see `answer_window`.
        identity: of the model, if it is known from its files.
        scope: the check shared with grounders of the same model; it speaks once.

    Example:
        >>> grounder = Grounder.load("demo", method="none")
        >>> for row in grounder.ground([{"image": "photo.jpg", "expression": "the red circle"}]):
        ...     print(row.box)
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: Settings | None = None,
        *,
        prior: pruning.Prior | None = None,
        prefixes: PrefixCache | None = None,
        identity: ModelIdentity | None = None,
        scope: ScopeCheck | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.settings = settings = settings or Settings()
        self.tiling = settings.tiling(checkpoint.tiling)
        model, decoder = checkpoint.model, checkpoint.model.config.text_config
        settings.require_positions(decoder.max_position_embeddings)
        if settings.prior is not None and prior is None:
            prior = load_prior(settings.prior, checkpoint)
        options = settings.pruning_options(checkpoint.grounding_layer, prior)
        self.method = pruning.build(settings.method, options, decoder.num_hidden_layers)
        if self.answers_whole_images and (obstacle := self.method.union_obstacle):
            raise DeeplayerError(
                f"method {settings.method} {obstacle}, so it cannot run with --share union: use --share each"
            )
        self._identity = identity
        self._prefixes = prefixes or PrefixCache()
        self.worker_times = WorkerTimes()
        self.watch = Stopwatch(model.device if settings.profile else None)
        numbers = NumberTokens.from_tokenizer(checkpoint.tokenizer)
        make_engine = partial(
            Engine,
            checkpoint,
            draft=TemplateDraft.from_tokenizer(checkpoint.tokenizer),
            compiled=model.device.type == "cuda" if settings.compiled is None else settings.compiled,
            watch=self.watch,
            watched=numbers.ids,
        )
        self._engine = make_engine(self.method, pruned_layers=union_of_rows if self.answers_whole_images else each_row)
        self.savings = PruningSavings(checkpoint, self.method)
        self._max_positions: int = decoder.max_position_embeddings

        def make_runner(engine: Engine, *, whole_images: bool) -> ModelRunner:
            scheduler = Scheduler(self._batching(engine.method), whole_images=whole_images)
            return ModelRunner(engine, scheduler, self._prefixes, checkpoint.tokenizer.decode, numbers, settings)

        self._runner = make_runner(self._engine, whole_images=self.answers_whole_images)
        self._unpruned = None
        if settings.fallback is not None:
            self._unpruned = make_runner(make_engine(pruning.Method("none")), whole_images=False)
        self._tasks_made = count()
        self._scope = scope or ScopeCheck(checkpoint, strict=settings.strict)

    @classmethod
    def load(
        cls,
        model: str = checkpoints.DEFAULT,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        settings: Settings | None = None,
        identity: ModelIdentity | None = None,
        **options: Any,
    ) -> Grounder:
        """Load ``model`` (a hub name, a folder, ``demo`` or ``random:8b``).

        Args:
            model: see ``checkpoints.load``, also for the next three.
            revision: of a hub model.
            dtype: of the weights.
            device: to run on.
            settings: how to ground.
            identity: of the model, if it is already known.
            options: fields of ``Settings``; they replace those of ``settings``.

        Raises:
            DeeplayerError: the model cannot be loaded, or a setting is invalid; the message gives the reason.
        """
        names = [item.name for item in fields(Settings)]
        if unknown := [name for name in options if name not in names]:
            near = did_you_mean(unknown[0], names)
            raise DeeplayerError(f"there is no setting {unknown[0]!r}: choose from {', '.join(names)}{near}")
        wanted = replace(settings, **options) if settings else Settings(**options)
        identity = identity or ModelIdentity.from_name(model, revision=revision, dtype=dtype, device=device)
        return cls(checkpoints.load(model, revision=revision, dtype=dtype, device=device), wanted, identity=identity)

    @property
    def answers_whole_images(self) -> bool:
        """Whether all rows of an image must be answered together."""
        return self.settings.share == "union"

    @property
    def seconds_saved(self) -> float:
        """Seconds that other grounders have spent on prefixes that this one used, so far."""
        return self._runner.seconds_saved

    @property
    def n_layers(self) -> int:
        """Number of decoder layers of the model."""
        return self._engine.n_layers

    def deciding(self) -> dict[str, object]:
        """Return everything that an answer depends on, besides its row and image."""
        return deciding(self._identity or ModelIdentity.from_checkpoint(self.checkpoint), self.settings)

    @property
    def mean_keep(self) -> MeanKeep:
        """Returns the share of visual tokens that a layer sees on average, for the numbers of all and of kept ones."""
        is_known = not (self.method.is_adaptive or self.answers_whole_images)
        return MeanKeep(self.method, self.n_layers, is_known)

    def advice(self) -> str | None:
        """Return what to know about the rows so far: boxes that mean nothing, a cheaper method; None otherwise."""
        is_counted = self.settings.share == "each" and not self.method.is_adaptive and self._unpruned is None
        cheaper = self.savings.advice if is_counted else None
        return "; ".join(filter(None, (self._scope.summary(), cheaper))) or None

    def profile(self, rows: int, seconds: float) -> Profile:
        """Return where the time of a run went that answered ``rows`` rows in ``seconds``."""
        return Profile.from_run(
            self.watch.seconds, self.worker_times.seconds, self._n_tokens, rows, seconds, self._engine.device
        )

    def release(self) -> None:
        """Free the cached prefixes."""
        self._prefixes.clear()

    def ground(self, rows: Iterable[AnyRow], *, stopped: Callable[[], bool] = lambda: False) -> Iterator[Prediction]:
        """Yield one prediction for every row, in order; rows and images are streamed.

        A mapping is read like a row of a JSONL file; relative paths start from the working directory. Paths, numpy's
        scalars and arrays are read as text, numbers and lists. A row without an id gets its number in this call, from
        1. Ids may repeat: every row is answered and keeps its id. Anything that is not a row, such as None, becomes an
        error row. A row's answer depends on the row with its id, its image and the settings, and on nothing else; with
        ``share="union"``, also on the other rows about its image.

        Args:
            rows: requests, or mappings with the fields of one. Rows of an `ArrivingRows` are answered when they come.
            stopped: called after every batch, and while no row has come; once it is true, finished answers are yielded
                and no more rows are read.

        Raises:
            DeeplayerError: ``rows`` is one row, a path, or not iterable; or with ``share="union"``, an image occurs
                again after other images.
        """
        if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
            raise DeeplayerError(
                f"ground() takes several rows, such as [{{'image': ..., 'expression': ...}}], not {show(rows)}"
            )
        for window in self.windows(rows, stopped=stopped):
            for predictions in self.answer_window(window, stopped):
                yield from predictions

    def windows(
        self, rows: Iterable[AnyRow], *, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[Sequence[LoadedRequest]]:
        """Yield rows with their images, a window at a time, from which batches are made; arguments as for `ground`."""
        windows = loaded_windows(
            rows, self.settings, self.tiling, window=self._window(), times=self.worker_times, stopped=stopped
        )
        try:
            while not stopped():
                with self.watch.timing("wait for images"):
                    window = next(windows, None)
                if window is None:
                    return
                yield window
        finally:
            self.release()

    def answer_window(
        self, window: Sequence[LoadedRequest], stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[list[Prediction]]:
        """Answer a window; after every batch, yield the predictions that are next in the order of rows, if any.

        Grounders that differ only in their method, and share one `PrefixCache`, may take turns, a batch each.
        """
        predictions: dict[int, Prediction] = {}
        tasks = []
        for index, loaded in enumerate(window):
            try:
                tasks.append(self.task(index, loaded))
            except RowError as error:
                predictions[index] = failed_prediction(self.method, loaded.request, error, loaded.image)
        self._count(tasks)
        batches, n_handed = self._runner.answer(tasks), 0
        if self._unpruned is not None and self.settings.fallback is not None:
            batches = with_fallback(batches, tasks, self._unpruned, self.settings.fallback)
        while n_handed < len(window):
            if n_handed not in predictions:
                if stopped():
                    return
                predictions |= next(batches)
            now = list(takewhile(predictions.__contains__, range(n_handed, len(window))))
            n_handed += len(now)
            yield [predictions.pop(index) for index in now]

    @property
    def _n_tokens(self) -> int:
        """Number of tokens of all answers so far."""
        return self._runner.n_tokens + (0 if self._unpruned is None else self._unpruned.n_tokens)

    def _batching(self, method: pruning.Method) -> Batching:
        """Return the limits of a batch: those that are set, or what fits into memory for small and for large images."""
        settings, model, per_tile = self.settings, self.checkpoint.model, self.checkpoint.tokens_per_tile
        tokens = settings.batch_tokens
        if tokens is None:
            sizes = (per_tile, (self.tiling.max_tiles + self.tiling.thumbnail) * per_tile)
            prompts = [PromptLengths.from_checkpoint(self.checkpoint, n_visual, _EXPRESSION) for n_visual in sizes]
            shape = ModelShape.from_config(model.config)
            tokens = affordable_tokens(shape, prompts, method, settings.max_new_tokens, model.dtype, model.device)
        return Batching(settings.batch_size, tokens)

    def _window(self) -> int:
        """Return the rows of a window; few if batches are small, because the images wait in the host's memory."""
        most_tiles = self.tiling.max_tiles + self.tiling.thumbnail
        largest = self._engine.n_prompt_text + most_tiles * self.checkpoint.tokens_per_tile
        return max(self.settings.batch_size, _WINDOW * self._runner.scheduler.batching.count(largest))

    def _count(self, tasks: Sequence[Task]) -> None:
        by_key: dict[Hashable, list[Task]] = {}
        for task in tasks:
            by_key.setdefault(task.prefix_key, []).append(task)
        for group in by_key.values():
            self.savings.add(group[0].n_visual, [len(task.expression_ids) for task in group])

    def task(self, index: int, loaded: LoadedRequest) -> Task:
        """Make the task of a request; ``index`` is its position in the window.

        Raises:
            RowError: the model cannot read the request, or its image could not be loaded.
        """
        request, image = loaded.request, loaded.image
        if loaded.error is not None:
            raise loaded.error
        assert isinstance(request, Request) and image is not None  # noqa: S101 - without an error it has both
        ids = self.checkpoint.tokenizer.encode_expression(request.expression)
        if not ids:
            raise RowError(
                "bad_expression", f"{request.where}: the expression has no tokens in this model's vocabulary"
            )
        self._scope.check(request, ids, image.resolution_wh)
        n_visual = len(image.tiles) * self.checkpoint.tokens_per_tile
        prompt_tokens = self._engine.n_prompt_text + n_visual + len(ids)
        needed = prompt_tokens + self.settings.max_new_tokens
        if needed > self._max_positions:
            raise RowError(
                "prompt_too_long",
                f"{request.where}: the prompt and its answer need {needed} positions ({len(ids)} of expression, "
                f"{n_visual} for the image), but this model has {self._max_positions}: use a smaller --max-tiles or "
                "--max-new-tokens",
            )
        return Task(index, request, image, ids, self._prefix_key(image), n_visual, prompt_tokens)

    def _prefix_key(self, image: LoadedImage) -> Hashable:
        """Return the same key for rows that share a prefix: rows about one image, or no rows."""
        return next(self._tasks_made) if self.settings.share == "off" else image.id
