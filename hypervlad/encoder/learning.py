"""From images to a codebook: which images and pixels it is learnt from."""

from __future__ import annotations

from typing import Any

from hypervlad.backbones import TappedNetwork
from hypervlad.codebook import Codebook, HypercolumnPool, StreamedCodewords, learn_codebook
from hypervlad.encoder.inputs import Inputs
from hypervlad.encoder.sampling import Counted, is_chosen, sample_batch

MOST_SAMPLES_AN_IMAGE = 5000
# The network's last digits depend on what else is in a batch, and K-means magnifies them.
_ONE = 1
MOST_CODEBOOK_IMAGES = 1000  # 50 hypercolumns each fill the default pool; more only cost time


def learn_from_images(
    images: list[Any], inputs: Inputs, network: TappedNetwork, seed: int
) -> tuple[Codebook, int]:
    """Return the codebook of these images, and how many could be read."""
    recipe, streamed = inputs.recipe, inputs.recipe.kmeans == "minibatch"
    pool, counted = _filled_pool(images, inputs, network, seed)
    codebook = learn_codebook(
        pool.layers(),
        recipe.n_codewords,
        kind=recipe.codebook,
        layer_components=recipe.layer_components,
        scale_layers=recipe.scale_layers,
        start_only=streamed,
        random_state=seed,
        verbose=inputs.verbose,
    )
    if streamed:
        distinct = [images[position] for position in counted.by_digest()]
        codebook = _refined(codebook, distinct, inputs, network, seed)
    return codebook, counted.n


def _filled_pool(
    images: list[Any], inputs: Inputs, network: TappedNetwork, seed: int
) -> tuple[HypercolumnPool, Counted]:
    """Sample hypercolumns of at most about MOST_CODEBOOK_IMAGES; return what was read too."""
    recipe, n_used = inputs.recipe, min(len(images), MOST_CODEBOOK_IMAGES)
    n_each = min(MOST_SAMPLES_AN_IMAGE, -(-recipe.n_samples // n_used))
    # Chosen by digest, the order of images does not matter. If copies leave too few: all.
    shares = sorted({n_used / len(images), 1.0})
    for share in shares:
        counted = Counted(inputs.read(images, "codebook", warn=share == shares[0]))
        pool = HypercolumnPool(recipe.n_samples)
        chosen = (pair for pair in counted if is_chosen(pair[1].digest, share))
        for batch in inputs.batches(chosen, _ONE):
            sample_batch(batch, network, n_each, seed, pool)
        if len(pool) >= recipe.n_codewords:
            break
    return pool, counted


def _refined(
    start: Codebook, images: list[Any], inputs: Inputs, network: TappedNetwork, seed: int
) -> Codebook:
    """Refine codewords on a sample of every image, in the order given."""
    recipe = inputs.recipe
    n_each = MOST_SAMPLES_AN_IMAGE if isinstance(recipe.grid, str) else recipe.grid
    words = StreamedCodewords(start, seed)
    micrographs = inputs.read(images, "codewords", warn=False)
    for batch in inputs.batches(micrographs, _ONE):
        sample_batch(batch, network, n_each, seed, words)
    return words.codebook()
