"""`BoostedSoftmaxClassifier`: the scikit-learn estimator of the linear part and the trees."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import joblib
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from hypervlad.classify.boosting.linear import (
    FeatureBlocks,
    Folds,
    RowSpace,
    TrainingRows,
    blas_threads,
    block_columns,
    expected_shares,
    fit_blocks,
    prior_ratio,
    training_rows,
    warn_of_small_classes,
)
from hypervlad.classify.boosting.logistic import (
    FloatArray,
    decided_classes,
    margin_offset,
    n_margins,
    probabilities,
    with_exact_ties,
)
from hypervlad.classify.boosting.trees import Trees, fit_trees, xgboost_parameters
from hypervlad.common.base import Estimator
from hypervlad.common.constraints import (
    SEEDED,
    Alternatives,
    InstanceOf,
    Integer,
    ListOf,
    Number,
    OneOf,
    check_value,
    is_integer,
)
from hypervlad.common.limits import MAX_THREADS, MAX_TREE_COLUMNS, MAX_TREE_DEPTH
from hypervlad.common.stored import Array, Each, Labels, Maybe, Part, Value
from hypervlad.statistics.splits import (
    check_column,
    first_appearance_codes,
    group_folds,
    holdout_split,
)

_MAX_SEED = np.iinfo(np.int32).max
_MAX_TREE_FEATURES = 64  # wider X only through its margins
_MAX_FLOAT32 = np.finfo(np.float32).max
_NAMES = Each(Value(str), lambda names: np.array([*names], dtype=object))


class BoostedSoftmaxClassifier(ClassifierMixin, Estimator):
    """Softmax classifier: linear margins, plus boosted trees if held-out rows show that they help.

    Logistic regressions, one per feature block, are fitted in folds that keep groups whole, with
    the C of the lowest log loss on the test rows after temperature scaling [1]_. Their margins are
    averaged. Gradient-boosted trees [2]_ start from these cross-fitted margins. Their features are
    the margins of the blocks, and the columns of X if these are at most 64. Trees are kept if they
    reduce the log loss of the test rows by two standard errors.

    Parameters
    ----------
    init : {"linear"} or None, default="linear"
        None: boosting of the log shares of the classes on all columns of X, with one hold-out.
    n_estimators : int, default=300
        Maximum number of boosting rounds (one tree per class in each; one tree for two classes).
    learning_rate : float, default=0.1
        Shrinkage of each tree, in (0, 1].
    max_depth : int, default=3
        Depth of each tree, from 1 to 64.
    n_iter_no_change : int or None, default=10
        Boosting stops after this many rounds without a lower log loss of the held-out rows. None:
        nothing is held out from the trees, and all rounds are kept.
    Cs : float or sequence of float, default=(0.1, 1.0, 10.0, 100.0, 1000.0)
        Inverse strengths of the L2 penalty to try. X is centred and scaled by one number, so that
        the mean squared length of a row is 1; columns are NOT standardised.
    prior : {"training", "sqrt", "uniform"} or dict, default="training"
        The class shares expected in use: those of the weighted training samples, proportional to
        their square roots, equal, or by label [3]_.
    n_jobs : int or None, default=None
        Threads of xgboost, as in scikit-learn: None is 1, -1 is all.
    random_state : int, RandomState or None, default=None
        Seed of the folds and the hold-out.
    verbose : bool, default=False
        Show progress on stderr.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels, without those whose samples all have weight zero.
    n_features_in_, feature_names_in_
        As in scikit-learn.
    C_, block_weights_, block_widths_ : tuple or None
        Of each feature block, the inverse penalty, the factor of its margins and the number of its
        columns. None with ``init=None``.
    linear_coef_ : ndarray of shape (n_features, n_margins) or None
        The linear margins are ``X @ linear_coef_ + linear_intercept_``: one for two classes, else
        one per class. None with ``init=None``.
    linear_intercept_ : ndarray of shape (n_margins,)
    n_estimators_ : int
        Number of boosting rounds kept.
    tree_gain_, tree_gain_error_ : float or None
        Reduction of the log loss per held-out row, and its standard error; None if not tried.
    trees_ : Trees or None
        As arrays of their nodes; None if there are none.

    Notes
    -----
    If columns have different units, put a ``StandardScaler`` before this classifier. Of more than
    2,048 rows and columns, the regression uses the 1,024 principal directions only.

    References
    ----------
    .. [1] C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On calibration of modern neural
       networks", ICML 2017.
    .. [2] T. Chen and C. Guestrin, "XGBoost: a scalable tree boosting
       system", KDD 2016.
    .. [3] M. Saerens, P. Latinne and C. Decaestecker, "Adjusting the outputs of a classifier to new
       a priori probabilities: a simple procedure", Neural Computation 14, 2002.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from hypervlad.models import BoostedSoftmaxClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = BoostedSoftmaxClassifier(random_state=0).fit(X[::2], y[::2])
    >>> model.score(X[1::2], y[1::2]) > 0.9
    True
    """

    _kind = "boosted_softmax_classifier"
    _parameter_constraints: ClassVar[Mapping[str, Alternatives]] = {
        "init": [OneOf("linear"), None],
        "n_estimators": [Integer(0)],
        "learning_rate": [Number(above=0, at_most=1)],
        "max_depth": [Integer(1, MAX_TREE_DEPTH)],
        "n_iter_no_change": [Integer(1), None],
        "Cs": [Number(above=0), ListOf(Number(above=0), "a sequence of numbers")],
        "prior": [
            OneOf("sqrt", "training", "uniform"),
            InstanceOf(Mapping, "a dictionary of shares by label"),
        ],
        "n_jobs": [Integer(at_most=MAX_THREADS), Integer(at_least=None, at_most=-1), None],
        **SEEDED,
    }

    classes_: Annotated[NDArray[Any], Labels()]
    n_features_in_: Annotated[int, Value(int, Integer(1, MAX_TREE_COLUMNS))]
    feature_names_in_: Annotated[NDArray[Any], Maybe(_NAMES, may_be_missing=True)]
    C_: Annotated[tuple[float, ...] | None, Maybe(Each(Value(float)))]
    block_weights_: Annotated[tuple[float, ...] | None, Maybe(Each(Value(float)))]
    linear_coef_: Annotated[FloatArray | None, Maybe(Array("float64", 2))]
    linear_intercept_: Annotated[FloatArray, Array("float64", 1)]
    n_estimators_: Annotated[int, Value(int, Integer(0))]
    tree_gain_: Annotated[float | None, Maybe(Value(float))]
    tree_gain_error_: Annotated[float | None, Maybe(Value(float, also=("inf",)))]
    block_widths_: Annotated[tuple[int, ...] | None, Maybe(Each(Value(int)))]
    trees_: Annotated[Trees | None, Maybe(Part(Trees))]

    def __init__(
        self,
        *,
        init: Literal["linear"] | None = "linear",
        n_estimators: int = 300,
        learning_rate: float = 0.1,
        max_depth: int = 3,
        n_iter_no_change: int | None = 10,
        Cs: float | Sequence[float] = (0.1, 1.0, 10.0, 100.0, 1000.0),
        prior: Literal["training", "sqrt", "uniform"] | Mapping[Any, float] = "training",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.init = init
        self.n_estimators = n_estimators
        self.learning_rate = learning_rate
        self.max_depth = max_depth
        self.n_iter_no_change = n_iter_no_change
        self.Cs = Cs
        self.prior = prior
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
        blocks: Sequence[int] | FeatureBlocks | None = None,
    ) -> BoostedSoftmaxClassifier:
        """Fit the linear margins, then as many rounds of trees as help.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite features.
        y : array-like of shape (n_samples,)
            Labels: strings, integers, booleans.
        sample_weight : array-like of shape (n_samples,), default=None
            A weight of k equals k copies of the row; 0 leaves it out. None: 1.
        groups : array-like of shape (n_samples,), default=None
            Rows of one group never straddle an inner split. None: equal rows form a group.
        blocks : sequence of int or FeatureBlocks, default=None
            Numbers of columns of the feature blocks of X, side by side. None: one block.

        Returns
        -------
        self : BoostedSoftmaxClassifier

        Raises
        ------
        ValueError
            If a parameter is out of range, if the arguments do not fit together, if weights or
            shares differ by a factor above 1e12, or if there is only one class.

        Warns
        -----
        UserWarning
            If a class has only one or two groups.
        """
        self.check_parameters()
        if y is not None:
            check_column("y", y, "labels")
            if isinstance(y, list | tuple):  # as an array of text, a missing label would be "nan"
                first_appearance_codes(y, "y")
        features, labels = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(labels)
        _check_float32(features)
        shared = blocks if isinstance(blocks, FeatureBlocks) else None
        if shared is not None and len(shared) != len(features):
            raise ValueError(
                f"blocks are FeatureBlocks of {len(shared)} rows, but X has {len(features)}; take "
                "the same rows of both."
            )
        widths = _checked_blocks(blocks, features.shape[1])
        weight = _checked_weight(sample_weight, features)
        self.classes_, rows = training_rows(features, labels, weight, groups)
        warn_of_small_classes(rows, self.classes_)
        rng = check_random_state(self.random_state)
        fold_seed, holdout_seed = rng.randint(_MAX_SEED, size=2).tolist()
        ratio = prior_ratio(self.prior, self.classes_, rows)
        with blas_threads(rows):
            if self.init is None:
                splits = [holdout_split(rows.codes, rows.groups, random_state=holdout_seed)]
                inputs, margins = rows, self._fit_shares(rows.reweighted(ratio))
            else:
                splits = group_folds(rows.codes, rows.groups, random_state=fold_seed)
                spaces = None if shared is None else shared.spaces(rows.at)
                inputs, margins = self._fit_linear(rows, splits, widths, spaces, ratio)
            self._fit_trees(inputs.reweighted(ratio), margins, splits)
        return self

    def decision_function(self, X: ArrayLike) -> FloatArray:
        """Return the margins of the linear part and the trees.

        For two classes (n_samples,), the log odds of ``classes_[1]``; else (n_samples, n_classes),
        whose softmax is `predict_proba`. Those within 1e-6 of a row's largest are equal to it.
        """
        margins = self._margins(X)
        return margins[:, 0] if margins.shape[1] == 1 else margins

    def predict_proba(self, X: ArrayLike) -> FloatArray:
        """Return class probabilities, (n_samples, n_classes), in the order of ``classes_``."""
        return probabilities(self._margins(X))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the class of the largest margin, (n_samples,); the first in a tie."""
        codes = decided_classes(self._margins(X))
        return self.classes_[codes]

    def tree_margins(self, X: NDArray[np.floating]) -> FloatArray:
        """Return what the trees add to the margins, (n_samples, n_margins)."""
        check_is_fitted(self)
        if self.trees_ is None:
            return np.zeros((len(X), n_margins(len(self.classes_))))
        if self.linear_coef_ is not None and self.block_widths_ is not None:
            columns = block_columns(self.block_widths_)
            by_block = np.hstack([X[:, own] @ self.linear_coef_[own] for own in columns])
            by_block = by_block.clip(-_MAX_FLOAT32, _MAX_FLOAT32)  # as trees are of float32
            X = np.hstack([by_block, X]) if self._is_narrow else by_block
        return self.trees_.margins(X)

    @property
    def _is_narrow(self) -> bool:
        """Whether the columns of X are features of the trees beside the margins of the blocks."""
        return self.n_features_in_ <= _MAX_TREE_FEATURES

    def _fit_shares(self, rows: TrainingRows) -> FloatArray:
        self.C_ = self.block_weights_ = self.block_widths_ = self.linear_coef_ = None
        shares = np.bincount(rows.codes, weights=rows.weight) / rows.weight.sum()
        self.linear_intercept_ = margin_offset(shares)
        return np.tile(self.linear_intercept_, (len(rows), 1))

    def _fit_linear(
        self,
        rows: TrainingRows,
        folds: Folds,
        widths: list[int],
        spaces: list[RowSpace] | None,
        ratio: FloatArray,
    ) -> tuple[TrainingRows, FloatArray]:
        """Return rows with the features of the trees, and their linear margins."""
        linear = fit_blocks(
            rows,
            len(self.classes_),
            folds,
            np.atleast_1d(self.Cs).tolist(),
            widths,
            ratio=ratio,
            spaces=spaces,
            verbose=bool(self.verbose),
        )
        self.C_, self.block_weights_, self.block_widths_ = linear.Cs, linear.weights, tuple(widths)
        self.linear_coef_, self.linear_intercept_ = linear.coef, linear.intercept
        inputs = np.hstack([linear.by_block, rows.X]) if self._is_narrow else linear.by_block
        return rows.with_features(inputs), linear.cross_fitted

    def _fit_trees(self, rows: TrainingRows, margins: FloatArray, splits: Folds) -> None:
        n_threads = joblib.effective_n_jobs(self.n_jobs)
        parameters = xgboost_parameters(
            len(self.classes_), n_threads, self.learning_rate, self.max_depth
        )
        self.trees_, search = fit_trees(
            rows,
            margins,
            splits,
            parameters,
            max_rounds=self.n_estimators,
            patience=self.n_iter_no_change,
            may_be_none=self.init is not None,
        )
        self.n_estimators_ = 0 if self.trees_ is None else len(self.trees_.roots)
        self.tree_gain_ = search.gain if search else None
        self.tree_gain_error_ = search.gain_error if search else None

    def _margins(self, X: ArrayLike) -> FloatArray:
        check_is_fitted(self)
        features = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        _check_float32(features)
        margins = np.tile(self.linear_intercept_, (len(features), 1))
        if self.linear_coef_ is not None:
            margins += features.astype(np.float64, copy=False) @ self.linear_coef_
        if self.trees_ is not None:
            margins += self.tree_margins(features)
        return with_exact_ties(margins)

    def check_parameters(self) -> None:
        super().check_parameters()
        if isinstance(self.prior, Mapping):
            for label, share in self.prior.items():
                check_value(f"prior[{label!r}]", share, [Number(above=0)])

    def check_labels(self, labels: ArrayLike) -> None:
        """Raise a ValueError unless `prior` fits the labels."""
        classes = np.unique(np.asarray(labels))
        expected_shares(self.prior, classes, np.ones(len(classes)))

    def _check_state(self) -> None:
        n_columns = n_margins(len(self.classes_))
        names = getattr(self, "feature_names_in_", None)
        if names is not None and len(names) != self.n_features_in_:
            raise ValueError(f"{len(names)} column names for {self.n_features_in_} features")
        _check_shape("linear_intercept_", self.linear_intercept_, (n_columns,))
        if self.linear_coef_ is not None:
            _check_shape("linear_coef_", self.linear_coef_, (self.n_features_in_, n_columns))
            widths = self.block_widths_ or ()
            if min(widths, default=0) < 1 or sum(widths) != self.n_features_in_:
                raise ValueError(
                    f"block_widths_ is {widths}, which must be at least 1 and add up to the "
                    f"{self.n_features_in_} features"
                )
        n_rounds = 0 if self.trees_ is None else len(self.trees_.roots)
        if n_rounds != self.n_estimators_:
            raise ValueError(f"{n_rounds} rounds of trees; expected {self.n_estimators_}")
        if self.trees_ is not None:
            n_features = self.n_features_in_
            if self.linear_coef_ is not None:
                n_features *= self._is_narrow
                n_features += len(self.block_widths_ or ()) * n_columns
            self.trees_.check(n_columns, n_features)


