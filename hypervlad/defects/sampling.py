"""The scorer's codebook, learnt from hypercolumns as the scorer sees them."""

from __future__ import annotations

from typing import Any

import numpy as np

from hypervlad.codebook import Codebook, HypercolumnPool
from hypervlad.defects.reading import Prepare, pictures
from hypervlad.defects.seeing import View
from hypervlad.encoder.codebook_fit import CodebookFit, FitCodebook, is_chosen
from hypervlad.encoder.encoding import random_pixels
from hypervlad.hypercolumns import hypercolumns_at


def learn_as_seen(tile_size: int, side: int, prepare: Prepare | None = None) -> FitCodebook:
    """Return what learns a codebook from images at their own size, with border and in tiles.

    Parameters
    ----------
    tile_size : int
        As in `View`.
    side : int
        Images smaller than that, in pixels, cannot be used.
    prepare : callable, optional
        As in `pictures`.
    """

    def learn(images: list[Any], fit: CodebookFit) -> tuple[Codebook, int]:
        view = View(fit.network, tile_size)
        n_each, shares = fit.sampling_plan(len(images))
        for share in shares:
            pool, n_images = HypercolumnPool(fit.params.n_samples), 0
            for image in pictures(fit.loader, images, "codebook", side, prepare):
                n_images += 1
                if is_chosen(image.digest, share):
                    seen = view.seen(image.pixels, image.name)
                    height, width = image.size
                    points = random_pixels(fit.seed, image.digest, height * width, n_each)
                    rows, columns = np.divmod(points, width)
                    inside = (rows + seen.border) * seen.size[1] + columns + seen.border
                    blocks = hypercolumns_at(seen.maps, inside, seen.size)
                    pool.add(image.digest, [block.cpu().numpy() for block in blocks])
            if len(pool) >= fit.params.n_codewords:
                break
        return fit.from_pool(pool), n_images

    return learn
