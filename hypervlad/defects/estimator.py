"""``PatchDefectScorer``: a model of cells or windows, trained on defect-free or labelled images."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress
from tempfile import TemporaryDirectory
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from hypervlad.classify.boosting.classifier import BoostedSoftmaxClassifier
from hypervlad.classify.training_images import OF_SIZE_ON_DEFECTS, ImageFormats
from hypervlad.common.base import ImageEstimator, PartParameter
from hypervlad.common.constraints import (
    BOOLEAN,
    SEEDED,
    Alternatives,
    InstanceOf,
    Integer,
    Number,
    OneOf,
    check_value,
)
from hypervlad.common.limits import MAX_INPUT_SIDE
from hypervlad.common.progress import announced, note_doubt
from hypervlad.common.stored import Part, Record, Value
from hypervlad.defects.cells import CellMaps, resized, sharpened, without_covered
from hypervlad.defects.findings import Finding, RegionRule
from hypervlad.defects.labelled import (
    DefectLabels,
    LabelledCells,
    LabelledWindows,
    fit_labelled_cells,
    fit_labelled_windows,
    window_stride,
)
from hypervlad.defects.limits import MIN_IMAGES, DetectionLimits, measure_limits
from hypervlad.defects.normal_images import NormalImages, NormalImagesFit, warn_of_shapes
from hypervlad.defects.thresholds import (
    HeldOutScores,
    WindowScores,
    labelled_image_score,
    models_without,
    threshold_at_rate,
    threshold_of_best_f1,
    warn_of_known_images,
)
from hypervlad.features.encoder import HypercolumnVLAD
from hypervlad.features.encoding import check_finite
from hypervlad.features.lazy_torch import usual_torch
from hypervlad.features.loading import warn_of_blank_training_images
from hypervlad.features.patches import ANOMALOUS, NORMAL, WindowGrid, patch_means
from hypervlad.features.windows import (
    TILE_SIDES,
    PreparedImage,
    Tiling,
    WindowReader,
    WindowVectors,
    check_window_encoder,
    fit_tiled_codebook,
    window_encoder,
)
from hypervlad.folders.copy_groups import keep_copies_together
from hypervlad.images.faults import ON_DEFECTS
from hypervlad.images.masks import mask_banner_rows
from hypervlad.images.options import check_read_options
from hypervlad.images.pixels import ImageDigests, are_copies
from hypervlad.images.reading import check_image_list, image_name
from hypervlad.images.sample import Annotations
from hypervlad.statistics.splits import check_groups

_PIXELS = Integer(at_most=2**16, meaning="a whole number of pixels")
# Of images whose sides are all so much shorter or longer than those of training: of woven textures,
# 4 of 6 of 1.12 times the size were called anomalous without a defect.
_OTHER_SIZE = 1.1
_MAX_HELD_OUT = 1000  # images; more would need memory without a better threshold


@dataclass(frozen=True, eq=False)
class _Fitted:
    """What `PatchDefectScorer.fit` learns."""

    model: NormalImages | LabelledCells | LabelledWindows
    held_out: HeldOutScores
    keys: Collection[str]  # digests of all images
    threshold: float
    rule: RegionRule
    limits: DetectionLimits


class PatchDefectScorer(ImageEstimator):
    """Score every position of an image for defects, trained on defect-free or labelled images.

    - *Trained on defect-free images alone*, it compares cells, about 8 pixels wide, with codewords
      of defect-free ones. Scores are relative to those of held-out images: 0 is usual.
    - *Trained on masks*, it classifies cells, by a linear model of their maps at several sizes of
      the image. A score is the log-odds that a cell is defective.
    - *Trained on labelled patches*, it classifies windows of ``patch`` pixels, a quarter of that
      apart. A score is the log-odds that a window is not normal.

    **A higher score is more defective**, unlike in scikit-learn's outlier detectors. An image whose
    score reaches ``threshold_`` is called anomalous. Its defects are the regions around the peaks
    of its map that stand out, by ``region_rule_``; with labels, all pixels from the
    score on that has the best F1 on held-out images. At least one is at the highest peak.

    Parameters
    ----------
    encoder : HypercolumnVLAD, optional
        `default_patch_encoder` if not given. It must have ``image_size=None``.
    patch : int, default=29
        Side in pixels of labelled patches, and of the squares that
        :func:`hypervlad.evaluation.evaluate_defects` counts; smaller images are refused.
    threshold : {"fpr", "f1"}, default="fpr"
        How ``threshold_`` is chosen on held-out groups. "fpr": on average, at most the share
        ``fpr`` of the defect-free images of new groups is called anomalous, each group counting
        alike; with fewer than 1 / fpr - 1 groups it is a rough guess, with a warning. "f1": the
        best F1 of cells or windows; needs labels.
    fpr : float, default=0.05
        See ``threshold``; between 0 and 1.
    n_planted : int, default=120
        Synthetic defects that are put on copies of held-out images, to measure ``limits_``; rounded
        up to as many of each of four kinds. Each takes as long as scoring an image; 0 for none.
        Only without labels.
    n_codewords : int, default=128
        Codewords of defect-free cells; not used with labels.
    aligned : bool, default=False
        Whether all images show the same part in the same position. Scores are then relative to the
        same position in the other images; only without labels.
    boosting : BoostedSoftmaxClassifier, optional
        The learner, if there are labels; of cells, only its linear part. With
        ``prior="training"`` if not given.
    annotations : {"leave_out", "keep"}, default="leave_out"
        Whether margins and what was drawn into images are left out, in ``fit`` and later:
        information bars, scale bars, letters and arrows
        (:func:`hypervlad.images.find_annotations`). No defect is found there.
    tile_size : int, default=2048
        Side in pixels of the tiles into which larger images are cut; of networks whose scores do
        not depend on it, 1536 at most. The scores of transformers depend on it. A loaded model has
        that of its ``fit``, but at most 2048.
    random_state : int, RandomState or None, default=None
        Seed of ``fit``.
    verbose : bool, default=False
        Show progress bars.

    Attributes
    ----------
    encoder_ : HypercolumnVLAD
    model_ : NormalImages, LabelledCells or LabelledWindows
        Scores cells or windows.
    threshold_ : float
        The lowest score that is called anomalous; see :meth:`set_threshold`.
    threshold_rule_ : {"fpr", "f1", "given"}
        How it was chosen.
    region_rule_ : RegionRule
        Which pixels are defective regions.
    limits_ : DetectionLimits
        Which synthetic defects were found on held-out images; without any from fewer than ten
        images or from a single group, or with labels.
    held_out_ : HeldOutScores
        Scores of defect-free training images by models trained without them.
    patch_, tile_size_ : int
    n_images_ : int
        Images trained on.
    training_ : ImageDigests
        Digests of their pixels: see ``Finding.in_training``.
    formats_ : ImageFormats
        Their types of pixels and sizes, and how large faults, such as noise, are in most of them;
        images that differ give a warning.

    Examples
    --------
    >>> from hypervlad import PatchDefectScorer
    >>> from hypervlad.data import make_fibre_images
    >>> from hypervlad.models import default_patch_encoder
    >>> good, _ = make_fibre_images(6, size=96, random_state=0)
    >>> encoder = default_patch_encoder(weights="random")
    >>> scorer = PatchDefectScorer(encoder, fpr=0.2, random_state=0).fit(good)
    >>> scorer.score_map(good[0]).shape
    (96, 96)
    """

    _kind = "patch_defect_scorer"
    _parameter_constraints: ClassVar[Mapping[str, Alternatives]] = {
        "encoder": [InstanceOf(HypercolumnVLAD, "a HypercolumnVLAD"), None],
        "patch": [_PIXELS],
        "threshold": [OneOf("fpr", "f1")],
        "fpr": [Number(above=0, below=1, meaning="a share of images")],
        "n_planted": [Integer(0, 100_000)],
        "n_codewords": [Integer()],
        "aligned": [BOOLEAN],
        "boosting": [InstanceOf(BoostedSoftmaxClassifier, "a BoostedSoftmaxClassifier"), None],
        "annotations": [OneOf("leave_out", "keep")],
        "tile_size": [TILE_SIDES],
        **SEEDED,
    }
    _part_parameters: ClassVar[Mapping[str, PartParameter]] = {
        "encoder": PartParameter("encoder_", window_encoder),
        "boosting": PartParameter("boosting_", BoostedSoftmaxClassifier),
    }

    encoder_: Annotated[HypercolumnVLAD, Part(HypercolumnVLAD)]
    model_: Annotated[
        NormalImages | LabelledCells | LabelledWindows,
        Part(NormalImages, LabelledCells, LabelledWindows),
    ]
    threshold_: Annotated[float, Value(float)]
    threshold_rule_: Annotated[str, Value(str, OneOf("fpr", "f1", "given"))]
    region_rule_: Annotated[RegionRule, Part(RegionRule)]
    limits_: Annotated[DetectionLimits, Part(DetectionLimits)]
    held_out_: Annotated[HeldOutScores, Part(HeldOutScores)]
    patch_: Annotated[int, Value(int, _PIXELS)]
    tile_size_: Annotated[int, Value(int, TILE_SIDES)]
    n_images_: Annotated[int, Value(int, Integer())]
    training_: Annotated[ImageDigests, Part(ImageDigests)]
    formats_: Annotated[ImageFormats, Record(ImageFormats)]

    def __init__(
        self,
        encoder: HypercolumnVLAD | None = None,
        *,
        patch: int = 29,
        threshold: Literal["fpr", "f1"] = "fpr",
        fpr: float = 0.05,
        n_planted: int = 120,
        n_codewords: int = 128,
        aligned: bool = False,
        boosting: BoostedSoftmaxClassifier | None = None,
        annotations: Annotations = "leave_out",
        tile_size: int = 2048,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.encoder = encoder
        self.patch = patch
        self.threshold = threshold
        self.fpr = fpr
        self.n_planted = n_planted
        self.n_codewords = n_codewords
        self.aligned = aligned
        self.boosting = boosting
        self.annotations = annotations
        self.tile_size = tile_size
        self.random_state = random_state
        self.verbose = verbose

    @usual_torch()
    def fit(
        self,
        images: Sequence[Any],
        y: Sequence[str] | None = None,
        *,
        masks: Sequence[Any] | None = None,
        groups: ArrayLike | None = None,
    ) -> PatchDefectScorer:
        """Learn what defect-free images look like, or, given labels, what defects do.

        A temporary folder, which the environment variable TMPDIR moves, needs about as much space
        as the images in single precision.

        Parameters
        ----------
        images : sequence of n images
            Paths and/or arrays (H, W) or (H, W, 3); defect-free without ``y`` and ``masks``.
        y : sequence of n str, optional
            Classes of images that are patches of ``patch`` x ``patch`` pixels: "normal", and
            "anomalous" or several kinds of defects.
        masks : sequence of n paths, arrays or None, optional
            Defects of each image, for :func:`hypervlad.images.read_mask`; None: defect-free.
        groups : sequence of n group names, optional
            Sample of each image, its own by default. The threshold is chosen on held-out samples.
            Samples of near copies are joined, with a warning.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Unusable parameters, lengths that differ, or nothing to learn from the masks.
        ImageReadError
            An image or mask that cannot be read or does not fit; named.
        """
        self.check_parameters()
        images = check_image_list(images)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        encoder = self._new_part("encoder", seed)
        rows = mask_banner_rows(check_read_options(encoder.read_options))
        labels = DefectLabels.check(len(images), y, masks, rows)
        if self.threshold == "f1" and not labels.is_known:
            raise ValueError(
                'threshold="f1" needs masks or labels; for defect-free images choose "fpr"'
            )
        group_codes = check_groups(groups, len(images))
        if labels.is_known and self.aligned:
            raise ValueError(
                "aligned=True compares places of defect-free images; it cannot be used with labels"
            )
        with TemporaryDirectory(prefix="hypervlad-") as folder, announced():
            tiling = Tiling(self.tile_size, folder)
            fit_codebook = partial(
                fit_tiled_codebook, tiling=tiling, min_side=self.patch, annotations=self.annotations
            )
            encoder.fit_checked(images, fit_codebook)
            group_codes, _ = keep_copies_together(
                images,
                group_codes,
                labels.of_whole_images(),
                options=encoder.fitted_params_.read_options,
                exact_only=self.aligned,
                verbose=self.verbose,
            )
            reader = WindowReader(encoder.loader(), self.patch, annotations=self.annotations)
            fitted: _Fitted
            if labels.is_known:
                fit = fit_labelled_windows if masks is None else fit_labelled_cells
                material = encoder, self._new_part("boosting", seed), images, labels, group_codes
                model, held_out, keys = fit(*material, reader=reader, tiling=tiling, seed=seed)
                summary = HeldOutScores.of(held_out, group_codes)
                outline = threshold_of_best_f1(held_out.values())
                threshold = outline if self.threshold == "f1" else self._threshold(summary)
                rule = RegionRule(outline, None)
                fitted = _Fitted(model, summary, keys, threshold, rule, DetectionLimits.none())
            else:
                fitted = self._fit_normal(encoder, reader, images, group_codes, seed, tiling)
        # All at the end: a fit that fails leaves the model as it was.
        self.encoder_, self.model_ = encoder, fitted.model
        self.threshold_ = _checked_threshold("threshold", fitted.threshold)
        self.threshold_rule_ = self.threshold
        self.region_rule_, self.limits_ = fitted.rule, fitted.limits
        self.held_out_ = fitted.held_out
        self.patch_, self.tile_size_ = int(self.patch), int(self.tile_size)
        self.n_images_, self.training_ = encoder.n_images_, ImageDigests.of(sorted(fitted.keys))
        self.formats_ = ImageFormats.of(list(reader.info.values()))
        return self

    def set_threshold(self, threshold: float, regions: float | None = None) -> PatchDefectScorer:
        """Set the lowest score of an anomalous image, and the lowest peak of a region, if given.

        That is of usual images: a striking defect raises all peaks of its image, and this one, too.
        Nothing is refitted; ``limits_`` stay those of the thresholds that ``fit`` chose.
        """
        check_is_fitted(self)
        chosen = _checked_threshold("threshold", threshold)
        if regions is not None:
            least = _checked_threshold("regions", regions)
            self.region_rule_ = replace(self.region_rule_, least=least)
        self.threshold_, self.threshold_rule_ = chosen, "given"
        return self

    # --- maps of one image ---------------------------------------------------------------------

    @usual_torch()
    def score_map(self, image: Any) -> NDArray[np.float32]:
        """Score every pixel (H, W) of an image."""
        check_is_fitted(self)
        prepared = self._read(image)
        scores, grid, _ = self._scores(prepared)
        return self._map(scores, grid, prepared.levels, prepared)

    def predict_map(self, image: Any) -> NDArray[np.bool_]:
        """Return which pixels (H, W) of an image are defective."""
        return self.find(image).mask

    @usual_torch()
    def find(self, image: Any) -> Finding:
        """Return an image's score map and its defective regions."""
        check_is_fitted(self)
        prepared = self._read(image)
        scores, grid, score = self._scores(prepared)
        (known,) = self.training_.contains([prepared.key]).tolist()
        levels = prepared.levels
        found = Finding.of(
            self._map(scores, grid, levels, prepared),
            self.threshold_,
            score,
            rule=self._rule(self.region_rule_, self.held_out_, score),
            cells=scores,
            pixels=resized(levels, prepared.shape),
            in_training=known,
            annotations=prepared.annotations,
        )
        found = replace(found, digest=prepared.info.digest)
        return self.limits_.sized(found, math.prod(prepared.size) / math.prod(prepared.shape))

    @available_if(
        lambda own: isinstance(getattr(own, "model_", None), LabelledCells | LabelledWindows)
    )
    def probability_map(self, image: Any) -> NDArray[np.float32]:
        """Return the probability (H, W) that the cell, or window, around each pixel is defective.

        Only for scorers trained on labels, if defects are as frequent as in the training images. It
        says little at the edge of a defect: cells of less than three tenths are in no class.
        """
        return np.asarray(expit(self.score_map(image)), dtype=np.float32)

    # --- many images ---------------------------------------------------------------------------

    @usual_torch()
    def score_samples(self, images: Sequence[Any]) -> NDArray[np.float64]:
        """Return the score (n,) of each image: higher is more defective; NaN for a skipped one."""
        check_is_fitted(self)
        images = check_image_list(images)
        scores = np.full(len(images), np.nan)
        with announced():
            for position, image in self._reader().stream(images, "scoring"):
                scores[position] = self._scores(image)[2]
        return scores

    def predict(self, images: Sequence[Any]) -> NDArray[np.object_]:
        """Return "anomalous" for images whose score reaches ``threshold_``, else "normal".

        None for an image that was skipped.
        """
        scores = self.score_samples(images)
        called = np.where(scores >= self.threshold_, ANOMALOUS, NORMAL).astype(object)
        called[np.isnan(scores)] = None
        return called

    @property
    def stride_(self) -> int:
        """Pixels from one window to the next, if patches were labelled."""
        return window_stride(self.patch_)

    @property
    def boosting_(self) -> BoostedSoftmaxClassifier:
        """The fitted learner; AttributeError if there were no labels."""
        if not isinstance(self.model_, LabelledCells | LabelledWindows):
            raise AttributeError("the scorer was trained without labels, so it has no learner")
        return self.model_.learner

    # --- the stages ----------------------------------------------------------------------------

    def check_parameters(self) -> None:
        super().check_parameters()
        if self.encoder is not None:
            check_window_encoder(self.encoder, "defects are looked for")

    def _check_state(self) -> None:
        self.tile_size = min(self.tile_size_, MAX_INPUT_SIDE)  # memory is the machine's
        width = self.encoder_.n_features_out_
        if not isinstance(self.model_, LabelledWindows):
            width = sum(len(layer.mean) for layer in self.encoder_.codebook_.projections)
        if self.model_.n_features != width:
            raise ValueError(
                f"the model takes {self.model_.n_features} features where the windows have {width}"
            )

    def _fit_normal(
        self,
        encoder: HypercolumnVLAD,
        reader: WindowReader,
        images: list[Any],
        groups: NDArray[Any],
        seed: int,
        tiling: Tiling,
    ) -> _Fitted:
        """Fit a model of defect-free images."""
        maps = CellMaps(encoder, tiling)

        def read(position: int) -> PreparedImage:
            return reader.read(images[position], image_name(images[position]))

        fit = NormalImagesFit(maps, len(images), self.n_codewords, self.aligned, seed)
        blank = []
        for position, image in reader.stream(images, "cells"):
            fit.add(position, image)
            if image.info.is_blank:
                blank.append(image.name)
        warn_of_blank_training_images(blank, len(fit.keys))
        if self.aligned:
            warn_of_shapes(list(fit.sizes.values()))
        keys = dict(sorted(fit.keys.items(), key=lambda item: (item[1], item[0])))
        parts = fit.parts(keys)
        of_image = models_without(keys, set(), groups, seed, fit.parts)
        are_held_out = bool(of_image)
        if not are_held_out:
            warn_of_known_images(len(keys), len(keys))
            of_image = dict.fromkeys(keys, parts)
        # In the order of digests, and each of several copies once: they are no further evidence.
        first = compress(keys, ~are_copies([*keys.values()]))
        chosen = [at for at in first if at in of_image][:_MAX_HELD_OUT]
        model, without, scores = fit.finish(parts, {at: of_image[at] for at in chosen})
        of_windows = {
            at: WindowScores(places.ravel(), np.zeros(places.size, dtype=bool), score)
            for at, (places, score) in scores.items()
        }
        held_out = HeldOutScores.of(of_windows, groups)
        threshold = self._threshold(held_out)
        usual = float(np.median(np.concatenate([each.ravel() for each, _ in scores.values()])))
        rule = RegionRule.of(list(scores.values()), usual)

        def find(position: int, image: PreparedImage) -> tuple[Finding, bool]:
            places, grid, score = without[position].scores(unstored, image)
            levels = image.levels
            shown = sharpened(places, grid, levels, image.size)
            own = self._rule(rule, held_out, score)
            found = Finding.of(shown, -math.inf, rule=own, cells=places, pixels=levels)
            return found, score >= threshold

        unstored, limits = CellMaps(encoder, Tiling(tiling.side)), DetectionLimits.none()
        if are_held_out and len(chosen) >= MIN_IMAGES and self.n_planted:
            limits = measure_limits(
                chosen,
                read,
                find,
                self.n_planted,
                seed,
                pixel_size=encoder.pixel_size,
                verbose=self.verbose,
            )
        return _Fitted(model, held_out, keys.values(), threshold, rule, limits)

    def _threshold(self, held_out: HeldOutScores) -> float:
        scores = held_out.scores.astype(np.float64)
        return threshold_at_rate(scores, held_out.groups, float(self.fpr))

    @staticmethod
    def _rule(rule: RegionRule, held_out: HeldOutScores, score: float) -> RegionRule:
        """Return the rule for an image with this score, beside the defect-free ones of the rule."""
        if rule.usual is None:
            return rule
        return replace(rule, least=NormalImages.raised(rule.least, score / held_out.scores.max()))

    def _scores(self, image: PreparedImage) -> tuple[NDArray[np.floating], WindowGrid, float]:
        """Return the scores (R, S) of cells or windows, their grid, and the score of the image."""
        if isinstance(self.model_, LabelledWindows):
            grid = WindowGrid.cover(image.size, self.patch_, self.stride_)
            vectors = WindowVectors(self.encoder_, Tiling.of(self))
            maps = vectors.network.padded_maps(image.tensor, image.name)
            scores = np.concatenate([*map(self.model_.scores, vectors.vectors(maps, grid))])
            check_finite(scores[None], [image.name])
            covered = patch_means(image.covered, grid.positions, grid.side) > 0
            scores = without_covered(scores, covered)
            return scores.reshape(grid.shape), grid, labelled_image_score(scores)
        places, grid, score = self.model_.scores(CellMaps(self.encoder_, Tiling.of(self)), image)
        check_finite(np.append(places, score)[None], [image.name])
        return places, grid, score

    def _map(
        self,
        scores: NDArray[np.floating],
        grid: WindowGrid,
        levels: NDArray[np.float32],
        image: PreparedImage,
    ) -> NDArray[np.float32]:
        """Return a map (H, W); ``levels`` (h, w) are of the image that was scored."""
        if isinstance(self.model_, LabelledWindows):
            found = grid.to_map(scores, image.shape, image.size)
        else:
            found = sharpened(scores, grid, levels, image.shape)
        return without_covered(found, image.hidden)

    def _read(self, image: Any) -> PreparedImage:
        (image,) = check_image_list([image])
        prepared, size = self._reader().read(image, image_name(image)), self.encoder_.pixel_size
        if size is not None and prepared.info.pixel_size is None:
            so = f"not resampled to {size:g} nm per pixel, as training images were"
            note_doubt(prepared.name, f"pixel size not known, so {so}")
        return prepared

    def _reader(self) -> WindowReader:
        doubts = partial(
            self.formats_.differences, params=self.encoder_.fitted_params_, effects=ON_DEFECTS
        )
        if isinstance(self.model_, NormalImages):
            doubts = partial(doubts, of_size=OF_SIZE_ON_DEFECTS, factor=_OTHER_SIZE)
        loader = self.encoder_.loader()
        return WindowReader(loader, self.patch_, annotations=self.annotations, doubts=doubts)


def _checked_threshold(name: str, value: float) -> float:
    largest = float(np.finfo(np.float32).max)
    check_value(name, value, [Number(at_least=-largest, at_most=largest)])
    return float(np.float32(value))


def default_patch_encoder(**parameters: Any) -> HypercolumnVLAD:
    """Return the default encoder of `PatchDefectScorer`, with the given parameters changed.

    Examples
    --------
    >>> default_patch_encoder().taps
    ('features.6', 'features.13')
    """
    return window_encoder(**parameters)
