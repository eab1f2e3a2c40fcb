"""Numbers and sizes of particles in a set of fields, with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls
from scipy.special import gammaincinv

from hypervlad.common.wording import counted, name_some, verb
from hypervlad.objects.detection import Detection
from hypervlad.objects.fields import Edges, Field, FloatArray, WeightedParticles, independent
from hypervlad.objects.measures import lacks_pixel_size
from hypervlad.statistics.groups import (
    NORMAL_FACTOR,
    OPEN,
    left_out_interval,
    opened,
    share_interval,
    sums_without,
    with_error,
)

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"  # the row of all classes
_SHARES = (0.1, 0.5, 0.9)
_OF_SIZE = ("", "_low", "_high", "_error_fields", "_error_finding")
_HALF = 0.5
_MAX_CONDITION = 1e3  # of a confusion matrix; counts have about as many times its errors
_UNSEEN = 4  # particles added to the held-out ones of each class: of few, none may be mistaken
_KEPT = 1e3  # weight of the total against the answers, which cannot all be explained


def count_particles(
    table: pd.DataFrame,
    fields: Sequence[Field],
    *,
    classes: Sequence[Any] | None = None,
    confusion: ArrayLike | None = None,
    by_person: ArrayLike | None = None,
    detection: Detection | None = None,
    pixel_size_error: float = 0.0,
    edges: Edges = "weight",
) -> pd.DataFrame:
    """Count the particles of each class in a set of fields, with 95 % intervals.

    The intervals are those of the expected count in as large an area of the same sample: they
    contain the variation between fields and what finding misses and invents, by `detection`, or
    without it as far as the images tell (``Field.finding_range``).

    Parameters
    ----------
    table : DataFrame
        From :func:`measure`, or the rows of it that meet a rule.
    fields : sequence of Field
        All fields that were searched, also those without a particle.
    classes : sequence of K labels, optional
        By default those in the table, sorted; without a column ``class``, particles are counted
        together. A row "all" follows.
    confusion : array-like of shape (K, K), optional
        Numbers of held-out particles by true class (rows) and predicted class (columns), in the
        order of `classes`, which must be given. Counts are then corrected for misclassification:
        they are the counts of at least 0 that explain the classified ones best [1]_. Of fewer than
        K classes, it is of the first ones; the others are those that only people gave.
    by_person : array-like of bool, shape (n,), optional
        Whose class a person gave. With `confusion`, these particles are of that class: counts are
        at least theirs, and leave those of other classes out. The others are corrected so that the
        counts explain the classifier's answers for all particles, by columns ``p_CLASS`` of the
        table (NaN where there is none), whichever of them people chose to look at.
    detection : Detection, optional
        Found and true particles of other fields, by which each particle counts for more or less.
        Without, counts are of what was found.
    pixel_size_error : float, default=0.0
        Share by which all pixel sizes may be wrong together, within 95 %, such as 0.03: intervals
        in nanometres and per area contain it.
    edges : {"weight", "leave_out"}
        See :func:`edge_weights`.

    Returns
    -------
    DataFrame with K + 1 rows
        - ``class``, ``particles``: numbers in the table, with those that touch an edge;
        - ``counted``: sums of the weights, with an exact Poisson interval ``poisson_low``,
          ``poisson_high`` [2]_, which holds if particles are scattered independently;
        - ``count``: the same, corrected if there is a confusion matrix, with the interval ``low``,
          ``high``, which holds if they attract each other as well: Student's, of the logarithm,
          with the standard error of the jackknife of whole fields and of those of `detection`; at
          least as wide as a Poisson interval. With a confusion matrix, the variance of its rows as
          Dirichlet variables [3]_ makes it wider [4]_, and it is within those of the least and the
          most that the count can be. NaN for one field; an upper end that few fields cannot tell is
          NaN;
        - ``error_fields``, ``error_finding``, ``error_classes``: relative standard uncertainties of
          `count` that come from how much fields differ, from finding, and from `confusion`;
          NaN if the count is 0, which has an upper end only;
        - ``share``, ``share_low``, ``share_high``: of all particles, with Wilson's interval for as
          many as the fields are worth, which the correction makes wider as well;
        - ``per_um2``, ``per_um2_low``, ``per_um2_high``: count, low and high per square micrometre
          of field; NaN if no field has a pixel size.

    Raises
    ------
    ValueError
        If a particle's field is not among the fields, or its class not among the classes, only some
        fields have a pixel size, or the confusion matrix cannot tell the classes apart.

    References
    ----------
    .. [1] A. R. Solow, C. Davis and Q. Hu, Marine Ecology Progress Series 216, 2001; here by least
       squares that are not negative, with the total kept.
    .. [2] F. Garwood, Biometrika 28, 1936; of sums of weights, M. P. Fay and E. J. Feuer,
       Statistics in Medicine 16, 1997.
    .. [3] With 4 / K added to each: A. Agresti and B. A. Coull, The American Statistician 52, 1998.
    .. [4] By squares of distances from the count: G. Y. Zou and A. Donner, Statistics in Medicine
       27, 2008.

    Examples
    --------
    >>> import pandas as pd
    >>> from hypervlad.particles import Field, count_particles
    >>> fields = [Field(name, (100, 100), pixel_size=10.0) for name in "abcdefgh"]
    >>> table = pd.DataFrame({"micrograph": list("aabbcdeffgh"), "touches_edge": False})
    >>> table["class"] = list("xyxyxyxxxyx")
    >>> found = count_particles(table, fields, edges="leave_out")
    >>> found[["class", "count", "per_um2"]].round(2).values.tolist()
    [['x', 7.0, 0.88], ['y', 4.0, 0.5], ['all', 11.0, 1.38]]
    >>> found[["low", "high"]].round().values.tolist()
    [[3.0, 14.0], [1.0, 10.0], [5.0, 20.0]]
    """
    particles = WeightedParticles.of(table, fields, edges, detection, pixel_size_error)
    return counts_of(particles, classes, confusion, by_person)


def counts_of(
    particles: WeightedParticles,
    classes: Sequence[Any] | None = None,
    confusion: ArrayLike | None = None,
    by_person: ArrayLike | None = None,
) -> pd.DataFrame:
    """Return what :func:`count_particles` returns."""
    import pandas as pd

    table, fields, weights = particles.table, particles.fields, particles.weights
    field_of, units = particles.field_of, independent(fields)
    n_units = int(units.max()) + 1
    names, is_of = _class_numbers(table, classes)
    parts, matrix = is_of, None
    if confusion is not None:
        if classes is None:
            raise ValueError("confusion needs classes, in the order of its rows and columns")
        parts, matrix = _parts_of_correction(table, names, is_of, confusion, by_person)
    kinds = parts, is_of
    sums, classified = (np.zeros((n_units, kind.shape[1])) for kind in kinds)
    for found, kind in zip((sums, classified), kinds, strict=True):
        np.add.at(found, units[field_of], weights[:, None] * kind)
    sizes = np.array([(each.pixel_size or math.nan) / 1000 for each in fields])
    pixels = np.array([math.prod(each.shape) - each.annotated for each in fields], np.float64)
    areas = np.bincount(units, pixels if np.isnan(sizes).any() else pixels * sizes**2)
    with np.errstate(invalid="ignore"):  # one field: 0 / 0
        left = sums_without(sums) / sums_without(areas)[:, None] * areas.sum()
    # What counts are and, if they are corrected, the least and the most that they can be.
    without, also = (_counts(each, matrix) for each in (left, particles.others @ parts))
    counts = _counts(sums.sum(axis=0, keepdims=True), matrix)[0]
    variance = np.zeros(counts.shape)
    if matrix is not None:
        variance[0] = _variance_of_correction(counts, matrix, weights @ parts)
    own = counts[0].copy() if matrix is None else weights @ is_of
    columns: dict[str, Any] = {"class": [*names, ALL], "particles": is_of.sum(axis=0)}
    low, high = _weighted_poisson(weights, is_of, own)
    columns |= {"counted": own, "poisson_low": low, "poisson_high": high, "count": counts[0]}
    # Half a particle, so that classes with none have a logarithm; more where the correction is as
    # uncertain as the count.
    half = _HALF + np.sqrt(variance)
    # Scattered independently, particles vary least; few fields can be alike by chance.
    of = is_of, is_of, np.ones_like(is_of)
    poisson = [_weighted_poisson(weights, *each) for each in zip(of, counts, strict=False)]
    fewest, most = np.stack(poisson, axis=1)
    squares, own = (
        np.array([w @ each for each in of[: len(counts)]]) for w in (weights**2, weights)
    )
    each = np.divide(squares, own, out=np.ones(counts.shape), where=own > 0)
    scattered = each * counts / (counts + half) ** 2
    scaled, left_out, also_scaled = (np.log(each + half) for each in (counts, without, also))
    *ends, errors = left_out_interval(scaled, left_out, also=also_scaled, least=scattered)
    low, high = np.exp(np.minimum(ends, scaled + OPEN)) - half
    high[ends[1] > scaled + OPEN] = np.nan
    low, high = np.minimum(np.maximum(low, 0), fewest), np.maximum(high, most)
    low, high = _with_correction(counts, low, high, variance)
    reach = particles.finding_reach()
    columns["low"], columns["high"] = with_error(low, counts[0], high, np.expm1(reach))
    per_count = np.divide(1, counts[0], out=np.full(counts[0].shape, np.nan), where=counts[0] > 0)
    fields_error, finding_error = errors[:, 0] * (counts + half)[0] * per_count
    finding_error = np.hypot(finding_error, reach.mean() / NORMAL_FACTOR)
    columns |= {"error_fields": fields_error, "error_finding": finding_error}
    columns["error_classes"] = np.sqrt(variance[0]) * per_count
    total = float(counts[0, -1]) or math.nan
    shares, left_out, also = (
        each / np.where(each[..., -1:] > 0, each[..., -1:], np.nan)
        for each in (counts, without, also)
    )
    n_worth, classified = total**2 / (weights @ weights), classified[:, None]
    bounds = share_interval(shares, left_out, n_worth, classified, classified[..., -1:], also)
    bounds = _with_correction(shares, *bounds, variance / total**2)
    columns["share"], (low, high) = shares[0], np.clip(bounds, 0, 1)
    columns["share_low"], columns["share_high"] = low, high
    um2 = (pixels * sizes**2).sum()
    for name, column in (("", "count"), ("_low", "low"), ("_high", "high")):
        columns[f"per_um2{name}"] = columns[column] / um2
    low, best, high = (columns[f"per_um2{name}"] for name in ("_low", "", "_high"))
    low, high = with_error(low, best, high, 2 * particles.error)
    columns["per_um2_low"], columns["per_um2_high"] = low, high
    return pd.DataFrame(columns)


def _with_correction(
    counts: FloatArray, low: FloatArray, high: FloatArray, variance: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return ends within those of the least and the most, (3, K + 1), that counts can be."""
    # Errors of a correction are added to a count, while fields differ by a factor.
    reach = NORMAL_FACTOR * np.sqrt(variance)
    low = np.maximum(counts - np.hypot(counts - low, reach), 0)
    high = counts + np.hypot(high - counts, reach)
    return np.fmax.reduce(low[:2]), np.fmin.reduce(high[::2])


