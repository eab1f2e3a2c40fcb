"""The scorer's codebook, learnt from hypercolumns as the scorer sees them."""

from __future__ import annotations

from typing import Any

import numpy as np

from hypervlad.backbones import TappedNetwork
from hypervlad.codebook import Codebook, HypercolumnPool
from hypervlad.defects.reading import Prepare, pictures
from hypervlad.defects.seeing import View
from hypervlad.encoder.inputs import Inputs
from hypervlad.encoder.learning import Learn, learn_from_pool, shares_to_try
from hypervlad.encoder.recipe import Recipe
from hypervlad.encoder.sampling import is_chosen, random_pixels
from hypervlad.encoder.weights import NetworkSource
from hypervlad.hypercolumns import hypercolumns_at


def learn_as_seen(tile_size: int, side: int, prepare: Prepare | None = None) -> Learn:
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

    def learn(
        images: list[Any],
        inputs: Inputs[Recipe],
        network: TappedNetwork,
        source: NetworkSource,
        seed: int,
    ) -> tuple[Codebook, int]:
        view = View(network, tile_size)
        n_each, shares = shares_to_try(inputs.recipe, len(images))
        for share in shares:
            pool, n_images = HypercolumnPool(inputs.recipe.n_samples), 0
            for image in pictures(inputs, images, "codebook", side, prepare):
                n_images += 1
                if is_chosen(image.digest, share):
                    seen = view.seen(image.pixels, image.name)
                    height, width = image.size
                    points = random_pixels(seed, image.digest, height * width, n_each)
                    rows, columns = np.divmod(points, width)
                    inside = (rows + seen.border) * seen.size[1] + columns + seen.border
                    blocks = hypercolumns_at(seen.maps, inside, seen.size)
                    pool.add(image.digest, [block.cpu().numpy() for block in blocks])
            if len(pool) >= inputs.recipe.n_codewords:
                break
        return learn_from_pool(pool, inputs, seed), n_images

    return learn
