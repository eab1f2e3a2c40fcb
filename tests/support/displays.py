"""What a display has drawn."""

import numpy as np


def texts(display):
    """Those of the tiles, or of the display itself, and of the legend."""
    legend, axes = display.ax_.get_legend(), [display.ax_, *display.ax_.child_axes]
    found = [text for ax in axes for text in ax.texts]
    return [text.get_text() for text in [*found, *(legend.get_texts() if legend else [])]]


def pictures(display):
    """The pixels of all pictures, those of the legend last."""
    axes = [display.ax_, *display.ax_.child_axes]
    return [np.asarray(image.get_array()) for ax in axes for image in ax.images]


def colours(display):
    """The colours of the legend, by their names."""
    legend = display.ax_.get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    found = [np.array(patch.get_facecolor()[:3]) for patch in legend.get_patches()]
    return dict(zip(names, found, strict=True))
