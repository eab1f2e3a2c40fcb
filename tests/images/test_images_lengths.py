"""Lengths in pixels or with a unit."""

from __future__ import annotations

import pytest

from hypervlad.images.metadata import length_in_pixels, parse_length


@pytest.mark.parametrize(
    ("text", "pixels"),
    [
        ("32", 32),
        (1.75, 1.75),
        (" 32 px ", 32),
        ("500nm", 125),
        ("0.5 µm", 125),
        (".5um", 125),
        ("5e-4 mm", 125),
    ],
)
def test_lengths_become_pixels(text: str | float, pixels: float) -> None:
    assert length_in_pixels(text, pixel_size=4.0) == pytest.approx(pixels)


@pytest.mark.parametrize("text", ["", "nm", "0", "-3", "nan", "inf", "3 apples", "1e999", "3 4"])
def test_what_is_no_length_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="is no length; give a number of pixels"):
        parse_length(text)


def test_a_unit_needs_a_pixel_size() -> None:
    assert length_in_pixels("20 pixels") == 20
    with pytest.raises(ValueError, match="500nm is so many pixels only where the pixel size is"):
        length_in_pixels("500nm")
