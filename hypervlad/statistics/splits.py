"""Splits that keep groups whole: a hold-out and cross-validation folds, stratified by class.

Each class keeps at least one group in the training part, and a class with a single group is never
tested. `joined_groups` puts copies of an image into one group.
"""

from __future__ import annotations

import datetime
import reprlib
import warnings
from collections.abc import Iterator, Mapping, Set
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils import check_random_state

from hypervlad.common.constraints import Integer, Number, check_value
from hypervlad.common.wording import counted

IntArray = NDArray[np.intp]

# With fewer folds, models of a small data set learn from too little to represent that of all rows.
_MIN_FOLDS = 3


def holdout_split(
    y: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    test_size: float = 0.2,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[IntArray, IntArray]:
    """Split rows into a training and a test part, stratified by class, with whole groups only.

    Groups that bring the class counts closer to `test_size` of each class join the test part, in
    random order. Then each class not yet tested adds its smallest group, if it has another one.

    Parameters
    ----------
    y : array-like of shape (n,)
        Class labels, of any hashable kind. Their names do not change the split.
    groups : array-like of shape (n,), default=None
        Rows of one group stay together. None makes each row its own group.
    test_size : float, default=0.2
        Approximate share of the rows in the test part, above 0 and below 1.
    random_state : int, RandomState or None, default=None
        Seed of the order of groups.

    Returns
    -------
    train_idx, test_idx : ndarray of int
        Sorted row numbers: each row is in one of them. `train_idx` holds every class; `test_idx` is
        empty if no group can be spared.

    Raises
    ------
    ValueError
        If `y` is empty or not one-dimensional, a label or group is missing (None, NaN), the lengths
        differ, or `test_size` is out of range.

    Examples
    --------
    >>> from hypervlad.evaluation import holdout_split
    >>> y = ["fibre"] * 6 + ["matrix"] * 6
    >>> paper = [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    >>> train, test = holdout_split(y, paper, test_size=1 / 3, random_state=0)
    >>> len(train), len(test), {paper[i] for i in train} & {paper[i] for i in test}
    (8, 4, set())
    """
    check_value("test_size", test_size, [Number(above=0, below=1, meaning="a share of the rows")])
    counts, group_of_row = _class_counts_by_group(y, groups)
    rng = check_random_state(random_state)
    in_test = _choose_test_groups(counts, float(test_size), rng.permutation(len(counts)))
    row_in_test = in_test[group_of_row]
    return np.flatnonzero(~row_in_test), np.flatnonzero(row_in_test)


def group_folds(
    y: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    n_splits: int = 5,
    random_state: int | np.random.RandomState | None = None,
) -> list[tuple[IntArray, IntArray]]:
    """Split rows into cross-validation folds, stratified by class, with whole groups only.

    The folds are those of scikit-learn's ``StratifiedGroupKFold``, except for small classes: there
    are no more folds than groups of the rarest class that has two (but three at least), each class
    lies in at least two folds, and the only group of a class is never tested.

    Parameters
    ----------
    y, groups, random_state
        As in `holdout_split`, with its errors.
    n_splits : int, default=5
        Maximum number of folds, at least 2.

    Returns
    -------
    list of (train_idx, test_idx)
        As in `holdout_split`; each row is tested at most once. Empty if no group can be spared.

    Examples
    --------
    >>> from hypervlad.evaluation import group_folds
    >>> y = ["SEM", "SEM", "SEM", "TEM", "TEM", "TEM", "AFM"]
    >>> folds = group_folds(y, n_splits=3, random_state=0)
    >>> [len(test) for train, test in folds]  # the only AFM image is never tested
    [2, 2, 2]
    """
    check_value("n_splits", n_splits, [Integer(2, meaning="a whole number of folds")])
    counts, group_of_row = _class_counts_by_group(y, groups)
    pinned = _pin_sole_groups(counts)
    fold_of_group = _assign_folds(y, counts, group_of_row, pinned, n_splits, random_state)
    _keep_classes_trainable(fold_of_group, counts)
    fold_of_row = fold_of_group[group_of_row]
    tests = [fold_of_row == fold for fold in np.unique(fold_of_group[fold_of_group >= 0])]
    return [(np.flatnonzero(~test), np.flatnonzero(test)) for test in tests]


def joined_groups(groups: ArrayLike, copies: ArrayLike) -> IntArray:
    """Number the groups of rows, after joining groups that share a value of `copies` (digests).

    ValueError if a value is missing.

    >>> joined_groups(["A", "B", "B", "C"], ["x", "x", "y", "z"]).tolist()
    [0, 0, 0, 1]
    """
    images, own = first_appearance_codes(copies, "copies"), first_appearance_codes(groups, "groups")
    n = len(own)
    return linked_groups(np.column_stack([own, n + images]), 2 * n)[own]


def order_by_digest(digests: ArrayLike, labels: ArrayLike) -> NDArray[np.intp]:
    """Return the rows in the order of the images' digests; copies in the order of their labels."""
    return np.lexsort((np.unique(labels, return_inverse=True)[1], np.asarray(digests)))


def linked_groups(pairs: IntArray, n: int) -> IntArray:
    """Number the connected sets of n rows, linked by `pairs`, (n_pairs, 2), by first appearance."""
    links = np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])
    graph = coo_array(links, shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.intp)


