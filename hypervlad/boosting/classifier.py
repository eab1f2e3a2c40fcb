"""`BoostedSoftmaxClassifier`, the scikit-learn estimator over the linear start and the trees."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import joblib
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from hypervlad.boosting import state
from hypervlad.boosting.margins import FloatArray, IntArray, n_margins, prior_margins, probabilities
from hypervlad.boosting.report import in_words
from hypervlad.boosting.rows import TrainingRows, training_rows, warn_of_small_classes
from hypervlad.boosting.trees import Trees, fit_trees, tree_margins, xgboost_parameters
from hypervlad.boosting.validation import (
    check_float32,
    check_parameters,
    checked_views,
    checked_weight,
)
from hypervlad.boosting.views import fit_views
from hypervlad.splits import group_folds

_LARGEST_SEED = np.iinfo(np.int32).max


class BoostedSoftmaxClassifier(ClassifierMixin, BaseEstimator):
    """Softmax classifier: linear margins, and trees boosted from them as far as that helps.

    With few samples and many features, as VLAD vectors have, boosted trees alone lose to logistic
    regression. Here a regularised multinomial logistic regression gives each class its first
    margin, and gradient-boosted trees (xgboost) add to it only what a hold-out confirms, possibly
    nothing:

    1. Logistic regressions are fitted in stratified folds that keep groups whole, over a grid of
       `Cs`. The C with the lowest log loss on the folds' test rows wins, after one temperature
       has been fitted to the same margins. If X is made of several `views`, each has its own
       regression, and the mean of their margins one more temperature.
    2. These margins, each from a model that did not see the row's group, are where the trees
       start. Early stopping watches the log loss of a hold-out that keeps groups whole too.
    3. If the best round saves less log loss there than two standard errors (over groups), no tree
       is kept. Otherwise the trees are trained again on all rows, with as many rounds.

    The margin of a new row is that of a logistic regression on all rows plus that of the trees.

    Parameters
    ----------
    init : {"linear"} or None, default="linear"
        Where boosting starts. None: from the classes' log shares, that is, ordinary boosting; the
        rounds that early stopping finds best are then always kept, at least one.
    n_estimators : int, default=300
        Most rounds of boosting (each has one tree a class, one in all for two classes). 0: no
        trees.
    learning_rate : float, default=0.1
        Shrinkage of each tree, in (0, 1].
    max_depth : int, default=3
        Depth of each tree, at least 1.
    max_bin : int, default=64
        Most candidate thresholds of a feature, at least 2. On wide data the time goes with it.
    max_tree_features : int or None, default=1024
        Most columns that the trees look at: those most correlated with what the start leaves
        unexplained. None: all, which is slow on wide data.
    min_child_weight, reg_lambda : float, default=1.0
        xgboost's least sum of hessians in a leaf and its L2 penalty on leaf values; not negative.
    subsample, colsample_bytree : float, default=1.0
        Shares of rows and columns drawn for each tree, in (0, 1].
    validation_fraction : float, default=0.2
        Share of rows in the hold-out of early stopping, in (0, 1).
    n_iter_no_change : int or None, default=10
        Rounds without a lower log loss on the hold-out after which boosting stops. None: nothing
        is held out, and all `n_estimators` rounds are trained on all rows and kept, whether they
        help or not, with ``init="linear"`` too.
    Cs : float or sequence of float, default=(0.1, 1.0, 10.0, 100.0, 1000.0)
        Inverse strengths of the L2 penalty to try. The features are first centred and divided by
        one number, so that the mean squared length of a row is 1, whatever their number and
        units; columns are NOT standardised one by one.
    max_linear_directions : int or None, default=1024
        With more than twice as many rows and columns (of a view), the logistic regression sees so
        many principal directions of the rows only. An approximation: VLAD vectors, whose variance
        is concentrated, bear it; features with evenly spread variance lose accuracy. None: all,
        at a cost that grows with the cube of the rows.
    n_splits : int, default=5
        Folds of the cross-fitting; fewer if the rarest class has fewer groups.
    class_weight : None, "balanced" or dict, default=None
        Weight of each class: equal, inverse to its (weighted) frequency, or by label; classes
        that a dict leaves out weigh 1.
    n_jobs : int or None, default=None
        Threads of xgboost, as in scikit-learn: None is one (or what a joblib context says), -1 all
        cores. At most a few thousand rows gain little from more than one, and lose much on a busy
        machine. The linear part uses one.
    random_state : int, RandomState or None, default=None
        Seed of the folds, the hold-out and the trees.
    verbose : bool, default=False
        Show progress and print what was chosen, on stderr.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted; those whose samples all have weight zero are left out.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, if X had any.
    C_ : tuple of float or None
        Chosen strength for each view; None with ``init=None``.
    view_weights_ : tuple of float or None
        What the margins of each view's logistic regression were multiplied by. With one view it
        is one over the temperature: below 1, the margins were overconfident.
    linear_coef_ : ndarray of shape (n_features, n_margins) or None
        Linear margins of a row ``x`` are ``x @ linear_coef_ + linear_intercept_``, weights of views
        included; one margin for two classes, else one a class. None with ``init=None``.
    linear_intercept_ : ndarray of shape (n_margins,)
    n_estimators_ : int
        Rounds of boosting kept.
    tree_gain_, tree_gain_error_ : float or None
        Log loss per row that the best round saved on the hold-out, and its standard error; None
        if not tried.
    tree_columns_ : ndarray of int or None
        The columns that the trees look at, sorted; None if all of them, or no trees.
    booster_ : xgboost.Booster or None
        The trees; None if there are none.

    Notes
    -----
    *Copies.* Rows that are equal in features, label and group are one row with the sum of their
    weights, and without `groups` equal feature vectors form a group. So weights and repetitions
    give the same model, the order of rows does not matter, and a copy is never held out from its
    original. Features with few distinct values, where equal vectors are independent observations,
    are not what this classifier is made for. Only ratios of weights matter.

    *Small classes.* A class of one group is learnt from but never held out. A warning names
    classes of one or two groups.

    *Units.* VLAD and pooled CNN features share one scale. Where columns have different units, put a
    ``StandardScaler`` before this classifier.

    *Cost.* If columns outnumber rows, X is rotated into the space of its rows, which changes
    nothing for an L2 penalty, so the linear part costs little however wide X is; of many rows see
    `max_linear_directions`. The time of the trees grows with rows x columns x classes, hence
    `max_tree_features`.

    *Nearly honest margins.* The fold models have seen hold-out rows of early stopping. What that
    leaks into the margins of the other rows makes trees look worse, not better.

    References
    ----------
    J. H. Friedman, "Greedy function approximation: a gradient boosting machine", Annals of
        Statistics 29, 2001.
    T. Chen and C. Guestrin, "XGBoost: a scalable tree boosting system", KDD 2016.
    C. Guo et al., "On calibration of modern neural networks", ICML 2017 (temperature).
    D. H. Wolpert, "Stacked generalization", Neural Networks 5, 1992 (cross-fitting).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from hypervlad.boosting import BoostedSoftmaxClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = BoostedSoftmaxClassifier(random_state=0).fit(X[::2], y[::2])
    >>> model.score(X[1::2], y[1::2]) > 0.9
    True
    """

    classes_: NDArray[Any]
    n_features_in_: int
    C_: tuple[float, ...] | None
    view_weights_: tuple[float, ...] | None
    linear_coef_: FloatArray | None
    linear_intercept_: FloatArray
    tree_columns_: IntArray | None

    def __init__(
        self,
        *,
        init: Literal["linear"] | None = "linear",
        n_estimators: int = 300,
        learning_rate: float = 0.1,
        max_depth: int = 3,
        max_bin: int = 64,
        max_tree_features: int | None = 1024,
        min_child_weight: float = 1.0,
        reg_lambda: float = 1.0,
        subsample: float = 1.0,
        colsample_bytree: float = 1.0,
        validation_fraction: float = 0.2,
        n_iter_no_change: int | None = 10,
        Cs: float | Sequence[float] = (0.1, 1.0, 10.0, 100.0, 1000.0),
        max_linear_directions: int | None = 1024,
        n_splits: int = 5,
        class_weight: Literal["balanced"] | Mapping[Any, float] | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.init = init
        self.n_estimators = n_estimators
        self.learning_rate = learning_rate
        self.max_depth = max_depth
        self.max_bin = max_bin
        self.max_tree_features = max_tree_features
        self.min_child_weight = min_child_weight
        self.reg_lambda = reg_lambda
        self.subsample = subsample
        self.colsample_bytree = colsample_bytree
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.Cs = Cs
        self.max_linear_directions = max_linear_directions
        self.n_splits = n_splits
        self.class_weight = class_weight
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        groups: ArrayLike | None = None,
        views: Sequence[int] | None = None,
    ) -> BoostedSoftmaxClassifier:
        """Fit the linear margins, then as many rounds of trees as help.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite features.
        y : array-like of shape (n_samples,)
            Labels: strings, integers, booleans.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights, not negative. A weight of k is k copies of the row; 0 leaves it out.
        groups : array-like of shape (n_samples,), default=None
            Rows of one group (a specimen, a micrograph, a paper) are never on both sides of an
            inner split.
        views : sequence of int, default=None
            Numbers of columns of the parts that X is made of, side by side. Each part gets a
            logistic regression with a C and a temperature of its own, and their margins are
            averaged. None: X is one part. Trees look at the whole of X, so ``init=None`` makes
            nothing of it.

        Returns
        -------
        self : BoostedSoftmaxClassifier

        Raises
        ------
        ValueError
            For a parameter out of range, X, y, weights, groups or views that do not fit together,
            or only one class.
        """
        check_parameters(self)
        features, labels = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(labels)
        check_float32(features)
        widths = checked_views(views, features.shape[1])
        weight = checked_weight(sample_weight, features)
        self.classes_, rows = training_rows(features, labels, weight, groups, self.class_weight)
        warn_of_small_classes(rows, self.classes_)
        rng = check_random_state(self.random_state)
        fold_seed, holdout_seed, tree_seed = rng.randint(_LARGEST_SEED, size=3).tolist()
        margins = self._fit_start(rows, widths, fold_seed)
        self._fit_trees(rows, margins, holdout_seed, tree_seed)
        if self.verbose:
            print(in_words(self, len(rows)), file=sys.stderr)
        return self

    def decision_function(self, X: ArrayLike) -> FloatArray:
        """Margins: linear ones plus what the trees add.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        margins : ndarray of shape (n_samples,) or (n_samples, n_classes)
            For two classes, the log odds of ``classes_[1]``; else a score a class, whose softmax is
            `predict_proba`.
        """
        margins = self._margins(X)
        return margins[:, 0] if margins.shape[1] == 1 else margins

    def predict_proba(self, X: ArrayLike) -> FloatArray:
        """Probability of each class, in the order of ``classes_``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
        """
        return probabilities(self._margins(X))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The most probable class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        labels : ndarray of shape (n_samples,)
        """
        margins = self._margins(X)
        codes = margins.argmax(axis=1) if margins.shape[1] > 1 else (margins[:, 0] > 0).astype(int)
        return self.classes_[codes]

    def to_state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """The fitted model as plain data, for a file without pickle.

        Returns
        -------
        header : dict
            What JSON can hold: parameters, labels, chosen numbers. A `random_state` that is a
            generator becomes None.
        arrays : dict of str to ndarray
            ``intercept``, ``coef`` (with a linear start) and ``booster`` (if there are trees),
            the bytes of xgboost's own UBJSON format as uint8.

        Raises
        ------
        ValueError
            If the labels are not strings, numbers or booleans.
        """
        check_is_fitted(self)
        return state.pack(self)

    @classmethod
    def from_state(
        cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> BoostedSoftmaxClassifier:
        """The model that `to_state` took apart; it predicts bit by bit the same.

        Parameters
        ----------
        header : dict
        arrays : dict of str to ndarray

        Returns
        -------
        model : BoostedSoftmaxClassifier

        Raises
        ------
        ValueError
            If something is missing or does not fit together.
        """
        return state.unpack(cls, header, arrays)

    def _n_threads(self) -> int:
        """Threads that xgboost is told to use."""
        return joblib.effective_n_jobs(self.n_jobs)

    def _fit_start(self, rows: TrainingRows, widths: list[int], seed: int) -> FloatArray:
        """Learn the margins that boosting starts from; returns those of the training rows."""
        n_classes = len(self.classes_)
        if self.init is None:
            self.C_ = self.view_weights_ = self.linear_coef_ = None
            self.linear_intercept_ = prior_margins(rows.codes, rows.weight, n_classes)
            return np.tile(self.linear_intercept_, (len(rows), 1))
        folds = group_folds(rows.codes, rows.groups, n_splits=self.n_splits, random_state=seed)
        Cs = np.atleast_1d(self.Cs).tolist()
        linear = fit_views(
            rows,
            n_classes,
            folds,
            Cs,
            widths,
            max_directions=self.max_linear_directions,
            verbose=self.verbose,
        )
        self.C_, self.view_weights_ = linear.Cs, linear.weights
        self.linear_coef_, self.linear_intercept_ = linear.coef, linear.intercept
        return linear.cross_fitted

    def _fit_trees(
        self, rows: TrainingRows, margins: FloatArray, holdout_seed: int, tree_seed: int
    ) -> None:
        parameters = xgboost_parameters(
            len(self.classes_),
            nthread=self._n_threads(),
            seed=tree_seed,
            learning_rate=self.learning_rate,
            max_depth=self.max_depth,
            max_bin=self.max_bin,
            min_child_weight=self.min_child_weight,
            reg_lambda=self.reg_lambda,
            subsample=self.subsample,
            colsample_bytree=self.colsample_bytree,
        )
        trees: Trees = fit_trees(
            rows,
            margins,
            parameters,
            max_rounds=self.n_estimators,
            patience=self.n_iter_no_change,
            max_features=self.max_tree_features,
            validation_fraction=self.validation_fraction,
            seed=holdout_seed,
            may_be_none=self.init is not None,
        )
        self.booster_, self.n_estimators_ = trees.booster, trees.n_rounds
        self.tree_columns_ = trees.columns
        self.tree_gain_, self.tree_gain_error_ = trees.gain, trees.gain_error

    def _margins(self, X: ArrayLike) -> FloatArray:
        check_is_fitted(self)
        features = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        check_float32(features)
        margins = np.tile(self.linear_intercept_, (len(features), 1))
        if self.linear_coef_ is not None:
            margins += features.astype(np.float64, copy=False) @ self.linear_coef_
        if self.booster_ is not None:
            margins += self._tree_margins(features)
        return margins

    def _tree_margins(self, features: NDArray[np.floating]) -> FloatArray:
        """What the trees add, shape (n, n_margins): zero if there are none."""
        n_columns = n_margins(len(self.classes_))
        if self.booster_ is None:
            return np.zeros((len(features), n_columns))
        return tree_margins(self.booster_, features, n_columns, columns=self.tree_columns_)
