"""The model that lmms-eval evaluates: its requests to rows, and boxes to the answers that its tasks read."""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lmms_eval.api.model import lmms

from deeplayer_cli.checkpoints import DEFAULT
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.runtime.grounder import Grounder
from deeplayer_cli.schema.values import show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from deeplayer_cli.schema import Prediction

logger = logging.getLogger("deeplayer")

_QUESTION = re.compile(r".*the region this sentence describes: *(?P<expression>.+)", re.DOTALL)
"""How lmms-eval's tasks ``refcoco*_bbox_rec`` ask for a box."""

_AT_ONCE = 512  # requests whose images are on the disk at the same time


class LmmsGrounder(lmms):  # type: ignore[misc]
    """Grounds the expressions of lmms-eval's ``refcoco*_bbox_rec`` tasks.

    An expression is asked with InternVL's own question. An answer is ``[x1, y1, x2, y2]`` in fractions of the image, as
    these tasks read it; without a box it is what the model wrote, and for a row in error it is empty. Both count as
    wrong.

    Args:
        pretrained: the model, as `Grounder.load` takes it.
        batch_size: the most prompts in one forward pass.
        max_batch_size: lmms-eval's bound of a batch size that it looks for itself; not used.
        device: as `Grounder.load` takes it; None for ``auto``.
        options: ``revision``, ``dtype``, and the fields of `Settings`, such as ``method`` and ``keep``.

    Raises:
        DeeplayerError: the model cannot be loaded, or an option is wrong.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str = DEFAULT,
        *,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        del max_batch_size
        if isinstance(batch_size, int) or batch_size.isdecimal():
            options["batch_size"] = int(batch_size)  # lmms-eval says "auto" where it would look for one
        if "prior" in options:
            options["prior"] = Path(options["prior"])
        self._grounder = Grounder.load(pretrained, device=device or "auto", **options)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answer requests.

        Args:
            requests: ``Instance`` objects of lmms-eval; their ``args`` are the question, generation options, a function
                from a document to its images, and the document's number, task and split.

        Returns:
            The answers, in the order of the requests.

        Raises:
            DeeplayerError: a request is no referring expression about one image.
        """
        answers = [""] * len(requests)
        for start in range(0, len(requests), _AT_ONCE):
            with TemporaryDirectory() as folder:
                rows = [
                    self._row(start + number, one, folder) for number, one in enumerate(requests[start:][:_AT_ONCE])
                ]
                rows.sort(key=lambda row: str(row["image"]))  # rows about one image share its prefix
                for prediction in self._grounder.ground(rows):
                    answers[int(prediction.id)] = _answer(prediction)
        return answers

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refuse: a box is asked for in one round."""
        raise DeeplayerError(f"deeplayer answers in one round, and {_task(requests)} has several")

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refuse: deeplayer writes boxes, and computes no likelihood of other texts."""
        raise DeeplayerError(f"deeplayer writes boxes, and {_task(requests)} asks for the likelihood of a text")

    def _row(self, number: int, request: Any, folder: str) -> dict[str, object]:
        question, _, doc_to_visual, document, task, split = request.args
        asked = _QUESTION.fullmatch(question)
        images = doc_to_visual(self.task_dict[task][split][document])
        if asked is None or len(images) != 1:
            raise DeeplayerError(
                f"task {task} asks {show(question)} about {len(images)} images: deeplayer grounds one referring "
                "expression about one image, as the tasks refcoco_bbox_rec_val, refcoco+_bbox_rec_val and so on ask for"
            )
        return {"id": number, "image": _saved(images[0], folder), "expression": asked["expression"]}


def _saved(image: Image.Image, folder: str) -> str:
    """Write an image without loss, once for all of its rows, and return the path."""
    image = image.convert("RGB")
    path = Path(folder, f"{hashlib.sha256(image.tobytes()).hexdigest()}-{image.width}.bmp")
    if not path.exists():
        image.save(path)
    return str(path)


def _answer(prediction: Prediction) -> str:
    if prediction.error is not None:
        logger.warning("request %s is in error and counts as wrong: %s", prediction.id, prediction.error["message"])
        return ""
    if prediction.box is None or not prediction.width or not prediction.height:
        return prediction.answer or ""
    sides = (prediction.width, prediction.height) * 2
    edges = ", ".join(f"{edge / side:.6f}" for edge, side in zip(prediction.box, sides, strict=True))
    return f"[{edges}]"


def _task(requests: Sequence[Any]) -> str:
    return f"task {requests[0].args[-2]}" if requests else "a task"
