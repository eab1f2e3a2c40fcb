"""Numbers and lengths in words, and scale bars."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from hypervlad.common.wording import interval_words, percent
from hypervlad.images.annotations import annotation_mask, find_annotations

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FONT_POINTS = 8.0
_MAX_BAR_SHARE = 0.25  # of the image's width
_BAR_SHARE = 0.2  # of the width of an image, at most, for the scale bar of pages
_UNITS = (("mm", 1e6), ("µm", 1e3), ("nm", 1.0), ("pm", 1e-3))


def decimal(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def significant(value: float) -> str:
    return f"{value:.4g}"


def thousands(n: int) -> str:
    return f"{n:,}"


def number_text(value: float) -> str:
    """Return a number with three digits at least; a dash for NaN."""
    if math.isnan(value):
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def interval_text(low: float, high: float) -> str:
    """Return an interval in words; an end that is NaN is not known."""
    if math.isnan(low):
        return "–" if math.isnan(high) else f"up to {number_text(high)}"
    if math.isnan(high):
        return f"from {number_text(low)}"
    return f"{number_text(low)} to {number_text(high)}"


def scale_bar(n_pixels: int, pixel_size: float | None) -> tuple[float, str] | None:
    """Return the length of a scale bar, in per cent of `n_pixels` and in words."""
    if pixel_size is None:
        return None
    width = pixel_size * n_pixels
    length = round_length(_BAR_SHARE * width)
    return round(100 * length / width, 3), length_text(length)


def share_of(count: int, total: int, interval: tuple[float, float] | None = None) -> str:
    """Format a count and its share of a total, with its interval if given: "3 of 40 (7.5 %)"."""
    share = percent(count / total if total else math.nan)
    return f"{count} of {total} ({share}{f', {interval_words(interval)}' if interval else ''})"


def round_length(limit: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is at most `limit`."""
    power = math.floor(math.log10(limit))
    # Divided rather than multiplied below 1, so that 0.05 is not 0.05000000000000001.
    scale = 10.0 ** abs(power)
    lengths = [step * scale if power >= 0 else step / scale for step in (1, 2, 5)]
    return max([each for each in lengths if each <= limit * (1 + 1e-12)], default=lengths[0])


def length_text(nm: float) -> str:
    """Format a length with three digits, in a suitable unit."""
    name, size = next((unit for unit in _UNITS if nm >= unit[1]), _UNITS[-1])
    number = float(f"{nm / size:.3g}")
    return f"{number:g} {name}"


def draw_scale_bar(ax: Axes, width: float, pixels: NDArray[Any], pixel_size: float) -> None:
    """Draw a scale bar into a corner of an image, `width` inches wide, where nothing is drawn yet.

    `pixel_size` is in nanometres. Of crowded images, it is the lower right corner.
    """
    from matplotlib.patches import Rectangle

    n_rows, n_columns = pixels.shape[:2]
    inches, nm = width / n_columns, n_columns * pixel_size
    length = round_length(_MAX_BAR_SHARE * nm)
    text = length_text(length)
    bar = width * length / nm
    box = max(bar, 0.075 * len(text)) + 0.14
    drawn = annotation_mask(find_annotations(pixels), (n_rows, n_columns))
    corners = itertools.product((n_rows * inches - 0.31, 0.06), (width - 0.06 - box, 0.06))
    places = [(left, top) for top, left in corners]

    def is_free(place: tuple[float, float]) -> bool:
        x, y = (max(0, int(each / inches)) for each in place)
        own = drawn[y : y + math.ceil(0.25 / inches), x : x + math.ceil(box / inches)]
        return not own.any()

    left, top = next(filter(is_free, places), places[0])
    ax.add_patch(Rectangle((left, top), box, 0.25, color="black", alpha=0.6, lw=0, zorder=4))
    style: dict[str, Any] = {"color": "white", "zorder": 5}
    middle = left + box / 2
    ax.add_patch(Rectangle((middle - bar / 2, top + 0.19), bar, 0.03, lw=0, **style))
    style |= {"fontsize": _FONT_POINTS, "ha": "center", "va": "center"}
    ax.text(middle, top + 0.095, text, **style)
