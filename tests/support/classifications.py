"""Classifications of images that no model has seen, with chosen probabilities."""

import numpy as np

from hypervlad.features import EncodedImages, ImageInfo
from hypervlad.images import SkippedImage
from hypervlad.models import Classification, Judgement


def classification(proba, *, unlike=(), kinds=None, skipped=(), same=()):
    """Return a classification: some rows unlike training, or the same image; others skipped."""
    table = np.array(proba, dtype=np.float64)
    n_read, n_images = len(table), len(table) + len(skipped)
    gone = [position for position, _ in skipped]
    positions = np.array([k for k in range(n_images) if k not in gone], dtype=np.intp)
    bad = tuple(SkippedImage(k, str(file), f"{file}: damaged") for k, file in skipped)
    info = tuple(ImageInfo("same" if k in same else f"{k}", (8, 8), None) for k in range(n_read))
    novelty = np.where(np.isin(np.arange(n_read), unlike), 2.0, 0.5)
    nearest, points = np.zeros((n_read, 1), np.intp), np.zeros((n_read, 2), np.float32)
    judgement = None
    if kinds is not None:
        classes, reasons = np.arange(table.shape[1]), [f"is {kind}" for kind in kinds]
        kind, confidence = np.array(kinds), table.max(axis=1)
        judgement = Judgement(
            classes, table, kind, reasons, novelty, nearest, points, confidence, 0.9
        )
    return Classification(
        EncodedImages(np.empty((n_read, 0)), positions, info, bad, (), n_images, 0),
        table,
        novelty,
        nearest,
        np.zeros(n_read, bool),
        judgement,
        None,
    )
