"""The rules of unit tests are enforced, with a message that says what to do."""

import os
import subprocess
import sys

import pytest
from torchvision.models import get_model


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("forbidden", "words"),
    [
        (lambda: subprocess.run([sys.executable, "-c", "pass"]), "test_what.*must not.*processes"),
        (lambda: os.fork(), "forks"),
        (lambda: get_model("mobilenet_v2", weights=None), "MobileNetV2.*large.*tests/networks"),
    ],
)
def test_what_a_unit_test_must_not_do_fails(forbidden, words):
    with pytest.raises(pytest.fail.Exception, match=words):
        forbidden()
