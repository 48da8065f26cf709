"""``--image-timeout``: a setting that only changes speed."""

from __future__ import annotations

import inspect
import math

import pytest

from deeplayer_cli.commands.ground import ground
from deeplayer_cli.errors import DeeplayerError
from deeplayer_cli.runtime.settings import Settings


@pytest.mark.parametrize("seconds", [0, -0.0, -1, math.nan, math.inf, -math.inf, 1e80])
def test_impossible_timeouts_are_refused(seconds):
    with pytest.raises(DeeplayerError, match=r"--image-timeout must be above 0 and at most \d+ seconds; it was"):
        Settings(image_timeout=seconds)


def test_answers_do_not_depend_on_it():
    assert Settings(image_timeout=1e-3).deciding() == Settings(image_timeout=1e6).deciding() == Settings().deciding()


def test_the_command_and_python_have_the_same_default():
    assert inspect.signature(ground).parameters["image_timeout"].default == Settings().image_timeout
