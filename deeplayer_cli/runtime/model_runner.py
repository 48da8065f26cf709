"""The model runner: runs the scheduler's batches, with smaller ones after running out of memory."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

from deeplayer_cli.device.attention_kernels import attention_kernel
from deeplayer_cli.device.failures import is_device_lost, is_out_of_memory
from deeplayer_cli.engine import Row
from deeplayer_cli.errors import DeeplayerError, RowError, first_line
from deeplayer_cli.runtime.postprocess import failed_prediction, to_prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from deeplayer_cli.engine import Engine
    from deeplayer_cli.runtime.box_score import NumberTokens
    from deeplayer_cli.runtime.prefix_cache import PrefixCache
    from deeplayer_cli.runtime.scheduler import Scheduler, SchedulerOutput, Task
    from deeplayer_cli.runtime.settings import Settings
    from deeplayer_cli.schema import Prediction, Request


class ModelRunner:
    """Runs tasks through an engine, batch by batch.

    Attributes:
        scheduler: makes the batches.
        n_tokens: number of tokens of all answers so far.
        seconds_saved: seconds that other engines have spent on prefixes that this one used.

    Args:
        engine: the model with its method.
        scheduler: see the attribute.
        prefixes: the prefix cache.
        decode: turns token ids into text.
        numbers: the tokens that the engine watches.
        settings: of the run.
    """

    def __init__(
        self,
        engine: Engine,
        scheduler: Scheduler,
        prefixes: PrefixCache,
        decode: Callable[[Sequence[int]], str],
        numbers: NumberTokens,
        settings: Settings,
    ) -> None:
        self._engine, self.scheduler, self._prefixes = engine, scheduler, prefixes
        self._decode, self._numbers, self._settings = decode, numbers, settings
        self.n_tokens, self.seconds_saved = 0, 0.0

    def answer(self, tasks: Sequence[Task]) -> Iterator[dict[int, Prediction]]:
        """Answer tasks; after every batch, yield its predictions by the index of their task.

        If memory runs out, this and every later batch is smaller; a task that does not fit alone fails.
        """
        while tasks:
            with self._prefixes.lock:
                output = self.scheduler.next_batch(tasks, self._prefixes.keys(self._engine))
                answered = self._attempt(output)
                if answered is None:
                    answered = self._retreat(output)
            yield answered
            tasks = [task for task in tasks if task.index not in answered]

    def _attempt(self, output: SchedulerOutput) -> dict[int, Prediction] | None:
        """Answer a batch; None if there is not enough memory."""
        try:
            with attention_kernel(self._settings.attention):
                return self._answer_batch(output)
        except Exception as error:
            if is_device_lost(error):
                raise DeeplayerError(
                    f"the device has failed ({first_line(error)}): the rows written so far are safe"
                ) from error
            if not is_out_of_memory(error):
                raise
        return None  # outside of the handler, where the error no longer keeps the failed batch's tensors

    def _answer_batch(self, output: SchedulerOutput) -> dict[int, Prediction]:
        cached = self._prefixes.get(self._engine, output.images)
        self.seconds_saved += cached.seconds_saved
        rows = [
            Row(cached.index[task.prefix_key], task.expression_ids, self._row_seed(task.request))
            for task in output.tasks
        ]
        answers = self._engine.answer(cached.prefix, rows, self._settings.max_new_tokens)
        predictions = {}
        for task, answer in zip(output.tasks, answers, strict=True):
            self.n_tokens += len(answer.token_ids)
            if answer.broken_layer is None:
                predictions[task.index] = to_prediction(
                    task, answer, self._decode, self._numbers, self._engine.method, self._settings
                )
            else:
                message = f"{task.request.where}: numbers overflow in layer {answer.broken_layer}: try another --dtype"
                error = RowError("not_finite", message)
                predictions[task.index] = failed_prediction(self._engine.method, task.request, error, task.image)
        return predictions

    def _retreat(self, output: SchedulerOutput) -> dict[int, Prediction]:
        """After a batch ran out of memory: free memory, make the next batch smaller, and return the failed rows."""
        self._prefixes.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        failure = self.scheduler.retreat(output.tasks)
        if failure is None:
            return {}
        return {
            task.index: failed_prediction(
                self._engine.method,
                task.request,
                RowError("out_of_memory", f"{task.request.where}: out of memory, {failure.reason}"),
                task.image,
            )
            for task in failure.tasks
        }

    def _row_seed(self, request: Request) -> int:
        """Return a seed that depends only on ``--seed`` and the row's id."""
        digest = hashlib.blake2b(f"{self._settings.seed}\0{request.id!r}".encode(), digest_size=4).digest()
        return int.from_bytes(digest, "little")
