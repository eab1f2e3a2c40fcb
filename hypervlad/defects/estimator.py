"""``PatchDefectScorer``: what the user calls; how it is learnt and looked at is beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from hypervlad.backbones import get_backbone
from hypervlad.boosting import BoostedSoftmaxClassifier
from hypervlad.classifier.estimator import seeded
from hypervlad.defects import state
from hypervlad.defects.findings import Finding
from hypervlad.defects.labelled import LabelledWindows
from hypervlad.defects.lattice import Lattice
from hypervlad.defects.learning import Examples, ImageWindows, held_out
from hypervlad.defects.normal import NormalWindows
from hypervlad.defects.parameters import (
    check_groups,
    check_not_masks,
    check_scorer,
    check_threshold,
)
from hypervlad.defects.reading import Picture, inputs_of, picture, pictures
from hypervlad.defects.sampling import learn_as_seen
from hypervlad.defects.seeing import WindowVectors
from hypervlad.defects.thresholds import (
    Judged,
    image_score,
    threshold_at_patch_rate,
    threshold_at_rate,
    threshold_of_best_f1,
)
from hypervlad.defects.truth import Truth
from hypervlad.encoder import HypercolumnVLAD
from hypervlad.encoder.listing import ImageListEstimator
from hypervlad.encoder.parameters import check_read_options
from hypervlad.encoder.saving import SaveMixin
from hypervlad.images import check_image_list
from hypervlad.images.masks import mask_banner_rows
from hypervlad.metrics.patches import check_side
from hypervlad.modelfile import register_kind
from hypervlad.patches import ANOMALOUS, NORMAL

KIND = "patch_defect_scorer"
register_kind(KIND, "hypervlad.defects:PatchDefectScorer")

_STEPS_A_PATCH = 4  # that windows overlap by, if no stride is given


def _has_labels(scorer: PatchDefectScorer) -> bool:
    return isinstance(getattr(scorer, "model_", None), LabelledWindows)


class PatchDefectScorer(SaveMixin, ImageListEstimator):
    """Score every place of an image for defects, learnt from good images or from labelled ones.

    The network passes once over the whole image, at the image's own size. Windows of ``patch``
    pixels are laid over its maps, ``stride`` pixels apart, and each gets a score:

    - *learnt from good images alone*, how far its mean hypercolumn is from the nearest of
      ``n_words`` words of sound windows, in the space where these vary alike in all directions;
    - *learnt from labels*, the log-odds that it is not normal, by a boosted softmax on the
      window's vector: VLAD of its hypercolumns, and their mean.

    **A higher score is more defective everywhere**: the opposite of scikit-learn's outlier
    detectors. An image is called anomalous if, and only if, some place of it reaches
    ``threshold_``; its score, which is for ranking, is the mean of the highest two-hundredth of its
    windows' (the highest alone is a matter of chance, the more so the larger an image is).

    Parameters
    ----------
    encoder : HypercolumnVLAD, optional
        Network, taps, codebook and reading options; `default_patch_encoder` if not given. It must
        keep images at their own size (``image_size=None``).
    patch : int, default=29
        Side of a window in pixels: about as large as what a defect looks like.
    stride : int, optional
        Pixels from one window to the next; a quarter of ``patch`` if not given.
    threshold : {"fpr", "patch_fpr", "f1"}, default="fpr"
        How ``threshold_`` is chosen, always on images that the scores were not learnt from, group
        by group. "fpr", to tell images apart: so that about the share ``fpr`` of them has a sound
        window that reaches it, estimated by the median of the images' highest scores and the spread
        around it (as of Gumbel's distribution), so that a few bad images among the good hardly move
        it; from fewer than about 20 images it is a rough guess. "patch_fpr", to tell places apart:
        so that the share ``fpr`` of all sound windows reaches it; maps and areas come out fuller
        (0.01 is a good start), but many a good image has such a place. "f1": where windows are
        called defective with the best F1; needs masks or labels.
    fpr : float, default=0.05
        Share of good images, or of their windows, that may be called anomalous, between 0 and 1.
        Learnt from patches and ``y``, it is the share of good patches: for whole images, which hold
        many, `set_threshold`.
    n_words : int, default=128
        Words of sound windows, where there are no labels.
    min_fraction : float, default=0.1
        Share of a window's pixels that must be defective in a mask for the window to be so; windows
        with some, but fewer, are not learnt from.
    boosting : BoostedSoftmaxClassifier, optional
        The learner, where there are labels.
    tile_size : int, default=2048
        Side in pixels of the largest square that the network takes at once, besides its border.
        Larger images are cut into tiles that overlap by as much as the network sees, so that the
        map is the same.
    random_state : int, RandomState or None, default=None
    verbose : bool, default=False
        Show progress bars.

    Attributes
    ----------
    encoder_ : HypercolumnVLAD
    model_ : NormalWindows or LabelledWindows
        What gives windows their scores.
    threshold_ : float
        Places that reach it are called defective; see :meth:`set_threshold`.
    patch_, stride_ : int
    n_images_ : int
        Images learnt from.

    Examples
    --------
    >>> from hypervlad import PatchDefectScorer
    >>> from hypervlad.datasets import make_nanofibre_images
    >>> from hypervlad.defects import default_patch_encoder
    >>> good, _ = make_nanofibre_images(6, defective=0.0, size=96, random_state=0)
    >>> encoder = default_patch_encoder(weights="random")
    >>> scorer = PatchDefectScorer(encoder, random_state=0).fit(good)
    >>> scorer.score_map(good[0]).shape
    (96, 96)
    """

    _kind = KIND

    encoder_: HypercolumnVLAD
    model_: NormalWindows | LabelledWindows
    threshold_: float
    patch_: int
    stride_: int
    n_images_: int

    def __init__(
        self,
        encoder: HypercolumnVLAD | None = None,
        *,
        patch: int = 29,
        stride: int | None = None,
        threshold: Literal["fpr", "patch_fpr", "f1"] = "fpr",
        fpr: float = 0.05,
        n_words: int = 128,
        min_fraction: float = 0.1,
        boosting: BoostedSoftmaxClassifier | None = None,
        tile_size: int = 2048,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.encoder = encoder
        self.patch = patch
        self.stride = stride
        self.threshold = threshold
        self.fpr = fpr
        self.n_words = n_words
        self.min_fraction = min_fraction
        self.boosting = boosting
        self.tile_size = tile_size
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        images: Sequence[Any],
        y: Sequence[str] | None = None,
        *,
        masks: Sequence[Any] | None = None,
        groups: ArrayLike | None = None,
    ) -> PatchDefectScorer:
        """Learn what sound places look like, or, given labels, what defective ones do.

        Parameters
        ----------
        images : sequence of n images
            Paths and/or arrays (H, W) or (H, W, 3). Without ``y`` and ``masks`` all are taken for
            good; a few that are not do little harm.
        y : sequence of n str, optional
            ``images`` are then patches of ``patch`` x ``patch`` pixels, and these their classes:
            "normal", and "anomalous" or several kinds of defects.
        masks : sequence of n paths, arrays or None, optional
            Where the defects of each image are, as :func:`hypervlad.images.read_mask` takes it;
            None for a good image.
        groups : sequence of n group names, optional
            Images of one sample: the threshold is chosen on other samples than the scores.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Unusable parameters, lengths that differ, or nothing to learn: no defect in any mask, or
            nothing but defects.
        ImageReadError
            An image or mask that cannot be read, does not fit, or is smaller than a patch; named.
        """
        check_scorer(self)
        images = check_image_list(images)
        check_not_masks(y)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        own = default_patch_encoder() if self.encoder is None else self.encoder
        encoder = seeded(own, seed, self.verbose)
        rows = mask_banner_rows(check_read_options(encoder.read_options))
        truth = Truth.of(images, y, masks, self.min_fraction, rows)
        if self.threshold == "f1" and not truth.is_known:
            raise ValueError('threshold="f1" needs masks or labels; of good images take "fpr"')
        codes = check_groups(groups, len(images))
        patch, stride = self.patch, self.stride or max(1, self.patch // _STEPS_A_PATCH)
        encoder.fit_checked(images, learn_as_seen(self.tile_size, patch))
        windows, inputs = WindowVectors(encoder, self.tile_size), inputs_of(encoder)

        def read() -> Iterator[ImageWindows]:
            for image in pictures(inputs, images, "windows", patch):
                lattice = image.lattice(patch, stride)
                labels = truth.of_windows(image.position, image.shape, image.size, lattice)
                of = windows.vectors if truth.is_known else windows.means
                blocks = of(windows.view.seen(image.pixels, image.name), lattice)
                yield ImageWindows(image.position, image.digest, blocks, labels)

        examples = Examples.of(read(), len(images), seed)
        if truth.is_known:
            examples.check_both_kinds()
        truth.check_masks()
        learn = self._learner(encoder, truth, codes, seed)
        model = learn(examples)
        unseen = held_out(model, examples, read, learn, codes, seed)
        threshold = self._chosen(unseen)
        # All at the end: a fit that fails leaves the model as it was.
        self.encoder_, self.model_, self.threshold_ = encoder, model, check_threshold(threshold)
        self.patch_, self.stride_ = patch, stride
        self.n_images_ = len(examples.digests)
        self._windows = windows
        return self

    def set_threshold(self, threshold: float) -> PatchDefectScorer:
        """Call defective what scores as much, from now on; nothing is fitted again."""
        check_is_fitted(self)
        self.threshold_ = check_threshold(threshold)
        return self

    # --- maps of one image ---------------------------------------------------------------------

    def score_map(self, image: Any) -> NDArray[np.float32]:
        """Score every pixel of an image.

        Parameters
        ----------
        image : path or array

        Returns
        -------
        ndarray of float32, shape (H, W)
            In the image's own pixels. At a window's centre its score, bilinear between.

        Raises
        ------
        ImageReadError
            If it cannot be read, or is smaller than a patch.
        """
        check_is_fitted(self)
        return self._map(self._alone(image, self.patch_))

    def predict_map(self, image: Any) -> NDArray[np.bool_]:
        """Say of every pixel whether it is defective: its score reaches ``threshold_``."""
        return np.asarray(self.score_map(image) >= self.threshold_)

    def find(self, image: Any) -> Finding:
        """Return an image's map with its defective regions, at ``threshold_``.

        Parameters
        ----------
        image : path or array

        Returns
        -------
        Finding
        """
        check_is_fitted(self)
        return self._found(self._alone(image, self.patch_))

    @available_if(_has_labels)
    def probability_map(self, image: Any) -> NDArray[np.float32]:
        """Return the probability that the window around each pixel is defective.

        Only where the scores were learnt from labels. It is for images in which defects are as
        frequent as in those learnt from.
        """
        return np.asarray(expit(self.score_map(image)), dtype=np.float32)

    def score_patches(
        self, image: Any, patch: int | None = None
    ) -> tuple[NDArray[np.floating], NDArray[np.intp]]:
        """Score patches that lie side by side.

        Parameters
        ----------
        image : path or array
        patch : int, optional
            Side of a patch in pixels, at the encoder's ``pixel_size`` if it has one; that of the
            windows if not given.

        Returns
        -------
        scores : ndarray of shape (n_patches,)
        positions : ndarray of int, shape (n_patches, 2)
            Upper left corners in the image's own pixels, row by row. The last row and column end at
            the image's edge and may overlap those before.
        """
        check_is_fitted(self)
        side = self.patch_ if patch is None else check_side("patch", patch)
        own = self._alone(image, side)
        lattice = own.lattice(side, side)
        scale = np.divide(own.shape, own.size)
        corners = np.round(lattice.positions * scale).astype(np.intp)
        return self._scores(own, lattice).ravel(), corners

    # --- many images ---------------------------------------------------------------------------

    def score_samples(self, images: Sequence[Any]) -> NDArray[np.float64]:
        """Return the score of each image: the mean of its windows' highest two-hundredth.

        Parameters
        ----------
        images : sequence of n images

        Returns
        -------
        ndarray of shape (n,)
            Higher is more defective. NaN for an image that was skipped.
        """
        check_is_fitted(self)
        images = check_image_list(images)
        scores = np.full(len(images), np.nan)
        for image in pictures(inputs_of(self.encoder_), images, "scoring", self.patch_):
            scores[image.position] = image_score(self._scores(image, self._lattice(image)))
        return scores

    def predict(self, images: Sequence[Any]) -> NDArray[np.object_]:
        """Call images "anomalous" where some place is; else "normal"; None for one skipped.

        Parameters
        ----------
        images : sequence of n images

        Returns
        -------
        ndarray of str, shape (n,)
        """
        check_is_fitted(self)
        images = check_image_list(images)
        called = np.full(len(images), None, dtype=object)
        for image in pictures(inputs_of(self.encoder_), images, "scoring", self.patch_):
            is_defective = (self._map(image) >= self.threshold_).any()
            called[image.position] = ANOMALOUS if is_defective else NORMAL
        return called

    # --- files ---------------------------------------------------------------------------------

    def to_state(
        self, *, include_backbone: bool = False
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the fitted scorer as a JSON-able header and named arrays."""
        check_is_fitted(self)
        return state.pack(self, include_backbone)

    @classmethod
    def from_state(
        cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> PatchDefectScorer:
        """Undo :meth:`to_state`."""
        return state.unpack(cls, header, arrays)

    # --- the stages ----------------------------------------------------------------------------

    def _learner(
        self, encoder: HypercolumnVLAD, truth: Truth, groups: NDArray[Any], seed: int
    ) -> Callable[[Examples], Any]:
        """Return what makes a model of examples."""

        def normal(examples: Examples) -> NormalWindows:
            return NormalWindows.fit(examples.X, self.n_words, seed)

        def labelled(examples: Examples) -> LabelledWindows:
            own = BoostedSoftmaxClassifier() if self.boosting is None else self.boosting
            learner = seeded(own, seed, self.verbose)
            learner.fit(
                examples.X,
                examples.labels,
                sample_weight=examples.weights,
                groups=groups[examples.images],
                blocks=list(encoder.feature_blocks.values()),
            )
            return LabelledWindows(learner)

        return labelled if truth.is_known else normal

    def _chosen(self, unseen: Iterable[Judged]) -> float:
        """Return the threshold by the rule that is asked for."""
        if self.threshold == "f1":
            return threshold_of_best_f1(unseen)
        rule = threshold_at_rate if self.threshold == "fpr" else threshold_at_patch_rate
        return rule(unseen, float(self.fpr))

    def _window_vectors(self) -> WindowVectors:
        windows: WindowVectors | None = getattr(self, "_windows", None)
        if windows is None or windows.view.tile_size != self.tile_size:
            windows = self._windows = WindowVectors(self.encoder_, self.tile_size)
        return windows

    def _lattice(self, image: Picture) -> Lattice:
        return image.lattice(self.patch_, self.stride_)

    def _found(self, image: Picture) -> Finding:
        lattice = self._lattice(image)
        scores = self._scores(image, lattice)
        found = lattice.as_map(scores, image.shape, image.size)
        return Finding.of(found, self.threshold_, image_score(scores))

    def _map(self, image: Picture) -> NDArray[np.float32]:
        lattice = self._lattice(image)
        return lattice.as_map(self._scores(image, lattice), image.shape, image.size)

    def _scores(self, image: Picture, lattice: Lattice) -> NDArray[np.floating]:
        """Return the scores (R, S) of an image's windows."""
        windows = self._window_vectors()
        seen = windows.view.seen(image.pixels, image.name)
        of = windows.vectors if isinstance(self.model_, LabelledWindows) else windows.means
        blocks = [self.model_.scores(block) for block in of(seen, lattice)]
        scores: NDArray[np.floating] = np.concatenate(blocks)
        return scores.reshape(len(lattice.rows), len(lattice.columns))

    def _alone(self, image: Any, side: int) -> Picture:
        (image,) = check_image_list([image])
        return picture(inputs_of(self.encoder_), image, side)

    def __getstate__(self) -> dict[str, Any]:
        attributes: dict[str, Any] = dict(super().__getstate__())
        attributes.pop("_windows", None)
        return attributes

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")


def default_patch_encoder(**parameters: Any) -> HypercolumnVLAD:
    """Return the encoder that `PatchDefectScorer` takes if none is given, with changes.

    Two taps from the middle of the network, as is usual for defects: earlier ones see grey values,
    later ones whole objects.

    Examples
    --------
    >>> default_patch_encoder().taps
    ('features.6', 'features.13')
    """
    backbone = parameters.get("backbone", "mobilenet_v2")
    usual = {
        "taps": get_backbone(backbone).taps[2:4],
        "image_size": None,
        "n_codewords": 16,
        "layer_components": 16,
        "pooled": True,
    }
    return HypercolumnVLAD(**usual | parameters)