def particle_sizes(
    table: pd.DataFrame,
    fields: Sequence[Field],
    *,
    measure: str = "equivalent_diameter_nm",
    classes: Sequence[Any] | None = None,
    detection: Detection | None = None,
    pixel_size_error: float = 0.0,
    edges: Edges = "weight",
) -> pd.DataFrame:
    """Return D10, D50 and D90 of each class, by number and by area, with 95 % intervals.

    Parameters
    ----------
    table, fields, classes, detection, pixel_size_error, edges
        As in :func:`count_particles`.
    measure : str, default="equivalent_diameter_nm"
        A column of the table. Particles without it, such as the persistence length of short ones,
        are left out.

    Returns
    -------
    DataFrame with 2 (K + 1) rows
        ``class``, ``by`` ("number" or "area"), ``particles`` that touch no edge, and ``d10``,
        ``d50``, ``d90``, each with ``_low``, ``_high``, ``_error_fields`` and ``_error_finding``
        (relative standard uncertainties, as in :func:`count_particles`): the size below which a
        tenth (half, nine tenths) of all particles or of their area is, interpolated between
        particles. The intervals are those of sizes whose share differs from that by no more than
        chance [1]_, judged by how much whole fields differ. An end beyond all sizes that were found
        is NaN, and so is a lower end at which most may be missed by `detection`, where the upper
        end is no smaller than that size; with particles of the class in one field, both.

    Raises
    ------
    ValueError
        As in :func:`count_particles`, or if a size is unknown because the pixel size is.

    References
    ----------
    .. [1] R. S. Woodruff, "Confidence intervals for medians and other position measures", Journal
       of the American Statistical Association 47, 1952.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.particles import Field, cut_particles, measure, particle_sizes
    >>> labels = np.zeros((50, 50), int)
    >>> labels[5:9, 5:9], labels[20:24, 5:9], labels[20:30, 20:30] = 1, 2, 3
    >>> table = measure(cut_particles(np.ones((50, 50)), labels, pixel_size=2.0))
    >>> fields = [Field(table["micrograph"][0], (50, 50), 2.0)]
    >>> particle_sizes(table, fields)[["by", "d10", "d50"]].round(1).values.tolist()
    [['number', 9.0, 11.0], ['area', 9.0, 19.7]]
    """
    particles = WeightedParticles.of(table, fields, edges, detection, pixel_size_error)
    return sizes_of(particles, measure, classes)