def _checked_weight(sample_weight: ArrayLike | None, X: NDArray[Any]) -> FloatArray:
    if sample_weight is not None and not isinstance(sample_weight, numbers.Number):
        check_column("sample_weight", sample_weight, "weights")
    weight: FloatArray = _check_sample_weight(sample_weight, X, dtype=np.float64)
    if (weight < 0).any():
        raise ValueError(f"sample_weight must not be negative; the smallest is {weight.min():g}.")
    return weight


def _checked_blocks(blocks: Sequence[int] | FeatureBlocks | None, n_features: int) -> list[int]:
    blocks = blocks.widths if isinstance(blocks, FeatureBlocks) else blocks
    widths = [n_features] if blocks is None else list(blocks)
    whole = all(is_integer(width) and width > 0 for width in widths)
    if not widths or not whole or sum(widths) != n_features:
        raise ValueError(
            "blocks are whole numbers of columns, each at least 1, that add up to the "
            f"{n_features} columns of X; got {blocks!r}."
        )
    return [int(width) for width in widths]


def _check_float32(X: NDArray[Any]) -> None:
    # xgboost would make them infinite.
    if X.dtype != np.float32 and max(X.max(), -X.min()) > _MAX_FLOAT32:
        raise ValueError("X has values beyond the range of float32 (about 3.4e38); rescale it.")


def _check_shape(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {shape}")
