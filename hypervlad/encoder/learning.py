"""From images to a codebook: which images and pixels it is learnt from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypervlad.backbones import TappedNetwork
from hypervlad.codebook import Codebook, HypercolumnPool, StreamedCodewords, learn_codebook
from hypervlad.encoder.batches import Batch
from hypervlad.encoder.sampling import Counted, is_chosen, sample_batch
from hypervlad.images import Micrograph

if TYPE_CHECKING:
    from hypervlad.encoder.estimator import HypercolumnVLAD

MOST_SAMPLES_AN_IMAGE = 5000
MOST_CODEBOOK_IMAGES = 1000  # 50 hypercolumns each fill the default pool; more only cost time

Stream = Iterable[tuple[int, Micrograph]]


@dataclass(frozen=True)
class CodebookLearning:
    """What learning a codebook needs.

    Attributes
    ----------
    encoder : HypercolumnVLAD
        For its parameters.
    network : TappedNetwork
    seed : int
    read : callable
        ``read(images, what, warn)`` gives the micrographs of a list.
    batches : callable
        ``batches(micrographs, batch_size)`` gives them prepared; None is the encoder's own size.
    """

    encoder: HypercolumnVLAD
    network: TappedNetwork
    seed: int
    read: Callable[[list[Any], str, bool], Iterator[tuple[int, Micrograph]]]
    batches: Callable[[Stream, int | None], Iterator[Batch]]

    def learn(self, images: list[Any]) -> tuple[Codebook, int]:
        """Return the codebook of these images, and how many could be read."""
        encoder, streamed = self.encoder, self.encoder.kmeans == "minibatch"
        pool, counted = self._fill_pool(images)
        codebook = learn_codebook(
            pool.layers(),
            encoder.n_codewords,
            kind=encoder.codebook,
            layer_components=encoder.layer_components,
            scale_layers=encoder.scale_layers,
            start_only=streamed,
            random_state=self.seed,
            verbose=encoder.verbose,
        )
        if streamed:
            distinct = [images[position] for position in counted.by_digest()]
            codebook = self._stream(codebook, distinct)
        return codebook, counted.n

    def _fill_pool(self, images: list[Any]) -> tuple[HypercolumnPool, Counted]:
        """Sample hypercolumns of at most about MOST_CODEBOOK_IMAGES; return what was read too."""
        n_used = min(len(images), MOST_CODEBOOK_IMAGES)
        n_each = min(MOST_SAMPLES_AN_IMAGE, -(-self.encoder.n_samples // n_used))
        # Chosen by digest, the order of images does not matter. If copies leave too few: all.
        shares = sorted({n_used / len(images), 1.0})
        for share in shares:
            counted = Counted(self.read(images, "codebook", share == shares[0]))
            pool = HypercolumnPool(self.encoder.n_samples)
            chosen = (pair for pair in counted if is_chosen(pair[1].digest, share))
            for batch in self.batches(chosen, None):
                sample_batch(batch, self.network, n_each, self.seed, pool)
            if len(pool) >= self.encoder.n_codewords:
                break
        return pool, counted

    def _stream(self, start: Codebook, images: list[Any]) -> Codebook:
        """Refine codewords on a sample of every image, in the order given."""
        grid = self.encoder.grid
        n_each = MOST_SAMPLES_AN_IMAGE if isinstance(grid, str) else grid
        words = StreamedCodewords(start, self.seed)
        # Of images of several sizes, a larger batch would change the order.
        several_sizes = self.encoder.aspect == "own" or self.encoder.pixel_size is not None
        micrographs = self.read(images, "codewords", False)
        for batch in self.batches(micrographs, 1 if several_sizes else None):
            sample_batch(batch, self.network, n_each, self.seed, words)
        return words.codebook()
