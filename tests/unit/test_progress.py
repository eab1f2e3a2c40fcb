"""Programs without a terminal: pythonw, services, some notebooks."""

import io
import sys

import numpy as np
import pytest
from support.commands import app, folder, model

from hypervlad import HypercolumnVLAD, MicrographClassifier, PatchDefectScorer

__all__ = ["folder", "model"]


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.fixture(params=["none", "closed"])
def no_streams(request, monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None if request.param == "none" else closed())


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.usefixtures("no_streams")
def test_estimators_may_be_verbose_without_streams(tiny_encoder, texture_images):
    images, labels = (part[:9] for part in texture_images)
    tiny_encoder.set_params(verbose=True)
    fitted = MicrographClassifier(tiny_encoder, random_state=0, verbose=True).fit(images, labels)
    assert len(fitted.predict(images)) == len(images)
    windows = HypercolumnVLAD("tiny", weights="random", taps=["1"], image_size=None, n_codewords=2)
    scorer = PatchDefectScorer(windows, patch=4, n_codewords=2, random_state=0, verbose=True)
    assert np.isfinite(scorer.fit(images[:4]).score_samples(images[:2])).all()


@pytest.mark.usefixtures("no_streams")
def test_commands_print_nothing_without_streams(model, folder, tmp_path):
    command = ["predict", str(model), str(folder), "-o", str(tmp_path / "t.csv")]
    for arguments in (command, ["info", str(model)]):
        with pytest.raises(SystemExit) as caught:
            app(arguments)
        assert caught.value.code in (0, None)
    assert (tmp_path / "t.csv").read_text("utf-8").count("\n") == 25