def sizes_of(
    particles: WeightedParticles, measure: str, classes: Sequence[Any] | None = None
) -> pd.DataFrame:
    """Return what :func:`particle_sizes` returns."""
    import pandas as pd

    table, fields = particles.table, particles.fields
    names, is_of = _class_numbers(table, classes)
    if measure not in table or table[measure].dtype.kind not in "biuf":
        raise ValueError(
            f"measure={measure!r} is not a column of numbers of the table: {', '.join(table)}"
        )
    if measure.endswith(("_px", "_px2")) and len({field.pixel_size for field in fields}) > 1:
        raise ValueError(f"measure={measure!r}: the fields differ in pixel size; choose one in nm")
    if (is_unknown := lacks_pixel_size(table, measure)).any():
        unknown = list(dict.fromkeys(table["micrograph"][is_unknown].astype(str)))
        raise ValueError(
            f"{measure} is unknown for {counted(int(is_unknown.sum()), 'particle')} of "
            f"{name_some(unknown)}: give the pixel size, or choose a measure in pixels"
        )
    missed, is_measured = particles.missed_below(measure), particles.is_measured(measure)
    samples = {by: particles.sample(measure, by) for by in ("number", "area")}
    rows = []
    for name, is_own in zip([*names, ALL], is_of.T, strict=True):
        own, is_in = particles.where(is_own), is_own[is_measured]
        error = own.error_of(measure)  # few particles may be wrong by chance, too
        of_finding = own.finding_reach(measure).mean() / NORMAL_FACTOR
        for by, whole in samples.items():
            best, low, high, *errors = whole.where(is_in).quantiles(_SHARES)
            low, high = opened(*with_error(low, best, high, error), missed)
            errors[1] = np.hypot(errors[1], of_finding)
            row: dict[str, Any] = {"class": name, "by": by, "particles": int(is_in.sum())}
            for share, *values in zip(_SHARES, best, low, high, *errors, strict=True):
                keys = (f"d{round(100 * share)}{name}" for name in _OF_SIZE)
                row |= dict(zip(keys, values, strict=True))
            rows.append(row)
    return pd.DataFrame(rows)


