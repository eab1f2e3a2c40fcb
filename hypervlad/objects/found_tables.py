"""Tables of a folder of found particles, which people edit and `FoundFolder` writes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.progress import by_reader
from hypervlad.common.tables import (
    CHOSEN_SOURCE,
    MODEL_SOURCE,
    PERSON_SOURCE,
    TEXT_COLUMNS,
    Journal,
    original_cell,
    text_of_table,
    write_table,
)
from hypervlad.common.wording import counted, name_some, verb, warn_user
from hypervlad.images.files import is_below
from hypervlad.images.pixels import are_copies
from hypervlad.objects.detection import Detection, FindingRange
from hypervlad.objects.fields import Field
from hypervlad.objects.measures import in_reading_order, measure
from hypervlad.objects.particle import NOT_A_PARTICLE, Outlines

if TYPE_CHECKING:
    import pandas as pd

FIELD_COLUMNS = (
    *("micrograph", "group", "sample", "particles", "height", "width", "pixel_size_nm"),
    *("annotations", "annotated_px", "beside", "removed", "doubt", "note", "image_digest"),
    *("outlines_digest", "corrected_in", "scale_bar_error", *FindingRange._fields),
    *("polarity", "polarity_shown"),
)
_NEEDED = ("micrograph", "height", "width", "pixel_size_nm", "outlines_digest")
FILE_SOURCE = "outlines"  # of classes: a file of corrected outlines
TRAINING_SOURCE = "training"  # another label with which the classifier was trained
_OF_TRAINING = TRAINING_SOURCE, CHOSEN_SOURCE
_OF_PEOPLE = PERSON_SOURCE, FILE_SOURCE, *_OF_TRAINING
_SAVE_AS_CSV = "; if a spreadsheet saved it, save it as CSV UTF-8"
# An outline with these measures is the one that was measured before, whatever its number is now.
_SAME = ["area_px2", "top", "left", "centroid_row", "centroid_column"]
_DIGITS = 3  # of these, after the point; spreadsheets keep fewer than were written


def read_table(path: Path, columns: Sequence[str], *others: str) -> pd.DataFrame:
    """Read a table that a person may have edited; a ValueError if it lacks columns or numbers.

    Besides these columns, it may have `others`. What is there beside them is a person's: texts,
    which are written as they were.
    """
    if not path.exists():
        how = by_reader("continue it with --resume (in Python, resume=True)", "find again")
        raise ValueError(f"{path}: missing, as finding was stopped; {how}")
    try:
        text, separator = text_of_table(path, name_some(columns))
        content = text.encode("utf-8", "surrogateescape")
        for decimal in "." if separator == "," else ",.":
            table = _parsed(content, separator, decimal, (*columns, *others))
            numbers = (name for name in table if _is_number(name, (*columns, *others)))
            wrong = [name for name in numbers if table[name].dtype.kind not in "biuf"]
            if not wrong:
                break
    except (ValueError, LookupError) as error:
        raise ValueError(f"{path}: not a table ({error}){_SAVE_AS_CSV}") from error
    if lacking := [name for name in columns if name not in table]:
        raise ValueError(f"{path}: no column is called {name_some(lacking)}{_SAVE_AS_CSV}")
    if wrong:
        raise ValueError(f"{path}: {wrong[0]} has cells that are no numbers{_SAVE_AS_CSV}")
    return table


def _parsed(content: bytes, separator: str, decimal: str, own: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    # Before 3.1, which warns of this argument, pandas read a third of the last digits wrong.
    is_old = tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1)
    exact: dict[str, Any] = {"float_precision": "round_trip"} if is_old else {}
    header = pd.read_csv(io.BytesIO(content), sep=separator, nrows=0)
    texts = [name for name in header if not _is_number(original_cell(name), own)]
    table = pd.read_csv(
        io.BytesIO(content),
        sep=separator,
        decimal=decimal,
        dtype=dict.fromkeys(texts, str),
        keep_default_na=False,
        na_values=[""],
        **exact,
    )
    if table.empty:  # the type of a column without cells is unknown
        table = table.astype({name: str if name in texts else float for name in table})
    for name in texts:
        table[name] = table[name].map(original_cell, na_action="ignore")
    table.columns = table.columns.map(original_cell)
    return table


def _is_number(name: str, own: Sequence[str]) -> bool:
    """Return whether a column is of numbers, or truth values."""
    is_own = name in (*own, "confidence", "left_out") or name.startswith("p_")
    return is_own and name not in TEXT_COLUMNS


def as_cells(table: pd.DataFrame) -> list[list[Any]]:
    """Return the rows of a table, with None for what is unknown."""
    cells: list[list[Any]] = table.astype(object).where(table.notna(), None).to_numpy().tolist()
    return cells


def _known(value: Any) -> Any:
    """Return the value of a cell, or None."""
    return None if value is None or value != value else value


def held_out_confusion(classifier: Any) -> tuple[NDArray[np.int64] | None, list[str]]:
    """Return the held-out numbers by true (rows) and predicted class, and classes that lack any.

    A classifier is wrong about more of the images that were chosen for a review than of others:
    they are left out. Of copies, one of each class counts. If none of a class is left, or nothing
    was held out, there is no matrix.
    """
    held_out, chosen = (getattr(classifier, each, None) for each in ("held_out_", "chosen_"))
    if held_out is None:
        return None, []
    classes = [str(label) for label in classifier.classes_]
    matrix, n = np.zeros((len(classes),) * 2, np.int64), np.zeros(len(classes), int)
    usual = np.arange(len(held_out.codes))
    usual = usual if chosen is None else usual[~chosen[held_out.rows]]
    np.add.at(n, held_out.codes, 1)
    if (training := getattr(classifier, "training_", None)) is not None:
        digests = np.array(training.digests.texts())[held_out.rows[usual]]
        usual = usual[~are_copies(digests.tolist(), held_out.codes[usual])]
    answers = held_out.codes[usual], held_out.proba.argmax(axis=1)[usual]
    np.add.at(matrix, answers, 1)
    lacking = np.array(classes)[(n > 0) & (matrix.sum(axis=1) == 0)].tolist()
    return None if lacking else matrix, lacking


def write_confusion(path: Path, classes: Sequence[str], classifier: Any) -> None:
    """Write the `held_out_confusion`, if there is any; if classes lack images, warn of it."""
    matrix, lacking = held_out_confusion(classifier)
    if lacking:
        warn_user(
            f"{path}: not written, so counts are not corrected for wrong classes: all held-out "
            f"particles of {name_some(lacking)} are of a review, which chooses the doubtful ones; "
            "train with some that are chosen at random"
        )
    if matrix is not None:
        lines = [[name, *row] for name, row in zip(classes, matrix.tolist(), strict=True)]
        write_table(path, ["true", *classes], lines)


def read_confusion(path: Path, classes: Sequence[str]) -> NDArray[np.int64] | None:
    """Return the matrix that `write_confusion` wrote, None if there is none."""
    if not path.exists():
        return None
    table = read_table(path, ("true",))
    names = table["true"].tolist()
    if sorted(names) != sorted(classes) or sorted(table) != sorted(["true", *names]):
        raise ValueError(
            f"{path}: not of the classes in particles.csv; run 'hypervlad particles classify' again"
        )
    # A person may have moved columns of either table.
    cells = table.set_index("true").loc[[*classes], [*classes]]
    return np.asarray(cells.astype(np.float64), np.int64)


def write_detection(path: Path, detection: Detection) -> None:
    """Write a line for each particle of `detection`, and an empty one for a field without any."""
    own = [f"true_diameter_{detection.unit}", f"found_diameter_{detection.unit}"]
    rows = [[int(k), true or "", found or ""] for k, true, found in detection.pairs.tolist()]
    empty = {*range(detection.n_fields)} - {number for number, *_ in rows}
    write_table(path, ["field", *own], [*rows, *([number, "", ""] for number in sorted(empty))])


def read_detection(path: Path) -> Detection | None:
    """Return what `write_detection` wrote, None if there is none."""
    if not path.exists():
        return None
    table = read_table(path, ["field"])
    unit = "nm" if "true_diameter_nm" in table else "px"
    columns = ["field", f"true_diameter_{unit}", f"found_diameter_{unit}"]
    pairs = read_table(path, columns)[columns].fillna(0).to_numpy(np.float64)
    fields, pairs[:, 0] = np.unique(pairs[:, 0], return_inverse=True)
    return Detection(pairs[pairs[:, 1:].any(axis=1)], unit, len(fields))


# --- what models and people wrote beside measures -------------------------------------------------


def classes_of(table: pd.DataFrame) -> list[str]:
    """Return the classes of the classifier, in the order of its probabilities."""
    return [name[2:] for name in table if name.startswith("p_")]


def is_left_out(table: pd.DataFrame) -> NDArray[np.bool_]:
    return np.asarray(_column(table, "left_out").fillna(0) != 0, bool)


def is_from(table: pd.DataFrame, *sources: str) -> NDArray[np.bool_]:
    """Return which particles have a class from one of these sources."""
    return np.asarray(_column(table, "source").isin(sources), bool)


def is_by_model(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which particles have the class of the highest probability, and no person's."""
    classes = classes_of(table)
    if not classes or "class" not in table:
        return np.zeros(len(table), bool)
    proba = table[[f"p_{name}" for name in classes]].to_numpy(np.float64)
    best = np.array(classes, object)[np.nan_to_num(proba, nan=-1).argmax(axis=1)]
    best[np.isnan(proba).any(axis=1)] = None  # the classifier has not judged it
    return np.asarray((table["class"] == best) & ~is_from(table, *_OF_PEOPLE), bool)


