"""The command ``predict``: classify images once, or as they appear in a folder."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hypervlad.cli import options as option
from hypervlad.cli.files import (
    check_cache,
    check_file,
    check_folders,
    check_page,
    check_sorted,
    folder_of,
    images_in,
    load_classifier,
    names_of,
    own_pixel_size,
    say_ignored,
    write_or_print,
)
from hypervlad.cli.messages import echo, plain_errors, say
from hypervlad.common.files import exclusive_lock, file_digest, new_folder
from hypervlad.common.progress import can_print
from hypervlad.common.wording import counted, name_some, percent, verb

if TYPE_CHECKING:
    from hypervlad.classify.answers import Classification
    from hypervlad.classify.estimator import MicrographClassifier
    from hypervlad.classify.sorting import ImageSorter


@plain_errors
def predict(
    model: option.ModelPath,
    paths: option.Images,
    output: option.TableToWrite = None,
    weights: option.ModelWeights = None,
    pixel_size: option.OwnPixelSize = None,
    pixel_sizes: option.PixelSizes = None,
    device: option.Device = "auto",
    on_error: option.UnreadableLeftOut = option.OnError.RAISE,
    cache: option.Cache = None,
    coverage: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION",
            help="Also list the classes that an image may belong to. The list contains the true "
            "class in this fraction of new groups. For example 0.9, which takes 9 training groups.",
        ),
    ] = None,
    max_error: option.MaxError = None,
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
    quiet: option.Quiet = False,
) -> None:
    """Classify images, with probabilities.

    The table has the columns path, label, confidence, unlike_training, novelty, and p_CLASS for
    every class. An image whose novelty is above 1 is unlike all training images, and its
    probabilities mean little; about 5 % of usual images are marked so too, and more if the model
    was trained on fewer than 40 groups. --coverage adds the column possible (classes, separated by
    |), --max-error adds kind (sure, ambiguous, out_of_distribution) and reason. Unreadable images
    are listed at the end; the exit code is then 2, or 0 with --on-error skip.

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
    from hypervlad.classify.page import write_classified_page
    from hypervlad.classify.predictions import (
        prediction_columns,
        prediction_remarks,
        predictions_as_bytes,
    )
    from hypervlad.classify.sorting import ImageSorter
    from hypervlad.classify.watching import settings_file
    from hypervlad.statistics.conformal import check_share

    for name, share in (("--coverage", coverage), ("--max-error", max_error)):
        if share is not None:
            check_share(name, share)
    if (output or page or sort_into) is None and not can_print(sys.stdout):
        raise ValueError("standard output is closed; write the table to a file: --output CSV")
    check_page(page, output, model, *paths)
    if output is not None:
        check_file(output, model, *paths)
        if not watch and output.exists() and settings_file(output).exists():
            raise ValueError(
                f"{output} was made with --watch, and its lines would be lost; give another name, "
                f"or remove {settings_file(output).name} first."
            )
    if sort_into is not None:
        check_folders(sort_into, paths)
    check_cache(cache)
    is_watchable = output is not None and page is None and all(map(os.path.isdir, paths))
    if watch and not is_watchable:
        raise ValueError(
            "--watch takes folders and a table: --output CSV, without --page, which is written "
            "once; give these, or leave out --watch."
        )
    if watch:
        say_ignored(quiet, paths, model, output, pixel_sizes)
    files = [] if watch else images_in(paths, quiet, model, output, page, pixel_sizes)
    # One unreadable file among thousands must not stop the others: it is reported at the end.
    classifier = load_classifier(
        model,
        weights,
        device=device,
        on_error="skip",
        quiet=quiet or watch,
        cache=cache,
        pixel_size=own_pixel_size(pixel_size, pixel_sizes, files),
    )
    classes = classifier.classes_.tolist()
    sorter = None
    if sort_into is not None:
        sorter = ImageSorter(sort_into, classes)
        check_sorted(sorter.folders, paths)
    if watch:
        assert output is not None
        n_images, n_bad = _watch(
            classifier, file_digest(model), paths, output, coverage, max_error, sorter, quiet
        )
        _raise_of_failures(n_bad, n_images, sorter, on_error)
        return
    names_below = names_of(files, paths)
    found = classifier.classify(files, coverage=coverage, max_error=max_error)
    found.images.warn()
    for difference in found.differences:
        echo(f"warning: {difference}", err=True)
    positions = found.images.positions.tolist()
    for remark in prediction_remarks(found, [str(files[position]) for position in positions]):
        say(quiet, remark)
    names = [names_below[position] for position in positions]
    if output is not None or (page is None and sorter is None):
        columns = prediction_columns(found, classes)
        write_or_print(predictions_as_bytes(names, found.proba, classes, columns=columns), output)
    if output is not None:
        say(quiet, f"predictions of {counted(len(names), 'image')}: {output}")
    if sorter is not None:
        sorter.add(files, names_below, found)
        _echo_sorted(sorter)
    if page is not None:
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
    _raise_of_failures(len(files) - len(names), len(files), sorter, on_error)


