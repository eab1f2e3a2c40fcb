"""A codebook learnt by other processes of this machine: the same, and what becomes of failures."""

import os
import signal
import sys
import warnings

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from support.counting import count_passes

from hypervlad import ImageReadError
from hypervlad.images import SkippedImagesWarning

pytestmark = pytest.mark.full  # each starts processes that import torch


class Special:
    """An image that warns when it is read, or kills the process if that is not its maker's."""

    def __init__(self, pixels, does):
        self.pixels, self.does, self.maker = pixels, does, os.getpid()

    def __array__(self, dtype=None, copy=None):
        if self.does == "warns":
            warnings.warn("read with care", RuntimeWarning, stacklevel=2)
        elif os.getpid() != self.maker:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.pixels


@pytest.mark.parametrize("sampling", [400, "luo2021"])
def test_workers_learn_the_same_codebook(
    sampling, tiny_encoder, texture_images, tmp_path, monkeypatch, capfd
):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    images = [*texture_images[0], Special(texture_images[0][0].T, "warns")]
    tiny_encoder.set_params(sampling=sampling)
    with pytest.warns(RuntimeWarning):
        expected = clone(tiny_encoder).fit(images)
    passes = count_passes(monkeypatch)
    with joblib.parallel_config(n_jobs=2):
        with pytest.raises(ImageReadError, match=r"broken\.png"):
            clone(tiny_encoder).fit([broken, *images[:24]])
        found = clone(tiny_encoder).set_params(on_error="skip")
        with pytest.warns() as caught:
            found.fit([broken, *images])
    kinds = {warning.category for warning in caught}
    assert kinds == {SkippedImagesWarning, RuntimeWarning}
    assert "read with care" not in capfd.readouterr().err
    assert passes == [], "the network runs in the workers"
    assert found.n_images_ == 25
    for one, other in zip(found.codebook_.codewords, expected.codebook_.codewords, strict=True):
        assert one.shape == other.shape
    if sampling == "luo2021":  # of a pool, a list with one more has fewer pixels of each
        np.testing.assert_allclose(found.codebook_.joint, expected.codebook_.joint, atol=1e-5)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.filterwarnings("ignore:A worker stopped while some jobs were given")
def test_an_image_that_kills_its_workers_ends_the_call(tiny_encoder, texture_images):
    images = [*texture_images[0][:3], Special(texture_images[0][4], "kills")]
    with (
        joblib.parallel_config(n_jobs=2),
        pytest.warns(RuntimeWarning, match="a worker process was killed; unfinished tasks"),
        pytest.raises(RuntimeError, match=r"3 worker processes were killed during these.*task 0"),
    ):
        tiny_encoder.fit(images)
    assert np.isfinite(tiny_encoder.fit(images).transform(images[:3])).all()