def _class_numbers(
    table: pd.DataFrame, classes: Sequence[Any] | None
) -> tuple[list[str], NDArray[np.bool_]]:
    """Return the names of classes, and which particles are of each of them and of all."""
    if "class" in table and (n_missing := int(table["class"].isna().sum())):
        raise ValueError(
            f"{counted(n_missing, 'particle')} without a class: give it, leave "
            f"{verb(n_missing, 'it', 'them')} out, or let 'hypervlad particles classify' do it"
        )
    found = [str(label) for label in table.get("class", ())]
    names = sorted(set(found)) if classes is None else [str(label) for label in classes]
    if ALL in {*found, *names}:
        raise ValueError(f"a class is called {ALL!r}, like the row of all classes: rename it")
    if classes is not None and "class" not in table:
        raise ValueError("classes are given, but the table has no column 'class'")
    strange = sorted(set(found) - set(names))
    if strange or len(set(names)) < len(names):
        raise ValueError(
            f"classes={names!r} must name each class of the table once; it has "
            f"{name_some(strange or sorted(set(found)))}"
        )
    is_of = np.ones((len(table), len(names) + 1), bool)
    for k, name in enumerate(names):
        is_of[:, k] = [label == name for label in found]
    return names, is_of


def _parts_of_correction(
    table: pd.DataFrame,
    names: Sequence[str],
    is_of: NDArray[np.bool_],
    confusion: ArrayLike,
    by_person: ArrayLike | None,
) -> tuple[NDArray[np.bool_], FloatArray]:
    """Return which particles `_counts` adds up, and the checked confusion matrix, (J, J).

    The columns are those that the classifier calls each of its J classes; of these, those that are
    of each class according to people; all that are of each of K classes according to people; all.
    """
    n = len(table)
    known = np.asarray(np.zeros(n, bool) if by_person is None else by_person)
    if known.shape != (n,) or known.dtype != bool:
        raise ValueError(
            f"by_person must be True or False for each of {counted(n, 'particle')}, got "
            f"{known.dtype} of shape {known.shape}"
        )
    matrix = np.atleast_1d(np.asarray(confusion, np.float64))
    is_further = np.asarray(is_of[:, len(matrix) : -1].any(axis=1))
    has_further = by_person is not None and known[is_further].all()
    own = list(names[: len(matrix)] if has_further else names)
    matrix = checked_confusion(matrix, own)
    answers = is_of[:, : len(own)].copy()
    if known.any():
        columns = [f"p_{name}" for name in own]
        if absent := [name for name in columns if name not in table]:
            raise ValueError(
                "by_person takes what the classifier answered for these particles, but the table "
                f"lacks {name_some(absent)}; give that of a FoundFolder that was classified"
            )
        proba = table.loc[known, columns].to_numpy(np.float64)
        best = np.nan_to_num(proba, nan=-1).argmax(axis=1)[:, None] == np.arange(len(own))
        # Held-out particles say nothing of what is of no class of the classifier.
        is_judged = ~np.isnan(proba).any(axis=1) & ~is_further[known]
        answers[known] = best & is_judged[:, None]
    given = is_of[:, :-1] & known[:, None]
    named = given[:, : len(own)] & answers.any(axis=1, keepdims=True)
    return np.hstack([answers, named, given, is_of[:, -1:]]), matrix


