"""What is read beside a scale bar: the length in a text, and the text that belongs to the bar."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from support.absent import skip_without

from hypervlad.images import ScaleBar, find_scale_bar
from hypervlad.images.scale_labels import length_in, new_label_reader


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("20 nm", "20 nm"),
        ("20nm", "20 nm"),
        ("-10.0μm", "10.0 um"),  # a Greek letter
        ("0,5 µm", "0.5 um"),  # the micro sign
        ("100µm1", "100 um"),
        ("2 pm", "2 um"),
        ("1 mm", "1 mm"),
        ("5 Å", "5 A"),
        ("WD 9.1 mm", ""),
        ("10 m", ""),
        ("20 kV", ""),
        ("20 nmol", ""),
        ("x20 n", ""),
        ("a5 nm", ""),
        ("0 nm", ""),
        ("", ""),
    ],
)
def test_the_length_in_a_text(text: str, length: str) -> None:
    assert length_in(text) == length


def test_the_nearest_length_is_that_of_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Engine:
        def __init__(self, params: Any) -> None: ...

        def __call__(self, pixels: np.ndarray) -> SimpleNamespace:
            seen.append(pixels.shape)
            # In the part that begins at row 180 and column 40.
            places = {"5 mm": (20, 10), "10 um": (95, 190), "(a)": (110, 160)}
            boxes = [[(x, y), (x + 40, y), (x + 40, y + 9), (x, y + 9)] for y, x in places.values()]
            return SimpleNamespace(txts=tuple(places), boxes=np.array(boxes))

    monkeypatch.setitem(sys.modules, "rapidocr", SimpleNamespace(RapidOCR=Engine))
    bar = ScaleBar(100.0, 0.3, (300, 200, 304, 300), "line")
    assert new_label_reader()(np.zeros((400, 600), np.float32), bar) == "10 um"
    assert seen == [(220, 420, 3)]


def test_an_empty_answer_is_no_length(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = SimpleNamespace(txts=None, boxes=None)
    engine = SimpleNamespace(RapidOCR=lambda params: lambda pixels: nothing)
    monkeypatch.setitem(sys.modules, "rapidocr", engine)
    bar = ScaleBar(30.0, 0.3, (300, 200, 304, 230), "line")
    assert new_label_reader()(np.zeros((400, 600, 3), np.float32), bar) == ""


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(ImportError, match=r'needs rapidocr .*: pip install "hypervlad\[ocr\]"'):
        new_label_reader()


@pytest.mark.slow  # loads two networks
def test_a_printed_label_is_read(capfd: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("rapidocr") is None:
        skip_without("ocr", "rapidocr is not installed")
    image = Image.fromarray(np.random.default_rng(0).integers(60, 120, (300, 500), dtype=np.uint8))
    draw = ImageDraw.Draw(image)
    draw.rectangle([300, 250, 419, 254], 255)
    draw.text((360, 240), "20 nm", 255, anchor="ms", font_size=22)
    pixels = np.asarray(image)
    bar = find_scale_bar(pixels)
    assert bar is not None
    assert new_label_reader()((pixels / 255).astype(np.float32), bar) == "20 nm"
    assert capfd.readouterr() == ("", "")
