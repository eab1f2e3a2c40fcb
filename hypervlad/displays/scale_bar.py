"""A scale bar of a round length."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHARE = 0.25  # of the image's width, at most
_UNITS = (("mm", 1e6), ("µm", 1e3), ("nm", 1.0), ("pm", 1e-3))
_POINTS = 8.0


def round_length(most: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is no larger than `most`.

    Examples
    --------
    >>> round_length(340.0), round_length(0.07)
    (200.0, 0.05)
    """
    power = math.floor(math.log10(most))
    # Both ways round, so that 0.05 is not 0.05000000000000001.
    scale = 10.0 ** abs(power)
    lengths = [step * scale if power >= 0 else step / scale for step in (1, 2, 5)]
    return max([each for each in lengths if each <= most * (1 + 1e-12)], default=lengths[0])


def length_in_words(nm: float) -> str:
    """Write a length with three digits, in the unit that suits it.

    Examples
    --------
    >>> length_in_words(500.0), length_in_words(1237.0)
    ('500 nm', '1.24 µm')
    """
    name, size = next((unit for unit in _UNITS if nm >= unit[1]), _UNITS[-1])
    number = float(f"{nm / size:.3g}")
    return f"{number:g} {name}"


def draw_scale_bar(
    ax: Axes, right: float, bottom: float, width: float, nm: float, *, inches: float = 1.0
) -> None:
    """Draw a bar, with its length above, into the lower right corner of an image.

    Parameters
    ----------
    ax : matplotlib Axes
        Its y axis points down.
    right, bottom : float
        The image's corner.
    width : float
        Of the image, in the units of `ax`.
    nm : float
        What this width is in the specimen.
    inches : float
        Of one unit of `ax`, as it will be shown.
    """
    from matplotlib.patches import Rectangle

    length = round_length(_SHARE * nm)
    words = length_in_words(length)
    bar, inch = width * length / nm, 1 / inches
    box = max(bar, (0.075 * len(words)) * inch) + 0.14 * inch
    left, top = right - 0.06 * inch - box, bottom - 0.31 * inch
    ax.add_patch(Rectangle((left, top), box, 0.25 * inch, color="black", alpha=0.6, lw=0, zorder=4))
    middle = left + box / 2
    style: dict[str, Any] = {"color": "white", "lw": 0, "zorder": 5}
    ax.add_patch(Rectangle((middle - bar / 2, top + 0.19 * inch), bar, 0.03 * inch, **style))
    ax.text(
        middle,
        top + 0.095 * inch,
        words,
        color="white",
        fontsize=_POINTS,
        ha="center",
        va="center",
        zorder=5,
    )
