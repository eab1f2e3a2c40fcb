"""`BoostedSoftmaxClassifier`: the scikit-learn estimator of the linear part and the trees."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal

import joblib
import numpy as np
import xgboost
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from hypervlad.boosting.linear import fit_blocks
from hypervlad.boosting.rows import (
    FloatArray,
    IntArray,
    TrainingRows,
    n_margins,
    prior_margins,
    probabilities,
    training_rows,
    warn_of_small_classes,
)
from hypervlad.boosting.trees import fit_trees, tree_margins, xgboost_parameters
from hypervlad.splits import group_folds

_MAX_SEED = np.iinfo(np.int32).max
# Lowest values of the integer parameters.
_INTEGERS = {
    "n_estimators": 0,
    "max_depth": 1,
    "max_bin": 2,
    "max_linear_directions": 1,
    "max_tree_features": 1,
    "n_iter_no_change": 1,
    "n_splits": 2,
}
_MAY_BE_NONE = ("max_linear_directions", "max_tree_features", "n_iter_no_change")
_SHARES = ("learning_rate", "subsample", "colsample_bytree")
_NOT_NEGATIVE = ("min_child_weight", "reg_lambda")
_FITTED_NUMBERS = ("n_estimators_", "tree_gain_", "tree_gain_error_")
_FITTED_PER_BLOCK = ("C_", "block_weights_")
_LABEL_KINDS = "biufUO"


class BoostedSoftmaxClassifier(ClassifierMixin, BaseEstimator):
    """Softmax classifier: linear margins, plus boosted trees if a hold-out shows that they help.

    With few samples and many features, as VLAD vectors have, boosted trees alone are less accurate
    than logistic regression. Here a regularised multinomial logistic regression gives the margins
    that gradient-boosted trees (xgboost) start from, and trees are kept only if they reduce the log
    loss of a hold-out:

    1. Logistic regressions are fitted in stratified folds that keep groups whole, over a grid of
       `Cs`. The C with the lowest log loss on the folds' test rows is chosen, after a temperature
       has been fitted to the same margins. If X consists of several feature `blocks`, each has its
       own regression, and the mean of their margins has another temperature.
    2. The trees start from these cross-fitted margins: each row's margin comes from a model fitted
       without the row's group. Early stopping observes the log loss of a hold-out that keeps
       groups whole too.
    3. If the best round reduces the log loss by less than two standard errors (over groups), no
       tree is kept. Otherwise the trees are trained again on all rows, with the same number of
       rounds.

    The margin of a new row is that of a logistic regression on all rows plus that of the trees.

    Parameters
    ----------
    init : {"linear"} or None, default="linear"
        What boosting starts from. None: the log shares of the classes, as in ordinary boosting;
        the rounds that early stopping finds best are then always kept, at least one.
    n_estimators : int, default=300
        Maximum number of boosting rounds (one tree per class in each; one tree for two classes).
        0: no trees.
    learning_rate : float, default=0.1
        Shrinkage of each tree, in (0, 1].
    max_depth : int, default=3
        Depth of each tree, at least 1.
    max_bin : int, default=64
        Maximum number of candidate thresholds per feature, at least 2. On wide data the time grows
        with it.
    max_tree_features : int or None, default=1024
        Maximum number of columns for the trees: those most correlated with the residuals of the
        linear part. None: all, which is slow on wide data.
    min_child_weight, reg_lambda : float, default=1.0
        xgboost's minimum sum of hessians in a leaf and its L2 penalty on leaf values; not negative.
    subsample, colsample_bytree : float, default=1.0
        Shares of rows and columns sampled for each tree, in (0, 1].
    validation_fraction : float, default=0.2
        Share of rows in the hold-out of early stopping, in (0, 1).
    n_iter_no_change : int or None, default=10
        Boosting stops after so many rounds without a lower log loss on the hold-out. None: nothing
        is held out, and all `n_estimators` rounds are trained on all rows and kept, also with
        ``init="linear"``.
    Cs : float or sequence of float, default=(0.1, 1.0, 10.0, 100.0, 1000.0)
        Inverse strengths of the L2 penalty to try. The features are first centred and divided by
        one number, so that the mean squared length of a row is 1 for any number of features in any
        unit; columns are NOT standardised one by one.
    max_linear_directions : int or None, default=1024
        If a block has more than twice as many rows and columns, the logistic regression uses only
        so many principal directions of the rows. This approximation is good for VLAD vectors, whose
        variance is concentrated; features with evenly spread variance lose accuracy. None: all
        directions, at a cost that grows with the cube of the rows.
    n_splits : int, default=5
        Number of folds of the cross-fitting; fewer if the rarest class has fewer groups.
    class_weight : None, "balanced" or dict, default=None
        Weight of each class: equal, inverse to its (weighted) frequency, or by label; classes
        missing in a dict have weight 1.
    n_jobs : int or None, default=None
        Threads of xgboost, as in scikit-learn: None is one (or the number of a joblib context), -1
        all cores. A few thousand rows gain little from more than one thread, and lose much on a
        busy machine. The linear part uses one.
    random_state : int, RandomState or None, default=None
        Seed of the folds, the hold-out and the trees.
    verbose : bool, default=False
        Show progress and print a summary of the fit on stderr.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels, without those whose samples all have weight zero.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, if X had any.
    C_ : tuple of float or None
        Chosen inverse penalty of each block; None with ``init=None``.
    block_weights_ : tuple of float or None
        Factor of the margins of each block's logistic regression. With one block it is one over
        the temperature: below 1, the margins were overconfident.
    linear_coef_ : ndarray of shape (n_features, n_margins) or None
        The linear margins of a row ``x`` are ``x @ linear_coef_ + linear_intercept_``, including
        the weights of the blocks; one margin for two classes, else one per class. None with
        ``init=None``.
    linear_intercept_ : ndarray of shape (n_margins,)
    n_estimators_ : int
        Number of boosting rounds kept.
    tree_gain_, tree_gain_error_ : float or None
        Reduction of the log loss per row by the best round on the hold-out, and its standard error;
        None if trees were not tried.
    tree_columns_ : ndarray of int or None
        Sorted columns that the trees use; None if all of them, or no trees.
    booster_ : xgboost.Booster or None
        The trees; None if there are none.

    Notes
    -----
    *Copies.* Rows that are equal in features, label and group are one row with the sum of their
    weights, and without `groups` equal feature vectors form a group. So weights and repetitions
    give the same model, the order of rows does not matter, and a copy is never held out from its
    original. This classifier is not suited to features with few distinct values, where equal
    vectors are independent observations. Only ratios of weights matter.

    *Small classes.* A class of one group is used for training but never held out. A warning names
    classes of one or two groups.

    *Units.* VLAD and pooled CNN features have one scale. If columns have different units, put a
    ``StandardScaler`` before this classifier.

    *Cost.* If columns outnumber rows, X is rotated into the space of its rows, which changes
    nothing for an L2 penalty, so the linear part costs little even if X is wide; for many rows see
    `max_linear_directions`. The time of the trees grows with rows x columns x classes, hence
    `max_tree_features`.

    *Leakage.* The fold models were fitted on some hold-out rows of early stopping. This leak into
    the margins of the other rows makes trees look worse, not better.

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
    block_weights_: tuple[float, ...] | None
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
        blocks: Sequence[int] | None = None,
    ) -> BoostedSoftmaxClassifier:
        """Fit the linear margins, then as many rounds of trees as help.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite features.
        y : array-like of shape (n_samples,)
            Labels: strings, integers, booleans.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights, not negative. A weight of k equals k copies of the row; 0 leaves it out.
        groups : array-like of shape (n_samples,), default=None
            Rows of one group (a specimen, a micrograph, a paper) never straddle an inner split.
        blocks : sequence of int, default=None
            Numbers of columns of the feature blocks that X consists of, side by side. Each block
            has a logistic regression with its own C and temperature, and their margins are
            averaged. None: X is one block. Trees use all columns of X, so `blocks` has no effect
            with ``init=None``.

        Returns
        -------
        self : BoostedSoftmaxClassifier

        Raises
        ------
        ValueError
            For a parameter out of range, for X, y, weights, groups or blocks that do not fit
            together, or if there is only one class.
        """
        self.check_parameters()
        features, labels = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(labels)
        _check_float32(features)
        widths = _checked_blocks(blocks, features.shape[1])
        weight = _checked_weight(sample_weight, features)
        self.classes_, rows = training_rows(features, labels, weight, groups, self.class_weight)
        warn_of_small_classes(rows, self.classes_)
        rng = check_random_state(self.random_state)
        fold_seed, holdout_seed, tree_seed = rng.randint(_MAX_SEED, size=3).tolist()
        margins = self._fit_start(rows, widths, fold_seed)
        self._fit_trees(rows, margins, holdout_seed, tree_seed)
        if self.verbose:
            print(self._summary(len(rows)), file=sys.stderr)
        return self

    def decision_function(self, X: ArrayLike) -> FloatArray:
        """Return the margins: those of the linear part plus those of the trees.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        margins : ndarray of shape (n_samples,) or (n_samples, n_classes)
            For two classes, the log odds of ``classes_[1]``; else one score per class, whose
            softmax is `predict_proba`.
        """
        margins = self._margins(X)
        return margins[:, 0] if margins.shape[1] == 1 else margins

    def predict_proba(self, X: ArrayLike) -> FloatArray:
        """Return the probability of each class, in the order of ``classes_``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
        """
        return probabilities(self._margins(X))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable class.

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
        """Return the fitted model as plain data, for a file without pickle.

        Returns
        -------
        header : dict
            JSON-able: parameters, labels, chosen numbers. A `random_state` that is a generator
            becomes None.
        arrays : dict of str to ndarray
            ``intercept``, ``coef`` (with a linear part) and ``booster`` (if there are trees),
            the bytes of xgboost's own UBJSON format as uint8.

        Raises
        ------
        ValueError
            If the labels are not strings, numbers or booleans.
        """
        check_is_fitted(self)
        header: dict[str, Any] = {
            "parameters": _pack_parameters(self.get_params(deep=False)),
            "classes": pack_labels(self.classes_),
            "n_features_in": int(self.n_features_in_),
            "fitted": {name: _json_number(getattr(self, name)) for name in _FITTED_NUMBERS}
            | {name: getattr(self, name) for name in _FITTED_PER_BLOCK},
        }
        if hasattr(self, "feature_names_in_"):
            header["feature_names_in"] = [str(name) for name in self.feature_names_in_]
        arrays: dict[str, NDArray[Any]] = {"intercept": self.linear_intercept_}
        if self.linear_coef_ is not None:
            arrays["coef"] = self.linear_coef_
        if self.tree_columns_ is not None:
            arrays["tree_columns"] = self.tree_columns_.astype(np.int64)
        if self.booster_ is not None:
            raw = bytes(self.booster_.save_raw("ubj"))
            arrays["booster"] = np.frombuffer(raw, dtype=np.uint8)
            header["booster_sha256"] = hashlib.sha256(raw).hexdigest()
        return header, arrays

    @classmethod
    def from_state(
        cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> BoostedSoftmaxClassifier:
        """Return the model whose `to_state` gave header and arrays; predictions are identical.

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
        try:
            model = cls(**_unpack_parameters(header["parameters"]))
            model.classes_ = unpack_labels(header["classes"])
            model.n_features_in_ = int(header["n_features_in"])
            for name in _FITTED_NUMBERS:
                setattr(model, name, _number(header["fitted"][name]))
            for name in _FITTED_PER_BLOCK:
                values = header["fitted"][name]
                setattr(model, name, None if values is None else tuple(map(float, values)))
            if "feature_names_in" in header:
                model.feature_names_in_ = np.array(header["feature_names_in"], dtype=object)
            intercept = arrays["intercept"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                "The state is incomplete or not one of BoostedSoftmaxClassifier: "
                f"{error}. Use the header and arrays that to_state gave; if they come from a file, "
                "another version of hypervlad wrote it, or not hypervlad: train the model again."
            ) from error
        n_columns = n_margins(len(model.classes_))
        model.linear_intercept_ = _shaped("intercept", intercept, (n_columns,))
        model.linear_coef_ = None
        if "coef" in arrays:
            model.linear_coef_ = _shaped("coef", arrays["coef"], (model.n_features_in_, n_columns))
        model.tree_columns_ = None
        if "tree_columns" in arrays:
            model.tree_columns_ = _checked_columns(arrays["tree_columns"], model.n_features_in_)
        model.booster_ = None
        if "booster" in arrays:
            model.booster_ = model._unpack_booster(arrays["booster"], header.get("booster_sha256"))
        if bool(model.n_estimators_) != (model.booster_ is not None):
            raise ValueError(
                f"The state has {model.n_estimators_} rounds of trees but its arrays "
                f"{'lack' if model.booster_ is None else 'hold'} a 'booster'."
            )
        return model

    def check_parameters(self) -> None:
        """Raise a ValueError for the first parameter out of range, with the values allowed."""
        if self.init is not None and self.init != "linear":
            raise ValueError(f'init must be "linear" or None; got {self.init!r}.')
        for name, lowest in _INTEGERS.items():
            value = getattr(self, name)
            if name in _MAY_BE_NONE and value is None:
                continue
            if not isinstance(value, Integral) or isinstance(value, bool) or value < lowest:
                raise ValueError(
                    f"{name} must be a whole number, at least {lowest}; got {value!r}."
                )
        for name in _SHARES:
            _check_real(name, getattr(self, name), "in (0, 1]", lambda v: 0 < v <= 1)
        for name in _NOT_NEGATIVE:
            _check_real(name, getattr(self, name), "not negative", lambda v: v >= 0)
        _check_real(
            "validation_fraction", self.validation_fraction, "in (0, 1)", lambda v: 0 < v < 1
        )
        check_cs(self.Cs)
        check_class_weight(self.class_weight)

    def tree_margins(self, X: NDArray[np.floating]) -> FloatArray:
        """Return what the trees add to the margins, shape (n, n_margins); 0 if there are none."""
        check_is_fitted(self)
        n_columns = n_margins(len(self.classes_))
        if self.booster_ is None:
            return np.zeros((len(X), n_columns))
        return tree_margins(self.booster_, X, n_columns, columns=self.tree_columns_)

    def _n_threads(self) -> int:
        """Return the number of threads for xgboost."""
        return joblib.effective_n_jobs(self.n_jobs)

    def _fit_start(self, rows: TrainingRows, widths: list[int], seed: int) -> FloatArray:
        """Fit the margins that boosting starts from; return those of the training rows."""
        n_classes = len(self.classes_)
        if self.init is None:
            self.C_ = self.block_weights_ = self.linear_coef_ = None
            self.linear_intercept_ = prior_margins(rows.codes, rows.weight, n_classes)
            return np.tile(self.linear_intercept_, (len(rows), 1))
        folds = group_folds(rows.codes, rows.groups, n_splits=self.n_splits, random_state=seed)
        Cs = np.atleast_1d(self.Cs).tolist()
        linear = fit_blocks(
            rows,
            n_classes,
            folds,
            Cs,
            widths,
            max_directions=self.max_linear_directions,
            verbose=self.verbose,
        )
        self.C_, self.block_weights_ = linear.Cs, linear.weights
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
        trees = fit_trees(
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
        _check_float32(features)
        margins = np.tile(self.linear_intercept_, (len(features), 1))
        if self.linear_coef_ is not None:
            margins += features.astype(np.float64, copy=False) @ self.linear_coef_
        if self.booster_ is not None:
            margins += self.tree_margins(features)
        return margins

    def _unpack_booster(self, array: NDArray[Any], digest: str | None) -> xgboost.Booster:
        """Return the trees from their bytes; ValueError if damaged or of another width."""
        if array.dtype != np.uint8 or array.ndim != 1:
            raise ValueError(
                f"The booster's bytes are a row of uint8; got {array.dtype} {array.shape}."
            )
        raw = array.tobytes()
        # Checked before xgboost reads them: in version 2.1, truncated bytes abort the process.
        if hashlib.sha256(raw).hexdigest() != digest:
            raise ValueError(
                "The booster's bytes are damaged: they do not have the header's SHA-256."
            )
        parameters = {"verbosity": 0, "nthread": self._n_threads()}
        try:
            booster = xgboost.Booster(parameters, model_file=bytearray(raw))
            n_features = booster.num_features()
        except xgboost.core.XGBoostError as error:
            raise ValueError(
                "The booster's bytes are not a model that this xgboost reads."
            ) from error
        columns = self.tree_columns_
        expected = self.n_features_in_ if columns is None else len(columns)
        if n_features != expected:
            raise ValueError(
                f"The booster was trained on {n_features} features, "
                f"but the classifier gives it {expected}."
            )
        return booster

    def _summary(self, n_rows: int) -> str:
        """Return one line with the values chosen and the gain of trees on the hold-out."""
        parts = [f"fitted on {n_rows} distinct rows of {len(self.classes_)} classes"]
        if self.C_ is not None and self.block_weights_ is not None:
            strengths = ", ".join(f"{C:g}" for C in self.C_)
            weights = ", ".join(f"{weight:.2f}" for weight in self.block_weights_)
            parts.append(f"linear models: C {strengths}, weights {weights}")
        helped = "" if self.n_estimators_ else " (more would not have helped)"
        parts.append(f"{self.n_estimators_} rounds of trees{helped}")
        if self.tree_gain_ is not None:
            gain, error = self.tree_gain_, self.tree_gain_error_
            parts.append(f"reduction of the log loss by trees: {gain:+.4f} +- {error:.4f}")
        return "boosted softmax: " + "; ".join(parts)


def _check_real(name: str, value: Any, allowed: str, is_allowed: Any) -> None:
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not (number and np.isfinite(value) and is_allowed(value)):
        raise ValueError(f"{name} must be a number, {allowed}; got {value!r}.")


def check_cs(Cs: Any) -> None:
    """Raise unless it is a positive number or several."""
    values = np.atleast_1d(np.asarray(Cs))
    positive = values.dtype.kind in "iuf" and bool((values > 0).all() and np.isfinite(values).all())
    if values.ndim != 1 or not values.size or not positive:
        raise ValueError(f"Cs must be a positive number or several of them; got {Cs!r}.")


def check_class_weight(class_weight: Any) -> None:
    """Raise unless it is None, "balanced" or positive numbers by label."""
    if isinstance(class_weight, Mapping):
        for label, value in class_weight.items():
            _check_real(f"class_weight[{label!r}]", value, "positive", lambda v: v > 0)
    elif class_weight is not None and class_weight != "balanced":
        raise ValueError(f'class_weight must be None, "balanced" or a dict; got {class_weight!r}.')


def _checked_weight(sample_weight: ArrayLike | None, X: NDArray[Any]) -> FloatArray:
    """Return the weights of the rows of X, ones if None; ValueError if one is negative."""
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
    if (weight < 0).any():
        raise ValueError(f"sample_weight must not be negative; the smallest is {weight.min():g}.")
    return weight


def _checked_blocks(blocks: Sequence[int] | None, n_features: int) -> list[int]:
    """Return the numbers of columns of the blocks; ValueError unless they cover X."""
    widths = [n_features] if blocks is None else list(blocks)
    whole = all(isinstance(w, Integral) and not isinstance(w, bool) and w > 0 for w in widths)
    if not widths or not whole or sum(widths) != n_features:
        raise ValueError(
            "blocks are whole numbers of columns, each at least 1, that add up to the "
            f"{n_features} columns of X; got {blocks!r}."
        )
    return [int(width) for width in widths]


def _check_float32(X: NDArray[Any]) -> None:
    """Raise a ValueError for features that are infinite as float32, which xgboost uses."""
    if X.dtype != np.float32 and max(X.max(), -X.min()) > np.finfo(np.float32).max:
        raise ValueError("X has values beyond the range of float32 (about 3.4e38); rescale it.")


def _json_number(value: float | None) -> float | str | None:
    """Return a number for JSON, which has no infinity: the error of a gain from one group."""
    return value if value is None or np.isfinite(value) else str(value)


def _number(value: float | str | None) -> float | None:
    return float(value) if isinstance(value, str) else value


def _shaped(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float64]:
    if array.shape != shape or array.dtype != np.float64:
        raise ValueError(
            f"Array {name!r} of the classifier's state has shape {array.shape} and type "
            f"{array.dtype}; expected {shape} and float64."
        )
    return np.array(array)


def _checked_columns(columns: NDArray[Any], n_features: int) -> NDArray[np.intp]:
    fits = columns.dtype == np.int64 and columns.ndim == 1
    if not fits or ((columns < 0) | (columns >= n_features)).any():
        raise ValueError(
            "Array 'tree_columns' of the classifier's state must be a row of int64 column numbers "
            f"below {n_features}; got {columns.dtype} {columns.shape}."
        )
    return columns.astype(np.intp)


def pack_labels(labels: NDArray[Any]) -> dict[str, Any]:
    """Return labels as JSON-able values with their type."""
    if labels.dtype.kind not in _LABEL_KINDS:
        raise ValueError(
            f"Labels of type {labels.dtype} cannot be saved; "
            "use strings, integers, floats or booleans."
        )
    values = labels.tolist()
    if labels.dtype.kind == "O" and not all(isinstance(value, str) for value in values):
        raise ValueError("Labels of type object can be saved only if every one is a string.")
    return {"dtype": "object" if labels.dtype.kind == "O" else labels.dtype.str, "values": values}


def unpack_labels(packed: Mapping[str, Any]) -> NDArray[Any]:
    """Undo `pack_labels`."""
    dtype = np.dtype(packed["dtype"])
    if dtype.kind not in _LABEL_KINDS:
        raise ValueError(f"The state's labels have the unexpected type {packed['dtype']!r}.")
    labels = np.array(packed["values"], dtype=dtype)
    if labels.ndim != 1 or len(labels) < 2:
        raise ValueError(
            f"The state has {labels.size} class labels; a classifier has at least two."
        )
    return labels


def _pack_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    packed = {name: _plain(value) for name, value in parameters.items()}
    weights = parameters["class_weight"]
    if isinstance(weights, Mapping):
        # JSON turns keys into strings: pairs keep the type of the labels.
        packed["class_weight"] = [[_plain(key), _plain(value)] for key, value in weights.items()]
    if isinstance(parameters["random_state"], np.random.RandomState):
        packed["random_state"] = None  # the state of a generator cannot be restored
    return packed


def _unpack_parameters(packed: Mapping[str, Any]) -> dict[str, Any]:
    parameters = dict(packed)
    weights = parameters["class_weight"]
    if isinstance(weights, list):
        parameters["class_weight"] = dict(weights)
    if isinstance(parameters["Cs"], list):
        parameters["Cs"] = tuple(parameters["Cs"])
    return parameters


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    return value
