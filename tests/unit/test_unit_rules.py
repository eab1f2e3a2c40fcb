"""The rules of unit tests are enforced, with a message that says what to do."""

import os
import subprocess
import sys

import pytest
from torchvision.models import get_model


def test_starting_a_process_fails():
    with pytest.raises(pytest.fail.Exception, match=r"test_starting.*must not.*tests/processes"):
        subprocess.run([sys.executable, "-c", "pass"], check=False)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forking_fails():
    with pytest.raises(pytest.fail.Exception, match="forks"):
        os.fork()


def test_building_a_torchvision_network_fails():
    with pytest.raises(pytest.fail.Exception, match=r"MobileNetV2.*large network.*tests/networks"):
        get_model("mobilenet_v2", weights=None)