def group_weights(groups: ArrayLike) -> NDArray[np.float64]:
    """Return the weight of each row: 1 / (groups + 1), divided among the rows of its group."""
    _, own, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return np.asarray(1 / ((len(counts) + 1) * counts[own]))


_KINDS = {"labels": "biufUO", "weights": "biufO"}
_EXPECTED = {"labels": "strings, integers, floats or booleans", "weights": "real numbers"}


def check_column(
    what: str, values: Any, role: Literal["labels", "groups", "weights"] = "groups"
) -> None:
    """Raise a ValueError unless values are a sequence of types that fit their role.

    Labels are strings, numbers or booleans; weights are real numbers in one dimension.
    """
    unordered = isinstance(values, str | bytes | Mapping | Set | Iterator)
    is_column = hasattr(values, "__getitem__") or hasattr(values, "__array__")
    if unordered or not is_column or not getattr(values, "shape", (1,)):
        raise ValueError(
            f"{what} must be a list, a tuple or an array with one value per row, "
            f"not a {type(values).__name__}"
        )
    if role == "groups":
        return
    dtype = getattr(values, "dtype", None)
    if isinstance(values, list | tuple):  # with None or NaN it would become an array of strings
        types = {type(value) for value in values}
        dtype = None if types <= {str, int, float, bool} else np.array(values, dtype=object).dtype
    if not isinstance(dtype, np.dtype):
        return
    array = np.asarray(values, dtype=dtype)
    unusable = [value for value in array.ravel() if _is_unusable(value)] if dtype == "O" else []
    if dtype.kind not in _KINDS[role] or unusable:
        example = reprlib.repr(unusable[0] if unusable else array.dtype)
        # The words that scikit-learn's checks look for.
        complex_data = "Complex data not supported: " if dtype.kind == "c" else ""
        raise ValueError(f"{complex_data}{what} must be {_EXPECTED[role]}; got {example}")
    if role == "weights" and array.ndim != 1:
        raise ValueError(f"{what} has shape {array.shape}; expected one weight per row")


def _is_unusable(value: Any) -> bool:
    if isinstance(value, np.generic):
        return value.dtype.kind not in "biufU"
    return isinstance(value, bytes | complex | datetime.date | datetime.timedelta)


def check_groups(groups: Any, n_images: int) -> IntArray:
    """Return the group of each image as a number; without groups, each has its own."""
    if groups is None:
        return np.arange(n_images)
    check_column("groups", groups)
    values = groups.tolist() if isinstance(groups, np.ndarray) else list(groups)
    if len(values) != n_images:
        raise ValueError(
            f"{len(values)} groups values for {counted(n_images, 'image')}: give one for each image"
        )
    return np.asarray(first_appearance_codes(values, "groups"))


def first_appearance_codes(values: ArrayLike, what: str) -> IntArray:
    """Number the distinct values in the order they appear, so that names cannot change a split."""
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iu":
        _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[inverse]
    rows = _as_list(values, what)
    codes: dict[Any, int] = {}
    for position, value in enumerate(rows):
        if _is_missing(value):
            raise ValueError(f"{what}[{position}] is missing ({value!r}); give each row a value.")
        codes.setdefault(value, len(codes))
    return np.fromiter((codes[value] for value in rows), dtype=np.intp, count=len(rows))


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA refuses to be true or false
        return True


def _as_list(values: ArrayLike, what: str) -> list[Any]:
    check_column(what, values)
    # A list stays a list: as an array, [1, "a"] would turn into strings.
    if isinstance(values, list | tuple):
        if any(isinstance(value, list | tuple | np.ndarray) for value in values):
            raise ValueError(f"{what} has one value per row; got a nested list.")
        return list(values)
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{what} has one value per row; got an array of shape {array.shape}.")
    return array.tolist() if array.dtype.kind != "O" else list(array)