def _raise_of_failures(
    n_bad: int, n_images: int, sorter: ImageSorter | None, on_error: option.OnError
) -> None:
    from hypervlad.images import ImageReadError

    if sorter is not None and sorter.done.failed:
        n_failed = counted(len(sorter.done.failed), "image")
        raise OSError(f"{n_failed} could not be copied (listed in the warning).")
    if n_bad and on_error is option.OnError.RAISE:
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
    folder, done = sorter.folder, sorter.done
    n_images, n_renamed = done.counts.total(), len(done.renamed)
    listed = ", ".join(f"{name} {n}" for name, n in sorted(done.counts.items()))
    present = f"; {done.n_present} there before" if done.n_present else ""
    echo(f"sorted into {folder}: {counted(n_images, 'image')} ({listed}){present}")
    if n_renamed:
        echo(
            f"{counted(n_renamed, 'copy')} with a number in the name, because there is another "
            f"file of the name, such as {done.renamed[0]}"
        )
    if done.elsewhere:
        n_elsewhere = len(done.elsewhere)
        echo(
            f"warning: {counted(n_elsewhere, 'image')} {verb(n_elsewhere, 'lies', 'lie')} in "
            "another folder too, from an earlier run; delete what is no longer true: "
            f"{name_some([str(file) for file in done.elsewhere])}",
            err=True,
        )
    if done.failed:
        listed = name_some([f"{file} ({reason})" for file, reason in done.failed.items()])
        n_failed = counted(len(done.failed), "image")
        echo(f"warning: {n_failed} could not be copied: {listed}", err=True)


def _watch(
    classifier: MicrographClassifier,
    model: str,
    folders: Sequence[str],
    output: Path,
    coverage: float | None,
    max_error: float | None,
    sorter: ImageSorter | None,
    quiet: bool,
) -> tuple[int, int]:
    """Classify images until Ctrl-C; return how many there were, and how many unreadable ones."""
    from hypervlad.classify.watching import GrowingTable, watch_folders
    from hypervlad.images import SkippedImage

    classifier.check_calibrated(coverage=coverage, max_error=max_error)
    classes = classifier.classes_.tolist()
    folder = folder_of(folders)
    if folder is None:
        raise ValueError("--watch: the folders are on several drives; give each its own table.")

    def classify(files: list[Path]) -> Classification:
        return classifier.classify(files, coverage=coverage, max_error=max_error)

    said = set[str]()

    def classified(files: list[Path], found: Classification) -> Sequence[int]:
        replace(found.images, skipped=()).warn()  # `unreadable` reports those
        for difference in new_differences(found.differences, said):
            echo(f"warning: {difference}; later ones are not reported", err=True)
        rows: Sequence[int] = range(len(found.proba))
        if sorter is not None:
            failed = set(sorter.done.failed)
            rows = sorter.add(files, names_of(files, folders), found)
            for file, reason in sorter.done.failed.items():
                if file not in failed:
                    echo(f"warning: {file} could not be copied: {reason}", err=True)
        for row in rows:
            label, proba = classes[found.proba[row].argmax()], found.proba[row].max()
            is_unlike = found.unlike_training[row]
            kind = "blank" if found.images.is_blank[row] else "unlike all training images"
            notes = [kind] if is_unlike else []
            notes += ["a training image"] if found.in_training[row] else []
            note = f" ({', '.join(notes)})" if notes else ""
            say(quiet, f"{files[found.images.positions[row]]}: {label}, {percent(proba)}{note}")
        return rows

    def unreadable(image: SkippedImage) -> None:
        echo(f"warning: {image.name}: {image.reason.removeprefix(f'{image.name}: ')}", err=True)

    lock = output.with_name(f".{output.name}.lock")
    with new_folder(output.parent), exclusive_lock(lock, output), _stop_on_signals() as stopped:
        table = GrowingTable(
            output,
            classes,
            folder=folder,
            model=model,
            pixel_size=classifier.encoder_.fitted_params_.read_options.pixel_size,
            coverage=coverage,
            max_error=max_error,
        )
        if table.paths:
            say(quiet, f"{counted(len(table.paths), 'image')} already in {output}")
        say(quiet, f"watching {', '.join(folders)}; press Ctrl-C to stop")
        try:
            bad = watch_folders(
                classify, folders, table, stopped, classified=classified, unreadable=unreadable
            )
        finally:
            table.close()
    echo(f"classified {counted(table.n_added, 'image')}: {output}")
    if sorter is not None:
        _echo_sorted(sorter)
    if bad:
        names = name_some([image.name for image in bad])
        echo(f"warning: {counted(len(bad), 'image')} could not be read: {names}", err=True)
    return table.n_added + len(bad), len(bad)


def new_differences(differences: Sequence[str], said: set[str]) -> list[str]:
    """Return the differences whose kind, the text after the numbers, was not said before."""
    kinds = {difference: difference.rpartition(": ")[2] for difference in differences}
    new = [difference for difference, kind in kinds.items() if kind not in said]
    said.update(kinds.values())
    return new


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C and SIGTERM into a request to stop; a second Ctrl-C stops at once."""
    requests = list[int]()

    def request(number: int, _frame: Any) -> None:
        if requests:
            raise KeyboardInterrupt
        requests.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, request) for number in numbers]
    try:
        yield lambda: bool(requests)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
