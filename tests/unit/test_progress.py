"""Programs without a terminal: pythonw, services, some notebooks."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest

from hypervlad import HypercolumnVLAD, MicrographClassifier, PatchDefectScorer
from hypervlad.apps.cli.messages import echo, say
from hypervlad.common.progress import ProgressBar, is_terminal, print_line


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.fixture(params=["none", "closed"])
def no_streams(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None if request.param == "none" else closed())


@pytest.mark.usefixtures("no_streams")
def test_nothing_is_printed_without_streams() -> None:
    print_line("text")
    assert list(ProgressBar(range(3), "numbers", 3, unit="number")) == [0, 1, 2]
    with ProgressBar(total=3, disable=False) as bar:
        bar.update(2)
        bar.set_postfix_str("loss")
    assert not is_terminal(sys.stderr)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.usefixtures("no_streams")
def test_estimators_may_be_verbose_without_streams(
    tiny_encoder: HypercolumnVLAD, texture_images: Any
) -> None:
    images, labels = texture_images
    tiny_encoder.set_params(verbose=True)
    model = MicrographClassifier(tiny_encoder, random_state=0, verbose=2).fit(images, labels)
    assert len(model.predict(images)) == len(images)
    windows = HypercolumnVLAD("tiny", weights="random", taps=["1"], image_size=None, n_codewords=2)
    scorer = PatchDefectScorer(windows, patch=4, n_codewords=2, random_state=0, verbose=True)
    assert np.isfinite(scorer.fit(images[:8]).score_samples(images[:2])).all()


@pytest.mark.parametrize("text", ["text", b"bytes"])
def test_commands_print_nothing_without_streams(
    text: str | bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    echo(text)
    echo(text, err=True)
    say(False, "text")


def test_lines_and_bars_are_printed_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    print_line("a line")
    list(ProgressBar(range(2), "numbers"))
    out, err = capsys.readouterr()
    assert not out
    assert "a line\n" in err
    assert "numbers" in err