def checked_confusion(confusion: ArrayLike, names: Sequence[str]) -> FloatArray:
    """Return the matrix, (K, K); a ValueError if counts cannot be corrected by it."""
    matrix: FloatArray = np.asarray(confusion, np.float64)
    is_of_numbers = ((matrix >= 0) & (matrix < np.inf) & (matrix == np.rint(matrix))).all()
    if not names or matrix.shape != (len(names),) * 2 or not is_of_numbers:
        raise ValueError(
            f"confusion must hold numbers of particles, {len(names)} x {len(names)} for the "
            f"classes {', '.join(names) or '(none)'}; got shape {matrix.shape}"
            f"{'' if is_of_numbers else ' with shares, or less than 0'}"
        )
    empty = [name for name, n in zip(names, matrix.sum(axis=1), strict=True) if n < 1]
    if empty:
        raise ValueError(
            f"confusion: no held-out particle of {name_some(empty)}, so it is unknown how often "
            "they are misclassified; label some, or count without correction"
        )
    condition = np.linalg.cond(matrix / matrix.sum(axis=1, keepdims=True))
    if condition > _MAX_CONDITION:
        raise ValueError(
            "confusion: the classifier does not tell some classes apart (condition number "
            f"{condition:.3g}), so their counts cannot be corrected; join them"
        )
    return matrix


