"""Counts and sizes of the particles of a folder, with what must be known about them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.common.progress import by_reader
from hypervlad.common.wording import counted, name_some, note_of_unscaled, percent, verb
from hypervlad.objects.counts import ALL, counts_of, sizes_of
from hypervlad.objects.detection import Detection
from hypervlad.objects.fields import Edges, Field, WeightedParticles, edge_weights
from hypervlad.objects.found_tables import as_cells, classes_of, is_by_model, is_left_out
from hypervlad.objects.measures import MEASURES, pixel_size_power
from hypervlad.objects.particle import NOT_A_PARTICLE
from hypervlad.objects.results_folder import NO_GROUP, GroupedImages
from hypervlad.objects.rules import met_and_unknown, without_measure
from hypervlad.statistics.groups import NORMAL_FACTOR, Ratio, with_error

if TYPE_CHECKING:
    import pandas as pd

#: What is said of an image in which particles have a second edge, that of a shell.
SHELLS_OUTLINED = "the shells are outlined"
_NO_CLASS = "no class"  # of particles beside those to which people gave one, and no model
_MIN_FIELDS = 2  # whose true outlines are known
# Of true particles, below which corrections mean little: of 60 of titania in four images, intervals
# span factors of 14, 9, 8, 6, 6, 4 where .07, .13, .2, .3, .4, .5 are found; below .1 they fail.
_MIN_FOUND = 0.3
_MAX_BEYOND = 0.05  # of the particles, of sizes about which the correction knows nothing
_SOURCES = "fields", "finding", "classes"  # of uncertainty, in columns of counts and sizes
_NOISE = 1e-9  # of sums, below which an uncertainty is none
_STRAY = 4  # pixels
_AS_ONE = ", or count each as one: --set edges=leave_out (in Python, edges='leave_out')"
_ALIKE = 0.5  # of the doubt of sizes: what is wrong alike in groups
_MAX_WEIGHT = 10  # of a particle, from which on a count may depend on it alone


class FoundCounts(NamedTuple):
    """Counts and sizes of the particles of a folder.

    Attributes
    ----------
    counts : DataFrame
        From :func:`count_particles`.
    sizes : DataFrame
        From :func:`particle_sizes`.
    measure : str
        Column of the table whose sizes these are.
    notes : list of str
        What is corrected, missing, or not corrected, and why.
    groups : dict of (DataFrame, DataFrame)
        Counts and sizes of each group of fields, by its name, "no group" for fields beside these;
        empty without groups.
    particles : dict of WeightedParticles
        Those that are counted, by their group, and of all fields by "". An image that has copies in
        several groups is in each of these, and once in all fields.
    """

    counts: pd.DataFrame
    sizes: pd.DataFrame
    measure: str
    notes: list[str]
    groups: dict[str, tuple[pd.DataFrame, pd.DataFrame]]
    particles: dict[str, WeightedParticles]

    @property
    def is_unknown(self) -> bool:
        """Whether nobody knows by how much finding is wrong."""
        return self.particles[""].finding_logs is None

    @property
    def correction(self) -> str:
        """Whether counts, sizes and histograms are corrected, in words; "" if people drew all."""
        words, own = "corrected for what finding misses", self.particles[""]
        if own.detection is not None:
            return words
        return "" if all(each.by_person for each in own.fields) else f"not {words}"

    @property
    def budget(self) -> pd.DataFrame:
        """What uncertainties come from, as the GUM asks for [1]_: one line for each source.

        The columns are the ``quantity`` ("count" or "per_um2", of all particles or "of CLASS", and
        "d10", "d50", "d90" by number), the ``source`` ("fields", "finding", "classes", "pixel
        size", "scale bar", and "combined", all that are known), and the standard uncertainty as
        ``percent`` of the value, NaN if it is unknown. Finding is what is missed, invented, and
        outlined too large or small; it is not there if a person drew or corrected all outlines. A
        count of 0, which has an upper end only, has no lines.

        References
        ----------
        .. [1] JCGM 100:2008, "Guide to the expression of uncertainty in measurement".
        """
        import pandas as pd

        sizes = self.sizes[self.sizes["by"] == "number"].iloc[-1]
        is_scaled = bool(self.counts["per_um2"].notna().all())
        rows = [(f"d{share}", sizes, f"d{share}_") for share in (10, 50, 90)]
        for _, row in self.counts[self.counts["count"] > 0][::-1].iterrows():
            of_class = "" if row["class"] == ALL else f" of {row['class']}"
            rows.insert(-3, (f"{'per_um2' if is_scaled else 'count'}{of_class}", row, ""))
        lines, combined = [], "combined"
        for name, row, start in rows:
            power = pixel_size_power(self.measure) if start else 2 * is_scaled
            parts = {each: row.get(f"{start}error_{each}", 0.0) for each in _SOURCES}
            every = self.particles[""]
            parts["pixel size"] = power * every.given_error / NORMAL_FACTOR
            parts["scale bar"] = power * every.bar_error / NORMAL_FACTOR
            together = math.sqrt(sum(each**2 for each in parts.values()))
            if self.is_unknown:
                parts["finding"], combined = math.nan, "combined, without finding"
            parts = {source: error for source, error in parts.items() if not error < _NOISE}
            lines += [
                [name, source, 100 * error]
                for source, error in {**parts, combined: together}.items()
            ]
        return pd.DataFrame(lines, columns=["quantity", "source", "percent"])

    def ratios(self) -> dict[str, list[Ratio]]:
        """Return by what factor numbers of all particles differ between each two groups, by name.

        They are D50 by number, and particles per square micrometre if pixel sizes are known. What
        errors of finding and of pixel sizes have in common in both groups is in the intervals, too,
        but for half of the least doubt of sizes that a group has.
        """
        numbers = dict[str, dict[str, list[float]]]()
        reaches = [self.particles[group].finding_reach(self.measure) for group in self.groups]
        alike = _ALIKE * np.min(reaches, axis=0) if reaches else 0.0
        for (group, (counts, sizes)), reach in zip(self.groups.items(), reaches, strict=True):
            samples = {field.sample for field in self.particles[group].fields}
            by_number = sizes[sizes["by"] == "number"]
            own = {"D50": (by_number, "d50"), "number per area": (counts, "per_um2")}
            for name, (table, column) in own.items():
                value, *ends = (table.iloc[-1][f"{column}{end}"] for end in ("", "_low", "_high"))
                if name == "D50":
                    doubts = np.expm1([reach - alike, reach])
                    ends = [*with_error(ends[0], value, ends[1], *doubts)]
                if len(samples) == 1 and samples != {None}:  # one sample is no group
                    ends = [math.nan, math.nan]
                numbers.setdefault(name, {})[group] = [value, *ends]
        return {
            name: [Ratio.between(one, other, of) for other, one in combinations(of, 2)]
            for name, of in numbers.items()
            if not np.isnan([value for value, *_ in of.values()]).all()
        }

    def cells(self) -> tuple[list[str], list[list[Any]]]:
        """Return the columns and rows of one table: counts, and sizes by number and by area.

        With groups, those of all fields are followed by those of each group. The notes are in the
        last column, in the line of all particles of all fields.
        """
        import pandas as pd

        tables = []
        for name, (table, sizes) in ({"": (self.counts, self.sizes)} | self.groups).items():
            for by, ending in (("number", ""), ("area", "_by_area")):
                own = sizes[sizes["by"] == by].drop(columns=["by", "particles"])
                table = table.merge(own.set_index("class").add_suffix(ending), on="class")
            if self.groups:
                table.insert(0, "group", name)
            table = table.drop(columns=[each for each in table if "error_" in each])
            is_all = (table["class"] == ALL) & (name == "")
            table["notes"] = np.where(is_all, "; ".join(self.notes), "")
            tables.append(table)
        table = pd.concat(tables)
        units = "_px", "_nm", "_px2", "_nm2"
        unit = next((each for each in units if self.measure.endswith(each)), "")
        columns = [f"{each}{unit}" if each[:3] in ("d10", "d50", "d90") else each for each in table]
        return columns, as_cells(table)


def count_found(
    table: pd.DataFrame,
    field_table: pd.DataFrame,
    fields: Sequence[Field],
    *,
    confusion: ArrayLike | None = None,
    rule: str | None = None,
    edges: Edges = "weight",
    measure: str = "equivalent_diameter",
    corrected: bool = True,
    detection: Detection | None = None,
    pixel_size_error: float = 0.0,
) -> FoundCounts:
    """Count the particles in fields as `FoundFolder.count` explains it."""
    notes = list[str]()
    unscaled = [field.micrograph for field in fields if not field.pixel_size]
    if 0 < len(unscaled) < len(fields):
        notes.append(note_of_uncounted(unscaled))
        fields = [field for field in fields if field.pixel_size]
    elif unscaled:
        notes.append(
            "the pixel size is unknown, so nothing is per area or in nanometres, and sizes of "
            f"several images mean something only if these have one magnification; {give_size()}"
        )
    counting = [field.micrograph for field in fields]
    field_table = field_table[field_table["micrograph"].isin(counting)]
    if len(fields) < 2:
        notes.append("no intervals of counts and sizes, which take at least two images")
    # Of copies, one that a person corrected comes first.
    digests = field_table.set_index("micrograph")["image_digest"].fillna("")
    grouped = GroupedImages.of(
        {"path": each.micrograph, "group": each.group, "image_digest": digests[each.micrograph]}
        for each in sorted(fields, key=lambda each: not each.by_person)
    )
    notes += grouped.notes
    fields = [field for field in fields if field.micrograph not in grouped.copies]
    if any(field.group for field in fields):
        fields = [replace(each, group=each.group or NO_GROUP) for each in fields]
    is_scaled = all(field.pixel_size for field in fields)
    column = _column_of(measure, "nm" if is_scaled else "px")
    is_out = is_left_out(table)
    if n_out := int(is_out.sum()):
        notes.append(f"without {counted(n_out, 'particle')} that a person left out")
    is_counted = ~is_out & _is_of(table, fields)
    classes, by_model, matrix = None, is_by_model(table), None
    if "class" in table:
        is_wrong = np.array(table["class"] == NOT_A_PARTICLE, bool)
        if NOT_A_PARTICLE not in classes_of(table) and (
            n_wrong := int((is_counted & is_wrong).sum())
        ):
            notes.append(f"without {counted(n_wrong, 'wrong outline')}")
            is_counted &= ~is_wrong
    table, by_model = table[is_counted], by_model[is_counted]
    if "class" in table and not classes_of(table) and table["class"].isna().all():
        table = table.drop(columns="class")  # only wrong outlines were named
    is_classified = bool(classes_of(table))
    if "class" in table:
        if not is_classified:  # people outline more than they name
            table = table.assign(**{"class": table["class"].fillna(_NO_CLASS)})
        classes = list(dict.fromkeys([*classes_of(table), *sorted(set(table["class"].dropna()))]))
        n_own = int((~by_model).sum())
        if not is_classified or n_own == len(table):
            pass  # people gave all classes
        elif confusion is None:
            notes.append(
                "not corrected for wrong classes, as there is no confusion.csv: the classifier "
                "held out no particles, or 'hypervlad particles classify' was stopped"
            )
        elif rule is not None and re.search(r"\b(class|confidence|p_)", rule):
            notes.append("not corrected for wrong classes, as the rule chooses by the answers")
        elif corrected:
            matrix = confusion
            own = (
                f"; {counted(n_own, 'particle')} of {len(table)} {verb(n_own, 'counts', 'count')} "
            )
            own += "as the class that a person gave, in training or since"
            notes.append(
                "counts are corrected for the classifier's mistakes with held-out particles, sizes "
                f"are not{own if n_own else ''}"
            )
    if rule is not None:
        is_met, without = met_and_unknown(table, rule)
        table, by_model = table[is_met], by_model[is_met]
        notes.append(f"only particles that meet {rule!r} are counted")
        notes += [without] * bool(without)
    if (is_unknown := table[column].isna().to_numpy()).any():
        notes.append(f"sizes are {without_measure(measure, is_unknown)}")
    if n_huge := int((edge_weights(table, edges) > _MAX_WEIGHT).sum()):
        notes.append(
            f"{counted(n_huge, 'particle')} nearly as large as the image "
            f"{verb(n_huge, 'counts', 'count each')} for more than {_MAX_WEIGHT}: take larger "
            f"images{by_reader(_AS_ONE, '')}"
        )

    strays = np.array([field.micrograph for field in fields if field.by_person])
    is_stray = table["micrograph"].isin(strays) & (table["area_px2"] < _STRAY)
    if n_strays := int(is_stray.sum()):
        notes.append(
            f"{counted(n_strays, 'outline')} that a person drew or corrected "
            f"{verb(n_strays, 'has', 'have')} less than {_STRAY} pixels: if these are strays of "
            "drawing, delete them"
        )
    why = _why_uncorrected(detection, is_scaled, fields) if corrected else "as was asked for"
    if detection is None or why:
        detection = None
        notes.append(
            f"counts and sizes are not corrected for what finding misses or invents, {why}"
        )
    else:
        found = [field for field in fields if not field.by_person]
        notes += _of_detection(detection, table[_is_of(table, found)])

    every = WeightedParticles.of(table, fields, edges, detection, pixel_size_error)
    if every.finding_logs is None:
        with_any = {*table["micrograph"]}
        unknown = [each for each in fields if not (each.finding_range or each.by_person)]
        lacking = [each.micrograph for each in unknown if each.micrograph in with_any]
        if lacking and any(each.finding_range for each in fields):
            notes.append(
                f"by how much finding may be wrong is not known of {name_some(lacking)}, so no "
                "interval contains it: find them again in a new folder, or correct their outlines"
            )
        fields = [replace(each, finding_range=None) for each in fields]  # alike in all groups
    elif words := every.finding_text(column):
        notes.append(f"{words}{', which intervals contain' * (len(fields) > 1)}")
        ranges = {each.micrograph: each.finding_range for each in fields if not each.by_person}
        if vague := [name for name, own in ranges.items() if own and not own.tells_number]:
            notes.append(
                f"how many particles there are cannot be told from {name_some(vague)}: correct "
                "their outlines by hand, or leave them out"
            )
    of_finder = [field.micrograph for field in fields if not field.by_person]
    beside = field_table.set_index("micrograph")["beside"].reindex(of_finder).fillna(0)
    if n_beside := int(beside.sum()):
        notes.append(
            f"{counted(n_beside, 'particle')} of {name_some(beside.index[beside > 0].tolist())} "
            f"{verb(n_beside, 'is', 'are')} not counted, as scale bars, labels or the like, which "
            "were left out, cover them in part"
            + by_reader(": if these are sample, find them again with --keep-annotations", "")
        )
    is_own = field_table["micrograph"].isin(of_finder) & (field_table["particles"] > 0)
    doubts = field_table.loc[is_own, "doubt"].astype(object).fillna("").astype(str)
    n_shells = int(doubts.str.contains(SHELLS_OUTLINED, regex=False).sum())
    if 0 < n_shells < len(doubts):
        notes.append(
            f"in {n_shells} of {counted(len(doubts), 'image')}, {SHELLS_OUTLINED} around cores, in "
            "the others what stands out most: sizes may differ for that alone; "
            + by_reader("find them again with --set layer=outer", "correct some images, and learn")
        )
    once = [field for field in fields if field.micrograph not in grouped.copies_between]
    particles, counts = dict[str, WeightedParticles](), dict[str, tuple[Any, Any]]()
    groups = dict.fromkeys(field.group for field in fields if field.group)
    for group in ["", *groups]:
        chosen = [field for field in fields if field.group == group] if group else once
        is_own = _is_of(table, chosen)
        particles[group] = part = every.where(is_own, chosen)
        counts[group] = (
            counts_of(part, classes, matrix, ~by_model[is_own]),
            sizes_of(part, column, classes),
        )
    d50 = counts[""][1].query("by == 'number'").iloc[-1]
    if len(fields) > 1 and d50["d50"] > 0 and np.isnan([d50["d50_low"], d50["d50_high"]]).any():
        notes.append(
            "no whole interval of D50, which may be beyond all known sizes: measure more images"
        )
    return FoundCounts(*counts.pop(""), column, notes, counts, particles)


def give_size() -> str:
    """Return how to give the pixel size of images, in which particles were found without it."""
    return by_reader(
        "give it to 'hypervlad particles find' with --resume --pixel-size NM or CSV",
        "type it at “Pixel size”, and press “Use these” there",
    )


def note_of_uncounted(unscaled: Sequence[str]) -> str:
    """Say which images lack a pixel size that others have, so are not counted; how to give it."""
    return note_of_unscaled(unscaled, f"be counted with the others; {give_size()}")


def whole_text(n_whole: int, n_outlined: int) -> str:
    """Return "9 whole particles (12 outlined)": those at edges have no size."""
    return f"{counted(n_whole, 'whole particle')} ({n_outlined:,} outlined)"


def _why_uncorrected(detection: Detection | None, is_scaled: bool, fields: Sequence[Field]) -> str:
    """Return why what finding misses cannot be corrected; "" if it can."""
    if all(field.by_person for field in fields):
        return "which is not needed, as a person drew or corrected all outlines"
    how = by_reader("in any program, and count again", "and mark them as done")
    if detection is None or detection.n_fields < _MIN_FIELDS:
        return f"as no true outlines are known: correct all outlines of two or more images, {how}"
    n_true = np.count_nonzero(detection.pairs[:, 1])
    if detection.n_matched < _MIN_FOUND * n_true:
        learn = by_reader("train with them ('hypervlad particles train')", "learn again")
        return (
            f"as it finds too little, below {100 * _MIN_FOUND:.0f} %, where the true outlines are "
            f"known: {detection.numbers}; outline more images, and {learn}"
        )
    if detection.unit == "nm" and not is_scaled:
        return "which is known in nanometres, while the pixel size of some images is not"
    return ""


def _of_detection(detection: Detection, table: pd.DataFrame) -> list[str]:
    """Return what must be known about counts that are corrected by found and true outlines."""
    notes = [
        "counts and sizes are corrected for what finding misses, invents and outlines too large or "
        f"small, as in {counted(detection.n_fields, 'image')} whose true outlines are known: "
        f"{detection.numbers}"
    ]
    unit = detection.unit
    if (limit := detection.mostly_missed_below()) is not None:
        notes.append(
            f"particles below {limit:.3g} {unit} are mostly missed: nothing is known about them"
        )
    sizes = table[f"equivalent_diameter_{unit}"].to_numpy(np.float64)
    known = detection.pairs[:, 2]
    known = known[known > 0]
    is_beyond = (sizes < known.min(initial=np.inf)) | (sizes > known.max(initial=0))
    if len(sizes) and is_beyond.mean() > _MAX_BEYOND:
        notes.append(
            f"{percent(float(is_beyond.mean()))} of the particles are smaller or larger than all "
            "in those images, so their correction is a guess: correct outlines of images like these"
        )
    return notes


def _is_of(table: pd.DataFrame, fields: Sequence[Field]) -> NDArray[np.bool_]:
    return np.asarray(table["micrograph"].isin([field.micrograph for field in fields]), bool)


def _column_of(measure: str, unit: str) -> str:
    """Return the column of a measure, which may be named without its unit."""
    for name in (measure, f"{measure}_{unit}", f"{measure}_{unit}2"):
        if name in MEASURES:
            return name
    known = dict.fromkeys(re.sub("_(nm|px)2?$", "", name) for name in MEASURES)
    raise ValueError(f"no measure is called {measure!r}; there are {', '.join(known)}")
