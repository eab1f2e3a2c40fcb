"""Codewords refined on a stream of samples, in bounded memory."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from hypervlad.codebook.arrays import Codebook
from hypervlad.codebook.learning import check_enough

# Rows that a step of minibatch K-means waits for: scikit-learn's own default. An image of the usual
# 5,000 pixels is a step by itself.
_FEWEST_ROWS_A_STEP = 1024


class StreamedCodewords:
    """Minibatch K-means over a stream of samples: every sample takes part, few are held.

    Each image is one step of scikit-learn's :class:`~sklearn.cluster.MiniBatchKMeans`; images of
    few samples wait until there are enough of them. The result depends on the order of images, so
    give them in one that has nothing to do with where they came from, such as that of their
    digests.

    Parameters
    ----------
    start : Codebook
        Projections, which stay, and codewords to start from.
    random_state : int

    References
    ----------
    D. Sculley, "Web-scale k-means clustering", WWW 2010.
    """

    def __init__(self, start: Codebook, random_state: int) -> None:
        self._start = start
        self._waiting: list[list[np.ndarray]] = []
        self._n_waiting = 0
        self._learners = [
            MiniBatchKMeans(len(words), init=words, n_init=1, random_state=random_state)
            for words in start.codewords
        ]
        self.n_samples = 0

    def add(self, digest: str, blocks: list[np.ndarray]) -> None:
        """Take one image's sample: a block (n, C_l) a layer."""
        self._waiting.append(blocks)
        self._n_waiting += len(blocks[0])
        if self._n_waiting >= max(_FEWEST_ROWS_A_STEP, len(self._start.codewords[0])):
            self._step()

    def _step(self) -> None:
        layers = [np.concatenate(blocks) for blocks in zip(*self._waiting, strict=True)]
        self.n_samples += self._n_waiting
        self._waiting, self._n_waiting = [], 0
        spaces = self._start.project(layers)
        for learner, space in zip(self._learners, spaces, strict=True):
            learner.partial_fit(space)

    def codebook(self) -> Codebook:
        """Return what has been learnt.

        Raises
        ------
        ValueError
            If there were fewer samples than codewords.
        """
        check_enough(self.n_samples + self._n_waiting, len(self._start.codewords[0]))
        if self._waiting:
            self._step()
        codewords = [
            np.ascontiguousarray(learner.cluster_centers_, np.float32) for learner in self._learners
        ]
        return self._start.with_codewords(codewords)
