"""Lengths in words, and the scale bar that figures draw."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hypervlad.pages.base import write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FONT_POINTS = 8.0
_MAX_BAR_SHARE = 0.25  # of the image's width
_UNITS = (("mm", 1e6), ("µm", 1e3), ("nm", 1.0), ("pm", 1e-3))


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


def draw_scale_bar(ax: Axes, right: float, bottom: float, width: float, nm: float) -> None:
    """Draw a scale bar into the lower right corner of an image that is `width` inches wide.

    The width of the specimen is `nm`, in nanometres.
    """
    from matplotlib.patches import Rectangle

    length = round_length(_MAX_BAR_SHARE * nm)
    text = length_text(length)
    bar = width * length / nm
    box = max(bar, 0.075 * len(text)) + 0.14
    left, top = right - 0.06 - box, bottom - 0.31
    ax.add_patch(Rectangle((left, top), box, 0.25, color="black", alpha=0.6, lw=0, zorder=4))
    style: dict[str, Any] = {"color": "white", "lw": 0, "zorder": 5}
    middle = left + box / 2
    ax.add_patch(Rectangle((middle - bar / 2, top + 0.19), bar, 0.03, **style))
    write(
        ax,
        middle,
        top + 0.095,
        text,
        color="white",
        fontsize=_FONT_POINTS,
        ha="center",
        va="center",
        zorder=5,
    )