def _counts(sums: FloatArray, matrix: FloatArray | None) -> FloatArray:
    """Return the counts of each class and of all, (n, 1, K + 1).

    With a confusion matrix, the least and the most that they can be follow, (n, 3, K + 1).
    """
    if matrix is None:
        return sums[:, None]
    n, rates = len(matrix), matrix / matrix.sum(axis=1, keepdims=True)
    answered, named, given, total = np.split(sums, [n, 2 * n, -1], axis=1)
    best = given.copy()
    # Of particles that people named, what usual answers would be: they may have looked for mistakes
    # alone, so that the answers for the others are better, or worse, than usual.
    best[:, :n] += _corrected(answered - named @ rates, rates)
    most = total - given.sum(axis=1, keepdims=True) + given
    return np.stack([np.hstack([each, total]) for each in (best, given, most)], axis=1)


def _corrected(counts: FloatArray, rates: FloatArray) -> FloatArray:
    """Return the true counts, (n, K), of classified ones; rates, (K, K), by true class."""
    if not np.isfinite(counts).all():  # without the only field
        return np.full(counts.shape, np.nan)
    found = np.linalg.solve(rates.T, counts.T).T
    kept = np.vstack([rates.T, np.full(len(rates), _KEPT)])
    for i in np.flatnonzero((found < 0).any(axis=1)):
        total = max(counts[i].sum(), 0)
        best, _ = nnls(kept, np.append(counts[i], _KEPT * total))
        found[i] = best * (total / max(best.sum(), np.finfo(float).tiny))
    return np.asarray(found)


def _variance_of_correction(counts: FloatArray, matrix: FloatArray, sums: FloatArray) -> FloatArray:
    """Return the variances (K + 1,) of corrected counts that come from few held-out particles."""
    n = len(matrix)
    held_out = matrix + _UNSEEN / n
    total = held_out.sum(axis=1)
    rates = held_out / total[:, None]
    # A change d of the rates of true class k changes the counts by -inverse @ d times its count.
    inverse = np.linalg.inv(rates.T)
    spread = np.square(inverse) @ rates.T - np.square(inverse @ rates.T)
    best, least, most = counts
    answered = (best - least)[:n] + sums[n : 2 * n]
    # The standard deviation of what lies between two limits is half of their distance, at most.
    variance = np.square((most - least) / 2)
    variance[:n] = np.minimum(variance[:n], spread @ (answered**2 / (total + 1)))
    return np.asarray(variance)


def poisson_interval(count: float, variance: float, largest: float) -> tuple[float, float]:
    """Return the exact interval of the mean of a sum of weights, from its variance.

    With weights of 1, for a variance equal to the count, it is that of a Poisson variable.
    """
    low = gammaincinv(count**2 / variance, 0.025) * variance / count if count > 0 else 0.0
    more, wider = count + largest, variance + largest**2
    return float(low), float(gammaincinv(more**2 / wider, 0.975) * wider / more)


def _weighted_poisson(
    weights: FloatArray, is_of: NDArray[np.bool_], counts: FloatArray
) -> NDArray[np.float64]:
    """Return the Poisson intervals, (2, K), of counts to which the particles of each contribute."""
    intervals = []
    for own, count in zip((weights[of] for of in is_of.T), counts.tolist(), strict=True):
        total = float(own.sum())
        variance = count * float(own @ own) / total if total else count
        intervals.append(poisson_interval(count, variance, float(own.max(initial=0)) or 1.0))
    return np.array(intervals).T
