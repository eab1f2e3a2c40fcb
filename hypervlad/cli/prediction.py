"""The command ``predict``: classify images once, or as they appear in a folder."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hypervlad.cli import options as option
from hypervlad.cli.files import (
    folder_of,
    groups_of,
    images_in,
    load_classifier,
    names_of,
    own_pixel_size,
    say_ignored,
    write_or_print,
)
from hypervlad.cli.messages import echo, say, warn
from hypervlad.common.files import file_digest
from hypervlad.common.progress import can_print
from hypervlad.common.wording import counted, name_some
from hypervlad.common.workbooks import is_workbook
from hypervlad.folders.outputs import check_folders, check_page, check_sorted, check_table

if TYPE_CHECKING:
    from hypervlad.classify.sorting import ImageSorter


def predict(
    model: option.ModelPath,
    paths: option.Images,
    output: option.TableToWrite = None,
    pixel_size: option.PixelSize = None,
    cache: option.Cache = None,
    groups: option.ComparedGroups = None,
    coverage: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION",
            help="Also list the classes that an image may belong to. The list contains the true "
            "class in this fraction of new groups. For example 0.9, which takes 9 training groups.",
        ),
    ] = None,
    max_error: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION",
            help="Also mark sure answers, and say why the others are not sure. With 90 % "
            "certainty, at most this fraction of the sure answers is wrong. For example 0.05, "
            "which needs training images of at least 45 groups.",
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="HTML",
            help="Page to write, on which images can be sorted, filtered and viewed in any "
            "browser. It is one file, with pictures of up to 10,000 images, the least certain "
            "ones. The table is then not printed. If the images are in sub-folders that are all "
            "named after classes, these are shown as true labels.",
        ),
    ] = None,
    sort_into: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Copy each image into DIR/CLASS, those unlike the training images into "
            "DIR/unlike_training and, with --max-error, those without a sure answer into "
            "DIR/unsure. The table is then not printed.",
        ),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Also classify images that appear in the folders later, until Ctrl-C, and add "
            "their lines to the table. If the table exists, its images are not classified again.",
        ),
    ] = False,
) -> None:
    """Classify images, with probabilities.

    The table has the columns path, label, confidence, unlike_training, in_training, novelty, note
    (how the file differs from the training images, such as by blur or noise), image_digest (of its
    pixels, by which copies are told), p_CLASS for every class and, with --groups, group. Of a
    folder with predictions.csv, and predictions.json beside it, 'report' writes shares of classes
    with intervals, and compares groups. An image whose novelty is above 1 is unlike all training
    images, and its probabilities mean little; about 5 % of usual images are marked so too, and more
    if the model was trained on fewer than 40 groups. --coverage adds the column possible (classes,
    separated by |), --max-error adds kind (sure, ambiguous, out_of_distribution) and reason.
    Unreadable images are listed at the end; the exit code is then 2, or 0 with --on-error skip.

    --sort-into never replaces a file: if another one has the name already, the copy is called
    NAME-2. If an image cannot be copied, the exit code is 2. --watch waits for files that are still
    being written; after Ctrl-C, the same command resumes it.

    \b
    Examples:
      hypervlad predict model.hvlad image.tif
      hypervlad predict model.hvlad new_images/ --page classified.html --max-error 0.05
      hypervlad predict model.hvlad "scans/**/*.tif" --on-error skip -o predictions.csv
      hypervlad predict model.hvlad new_images/ --sort-into sorted/ --max-error 0.05
      hypervlad predict model.hvlad microscope/ --watch -o predictions.csv
    """
    from hypervlad.classify.predictions import (
        prediction_columns,
        prediction_record,
        prediction_remarks,
        predictions_as_bytes,
    )
    from hypervlad.classify.sorting import ImageSorter
    from hypervlad.classify.watching import classify_as_they_appear, settings_file
    from hypervlad.objects.results_folder import write_record
    from hypervlad.statistics.conformal import check_share

    for name, share in (("--coverage", coverage), ("--max-error", max_error)):
        if share is not None:
            check_share(name, share)
    if (output or page or sort_into) is None and not can_print(sys.stdout):
        raise ValueError("standard output is closed; write the table to a file: --output CSV")
    check_page(page, output, model, pixel_size, *paths)
    if output is not None:
        check_table(output, model, pixel_size, groups, *paths)
        if not watch and output.exists() and settings_file(output).exists():
            raise ValueError(
                f"{output} was made with --watch, and its lines would be lost; give another name, "
                f"or remove {settings_file(output).name} first."
            )
    if sort_into is not None:
        check_folders(sort_into, paths)
    is_table = output is not None and not is_workbook(output)
    record = _record_of(output) if output is not None and is_table else None
    is_watchable = is_table and (page or groups) is None and all(map(os.path.isdir, paths))
    if watch and not is_watchable:
        raise ValueError(
            "--watch takes folders and a table: --output CSV, without --page and --groups, which "
            "are of all images; give these, or leave out --watch."
        )
    if watch:
        say_ignored(paths, model, output, pixel_size)
    files = [] if watch else images_in(paths, model, output, page, pixel_size, groups)
    group_of = groups_of(files, groups, paths)
    quiet = option.common().quiet
    # One unreadable file among thousands must not stop the others: it is reported at the end.
    classifier = load_classifier(
        model,
        pixel_size=own_pixel_size(pixel_size, files),
        cache=cache,
        on_error="skip",
        verbose=not (quiet or watch),
    )
    digest = file_digest(model)  # of what was loaded, as watching may take long
    classes = classifier.classes_.tolist()
    sorter = None
    if sort_into is not None:
        sorter = ImageSorter(sort_into, classes)
        check_sorted(sorter.folders, paths)
    if watch:
        assert output is not None
        if (root := folder_of(paths)) is None:
            raise ValueError("--watch: the folders are on several drives; give each its own table.")
        n_added, bad = classify_as_they_appear(
            classifier,
            paths,
            output,
            root=root,
            model=digest,
            coverage=coverage,
            max_error=max_error,
            sorter=sorter,
            say=say,
            warn=warn,
        )
        echo(f"classified {counted(n_added, 'image')}: {output}")
        assert record is not None
        write_record(record, prediction_record(classifier, digest))
        if sorter is not None:
            _echo_sorted(sorter)
        if bad:
            unread = name_some([image.name for image in bad])
            warn(f"{counted(len(bad), 'image')} could not be read: {unread}")
        _raise_of_failures(len(bad), n_added + len(bad), sorter)
        return
    names_below = names_of(files, paths)
    found = classifier.classify(files, coverage=coverage, max_error=max_error)
    found.warn()
    positions = found.images.positions.tolist()
    for remark in prediction_remarks(found, [str(files[position]) for position in positions]):
        say(remark)
    names = [names_below[position] for position in positions]
    if output is not None or (page is None and sorter is None):
        columns = prediction_columns(found, classes)
        if group_of is not None:
            columns["group"] = [group_of[position] for position in positions]
        write_or_print(predictions_as_bytes(names, found.proba, classes, columns=columns), output)
    if output is not None:
        say(f"predictions of {counted(len(names), 'image')}: {output}")
    if record is not None:
        why = [each.reason for each in found.images.skipped]
        write_record(record, prediction_record(classifier, digest, why))
    if sorter is not None:
        sorter.add(files, names_below, found)
        _echo_sorted(sorter)
    if page is not None:
        from hypervlad.classify.page import write_classified_page

        write_classified_page(
            page,
            classifier,
            files,
            names=names_below,
            max_error=max_error,
            predictions=found,
            true_labels=_true_labels(names_below, classes),
            title=f"Images classified by {model.name}",
            progress=not quiet,
        )
        echo(f"page: {page} ({page.stat().st_size / 1e6:.1f} MB)")
    _raise_of_failures(len(files) - len(names), len(files), sorter)


def _record_of(table: Path) -> Path:
    """Return the file beside a table that says how it is made; it replaces only such a file."""
    from hypervlad.objects.results_folder import read_record

    record = table.with_suffix(".json")
    with contextlib.suppress(ValueError, OSError):
        is_own = not record.exists() or "confusion" in read_record(record)
        if is_own and table.suffix.lower() != record.suffix:
            return record
    raise ValueError(
        f"{record}: how a table was made is written into this file, which is not of earlier "
        "predictions; give the table another name, such as predictions.csv, or another folder"
    )


def _raise_of_failures(n_bad: int, n_images: int, sorter: ImageSorter | None) -> None:
    from hypervlad.images import ImageReadError

    if sorter is not None and sorter.done.failed:
        n_failed = counted(len(sorter.done.failed), "image")
        raise OSError(f"{n_failed} could not be copied (listed in the warning).")
    if n_bad and not option.common().skips:
        raise ImageReadError(
            f"{n_bad} of {counted(n_images, 'image')} could not be read (listed in the warning); "
            "the others are classified. Remove or repair them, or accept this with --on-error skip."
        )


def _true_labels(names: Sequence[str], classes: Sequence[Any]) -> list[str] | None:
    """Return the first folder of each image; None unless all of these are named after classes."""
    known = {str(label) for label in classes}
    labels = [name.split("/")[0] for name in names if "/" in name]
    return labels if len(labels) == len(names) and set(labels) <= known else None


def _echo_sorted(sorter: ImageSorter) -> None:
    for line in sorter.lines():
        echo(line, err=line.startswith("warning: "))