def is_by_person(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which particles have a class that no model gave."""
    return np.asarray(_column(table, "class").notna() & ~is_by_model(table), bool)


def _column(table: pd.DataFrame, name: str) -> pd.Series[Any]:
    import pandas as pd

    return table[name] if name in table else pd.Series(None, table.index, dtype=object)


def wrong_outlines(table: pd.DataFrame) -> dict[str, list[int]]:
    """Return the numbers of the outlines that are no particles, by their fields."""
    return _numbers(table[_column(table, "class") == NOT_A_PARTICLE])


def cut_off(table: pd.DataFrame) -> dict[str, list[int]]:
    """Return the numbers of the particles that margins or information bars cut, by their fields."""
    is_inside = (table[["top", "left"]] > 0).all(axis=1)
    for end, side in (("bottom", "height"), ("right", "width")):
        is_inside &= table[end] < table[f"field_{side}"]
    return _numbers(table[is_inside & table["touches_edge"].astype(bool)])


def _numbers(table: pd.DataFrame) -> dict[str, list[int]]:
    by_field = table.groupby("micrograph")["particle"]
    return {str(name): numbers.tolist() for name, numbers in by_field}


def check_replaceable(path: Path, table: pd.DataFrame) -> None:
    """Raise if a table has classes of a person, which would be written over."""
    if n_own := int((is_by_person(table) & ~is_from(table, *_OF_PEOPLE)).sum()):
        raise ValueError(
            f"{path}: a person gave {counted(n_own, 'class')}, which would be "
            "lost; rename the table, for example to labels.csv, which 'hypervlad train' reads"
        )
    if n_reviewed := int(is_from(table, PERSON_SOURCE).sum()):
        warn_user(
            f"{path}: {counted(n_reviewed, 'class')} of a review "
            f"{verb(n_reviewed, 'is', 'are')} replaced; write them again with 'hypervlad "
            "review export'"
        )


def with_marks(table: pd.DataFrame, before: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return the table of a field with what an earlier one of it has beside its measures.

    Also how many particles that a person had left out or given a class are gone from it.
    """
    import pandas as pd

    is_given = is_left_out(before) | is_by_person(before)
    own, earlier = (
        pd.MultiIndex.from_frame(each[_SAME].round(_DIGITS)) for each in (table, before)
    )
    is_one = ~earlier.duplicated(keep=False)
    added = [column for column in before if column not in table]
    old = before.loc[is_one, added].set_axis(earlier[is_one]).reindex(own).set_axis(table.index)
    return table.join(old), int((is_given & ~(is_one & earlier.isin(own))).sum())


def read_gone(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Return the particles of images that were gone, unless `table` has these images again.

    Without a classifier's answers, as the table may have those of another one.
    """
    gone = read_table(path, list(measure([]))) if path.exists() else table[:0]
    if classes := classes_of(gone):
        gone["class"] = gone["class"].mask(is_by_model(gone))
        answers = ["confidence", *(f"p_{name}" for name in classes)]
        gone = gone.drop(columns=answers, errors="ignore")
    return gone[~gone["micrograph"].isin(table["micrograph"])]


def joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the particles of all tables, of which some may be empty."""
    import pandas as pd

    return pd.concat([each for each in tables if len(each)] or tables[:1])


def training_labels(classifier: Any) -> dict[str, tuple[str, str, NDArray[np.float64]]]:
    """Return the source and label of each training image, and held-out answers, by its digest.

    They are NaN if it was not held out. Of these, the classifier itself is nearly always right.
    Outlines that people called wrong in training have the label "not a particle".
    """
    known = getattr(classifier, "training_", None)
    if known is None:
        return {}
    proba = np.full((len(known), len(classifier.classes_)), np.nan)
    if (held_out := classifier.held_out_) is not None:
        proba[held_out.rows] = held_out.proba
    digests = (digest.tobytes().hex() for digest in known.digests.digests)
    wrong = TRAINING_SOURCE, NOT_A_PARTICLE, np.full(len(classifier.classes_), np.nan)
    found = dict.fromkeys(getattr(classifier, "wrong_outlines_", None) or (), wrong)
    if (chosen := getattr(classifier, "chosen_", None)) is None:
        chosen = np.zeros(len(known), bool)
    sources = np.where(chosen, CHOSEN_SOURCE, TRAINING_SOURCE).tolist()
    own = zip(sources, map(str, known.labels), proba, strict=True)
    return found | dict(zip(digests, own, strict=True))


def with_answers(
    table: pd.DataFrame, classes: Sequence[str], proba: NDArray[Any], known: NDArray[Any]
) -> pd.DataFrame:
    """Return a table with a classifier's answers (n, n_classes), without those of an earlier one.

    A class that a file of corrected outlines has given stays, without a confidence. Others are the
    `known` sources and labels (2, n) of the classifier's training, "" where there is none.
    """
    is_of_file, (source, labels) = is_from(table, FILE_SOURCE), known
    source = np.where(is_of_file, FILE_SOURCE, source)
    own = _column(table, "class").where(is_of_file, labels)
    best = np.array(classes, object)[np.nan_to_num(proba).argmax(axis=1)]
    earlier = [*(f"p_{name}" for name in classes_of(table)), "class", "confidence", "source"]
    table = table.drop(columns=earlier, errors="ignore")
    table["class"] = np.where(source == "", best, own)
    table["confidence"] = np.where(source != "", np.nan, proba.max(axis=1, initial=0))
    for name, column in zip(classes, proba.T, strict=True):
        table[f"p_{name}"] = column
    return table.assign(source=source) if (source != "").any() else table


def with_review(table: pd.DataFrame, given: NDArray[Any]) -> pd.DataFrame:
    """Return a table with the classes (n,) that people gave, "" where they gave none."""
    is_given = given != ""
    sources = {name: is_from(table, name) for name in _OF_PEOPLE}
    sources |= {PERSON_SOURCE: is_given | sources[PERSON_SOURCE], MODEL_SOURCE: is_by_model(table)}
    return table.assign(
        **{
            "source": np.select([*sources.values()], [*sources], ""),
            "class": table["class"].mask(is_given, given),
            "confidence": _column(table, "confidence").mask(is_given),
        }
    )


def measured(
    outlines: Outlines, name: str, before: pd.DataFrame | None
) -> tuple[pd.DataFrame, int]:
    """Measure the outlines of a field, and return what `with_marks` does, with given classes."""
    table, n_lost = measure(outlines.as_particles(name)), 0
    if before is not None:
        table, n_lost = with_marks(table, before)
    given = {each.label: each.class_name for each in outlines if each.class_name}
    return with_classes(table, given) if given else table, n_lost


def warn_of_changes(path: Path, lost: Mapping[str, int], others: Sequence[str]) -> None:
    """Warn of what people had written of particles that are gone, and of `others` pixel sizes."""
    if others:
        warn_user(
            f"the outlines of {counted(len(others), 'image')} state another pixel size, nm, "
            f"than the image or what was given for it, which is used: {name_some(others)}"
        )
    if n_lost := sum(lost.values()):
        warn_user(
            f"{counted(n_lost, 'particle')} of {name_some([name for name in lost if lost[name]])} "
            f"that a person left out or gave a class {verb(n_lost, 'has', 'have')} no such outline "
            f"any more: repeat it in {path} where outlines were changed"
        )


def warn_of_replaced(path: Path, table: pd.DataFrame, answered: pd.DataFrame) -> None:
    """Warn of classes of a training that other answers have replaced."""
    is_other = is_from(table, *_OF_TRAINING) & (table.get("class") != answered["class"])
    if len(own := table[is_other]):
        cells = zip(own["micrograph"], own["particle"], own["class"], strict=True)
        was = name_some([f"{name}, particle {k} ({label})" for name, k, label in cells])
        warn_user(
            f"{path}: {counted(len(own), 'class')} of earlier training, or a person's since, "
            f"{verb(len(own), 'is', 'are')} replaced: {was}"
        )


def with_classes(table: pd.DataFrame, given: Mapping[int, str]) -> pd.DataFrame:
    """Return the table of a field with the classes that a person gave in a file of outlines."""
    classes = table["particle"].map(given)
    own = {"class": classes.fillna(_column(table, "class"))}
    own["source"] = _column(table, "source").mask(classes.notna(), FILE_SOURCE)
    return table.assign(**own)


# --- their order ----------------------------------------------------------------------------------


def in_order(table: pd.DataFrame, fields: pd.DataFrame) -> pd.DataFrame:
    """Sort particles by their fields and numbers, with the groups and samples of the fields."""
    names = fields["micrograph"].tolist()
    place: Mapping[str, int] = {name: number for number, name in enumerate(names)}
    table = table[table["micrograph"].isin(place)]
    table = table.iloc[np.lexsort((table["particle"], table["micrograph"].map(place)))].copy()
    for column in ("group", "sample"):
        if fields[column].notna().any():
            of_field = dict(zip(names, fields[column], strict=True))
            table[column] = table["micrograph"].map(of_field)
    table["left_out"] = is_left_out(table).astype(int)
    return in_reading_order(table)


def _range_of(row: Any) -> FindingRange | None:
    factors = [_known(getattr(row, name)) for name in FindingRange._fields]
    return None if None in factors else FindingRange(*map(float, factors))


# --- the files of fields --------------------------------------------------------------------------


class FieldTable:
    """``fields.csv``, with one row per field; while a run goes on, ``fields.jsonl`` has new ones.

    Both are written before the outlines of a field, which contain less than its row.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._journal = path, Journal(path)
        #: Keep a row until the table is written, which takes the longer, the more rows it has.
        self.add = self._journal.add

    @cached_property
    def table(self) -> pd.DataFrame:
        found = read_table(self.path, _NEEDED, *FIELD_COLUMNS).astype({"pixel_size_nm": float})
        if strange := [str(name) for name in found["micrograph"] if not is_below(name)]:
            raise ValueError(f"{self.path}: no images are called {name_some(strange)}")
        return found.reindex(columns=list(dict.fromkeys([*FIELD_COLUMNS, *found])))

    def fields(self) -> list[Field]:
        try:
            return [
                Field(
                    row.micrograph,
                    (int(row.height), int(row.width)),
                    _known(row.pixel_size_nm),
                    _known(row.group),
                    _known(row.sample),
                    int(_known(row.annotated_px) or 0),
                    _known(row.corrected_in) is not None,
                    float(_known(row.scale_bar_error) or 0),
                    _range_of(row),
                )
                for row in self.table.itertuples()
            ]
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.path}: damaged ({error})") from error

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the rows by their images; what a stopped run has left is in the table then."""
        found = list[dict[str, Any]]()
        if self.path.exists():
            found = [dict(zip(self.table, row, strict=True)) for row in as_cells(self.table)]
        new = self._journal.read(lambda row: (row["micrograph"], dict(row)))
        rows = {row["micrograph"]: row for row in found} | dict(new)
        if new:
            self.write(rows.values())
        self._journal.remove()
        return rows

    def read_again(self) -> None:
        """Forget what was read: the table may have been edited, or a run may have been stopped."""
        vars(self).pop("table", None)
        if self._journal.path.exists():
            self.rows()

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        rows = list(rows)
        columns = dict.fromkeys([*FIELD_COLUMNS, *(name for row in rows for name in row)])
        cells = [[row.get(name) for name in columns] for row in rows]
        write_table(self.path, list(columns), cells)
        self._journal.remove()
        vars(self).pop("table", None)