def _class_counts_by_group(y: ArrayLike, groups: ArrayLike | None) -> tuple[IntArray, IntArray]:
    """Count rows by group and class, (n_groups, n_classes); return the group of each row, too."""
    classes = first_appearance_codes(y, "y")
    if not len(classes):
        raise ValueError("y is empty: there are no rows to split.")
    group_of_row = (
        np.arange(len(classes)) if groups is None else first_appearance_codes(groups, "groups")
    )
    if len(group_of_row) != len(classes):
        raise ValueError(f"y has {len(classes)} rows but groups has {len(group_of_row)}.")
    counts = np.zeros((group_of_row.max() + 1, classes.max() + 1), dtype=np.intp)
    np.add.at(counts, (group_of_row, classes), 1)
    return counts, group_of_row


def _pin_sole_groups(counts: IntArray) -> NDArray[np.bool_]:
    """Mark the groups that are the only one of a class: the class cannot be learnt without."""
    present = counts > 0
    alone = present.sum(axis=0) == 1
    return np.asarray(present[:, alone].any(axis=1))


def _choose_test_groups(counts: IntArray, test_size: float, order: IntArray) -> NDArray[np.bool_]:
    present = counts > 0
    n_of_class = counts.sum(axis=0)
    in_test = np.zeros(len(counts), dtype=bool)
    groups_left = present.sum(axis=0)
    missing = np.full(counts.shape[1], test_size)  # per class, as a share of its rows

    def can_spare(group: int) -> bool:
        return bool((groups_left[present[group]] > 1).all())

    def move(group: int) -> None:
        in_test[group] = True
        groups_left[present[group]] -= 1
        missing[:] -= counts[group] / n_of_class

    for group in order:
        share = counts[group] / n_of_class
        closer = ((missing - share) ** 2).sum() < (missing**2).sum()
        if closer and can_spare(group):
            move(group)
    for klass in range(counts.shape[1]):
        if present[in_test, klass].any():
            continue
        candidates = [g for g in order if present[g, klass] and can_spare(g)]
        if candidates:
            move(min(candidates, key=lambda g: counts[g].sum()))
    return in_test


def _assign_folds(
    y: ArrayLike,
    counts: IntArray,
    group_of_row: IntArray,
    pinned: NDArray[np.bool_],
    n_splits: int,
    random_state: int | np.random.RandomState | None,
) -> IntArray:
    fold_of_group = np.full(len(counts), -1, dtype=np.intp)
    groups_of_class = (counts > 0).sum(axis=0)
    rarest = int(groups_of_class[groups_of_class > 1].min(initial=n_splits))
    n_folds = min(n_splits, max(_MIN_FOLDS, rarest), int((~pinned).sum()))
    if n_folds < 2:
        fold_of_group[~pinned] = 0
        return fold_of_group
    rows = np.flatnonzero(~pinned[group_of_row])
    classes = first_appearance_codes(y, "y")[rows]
    if np.bincount(classes).max() < n_folds:
        # StratifiedGroupKFold raises if every class is smaller: treat all rows as one class.
        classes = np.zeros_like(classes)
    cutter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=random_state)
    with warnings.catch_warnings():
        # It warns of classes with fewer rows than folds, which this module handles.
        warnings.simplefilter("ignore", UserWarning)
        splits = cutter.split(rows[:, None], classes, group_of_row[rows])
        for fold, (_, test) in enumerate(splits):
            fold_of_group[group_of_row[rows[test]]] = fold
    return fold_of_group


def _keep_classes_trainable(fold_of_group: IntArray, counts: IntArray) -> None:
    """Change `fold_of_group` in place until each class has a group outside each fold."""
    members_of_class = [np.flatnonzero(counts[:, klass]) for klass in range(counts.shape[1])]

    def stuck(klass: int | np.intp) -> bool:
        folds = np.unique(fold_of_group[members_of_class[klass]])
        return len(folds) == 1 and folds[0] >= 0

    def move_is_safe(group: int, fold: int) -> bool:
        before = fold_of_group[group]
        fold_of_group[group] = fold
        safe = not any(stuck(klass) for klass in np.flatnonzero(counts[group]))
        fold_of_group[group] = before
        return safe

    for klass, members in enumerate(members_of_class):
        if not stuck(klass):
            continue
        smallest_first = members[np.argsort(counts[members].sum(axis=1), kind="stable")]
        tested = fold_of_group >= 0
        sizes = np.bincount(fold_of_group[tested], weights=counts[tested].sum(axis=1))
        emptiest_first = np.argsort(sizes, kind="stable")
        moves = ((g, f) for g in smallest_first for f in emptiest_first if move_is_safe(g, f))
        group, fold = next(moves, (smallest_first[0], -1))
        fold_of_group[group] = fold
