"""The command ``predict``: classify images once, or as they appear in a folder."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hypervlad.cli.files import (
    check_sorted,
    names_below,
    names_of,
    prepare_file,
    prepare_folder,
    say_ignored,
)
from hypervlad.cli.messages import echo, plain_errors, say
from hypervlad.cli.models import check_cache, load_classifier, reduce_cache
from hypervlad.cli.options import (
    Cache,
    CacheSize,
    Device,
    Images,
    MaxError,
    ModelPath,
    OnError,
    Quiet,
    TableToWrite,
    UnreadableInPrediction,
    Weights,
)
from hypervlad.files import exclusive_lock, file_digest, replace_when_complete
from hypervlad.wording import counted, name_some, percent, verb

if TYPE_CHECKING:
    from hypervlad.classifier import Classification
    from hypervlad.images import SkippedImage
    from hypervlad.prediction.sorting import ImageSorter
    from hypervlad.prediction.table import GrowingTable


@plain_errors
def predict(
    model: ModelPath,
    paths: Images,
    output: TableToWrite = None,
    weights: Weights = None,
    device: Device = "auto",
    on_error: UnreadableInPrediction = OnError.RAISE,
    cache: Cache = None,
    cache_size: CacheSize = None,
    coverage: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION",
            help="Also list the classes that an image may belong to, such that the list contains "
            "the true one for this fraction of images. For example 0.9.",
        ),
    ] = None,
    max_error: MaxError = None,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="HTML",
            help="Page to write, on which images can be sorted, filtered and viewed in any "
            "browser. It is one file. The table is then not printed. If the images are in "
            "sub-folders that are all named after classes, these are shown as true labels.",
        ),
    ] = None,
    page_pictures: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Number of images, the least certain ones, with a picture on the page; about 4 kB "
            "each. By default 10,000.",
        ),
    ] = None,
    sort_into: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Copy each image into DIR/CLASS, those unlike the training images into "
            "DIR/unlike_training and, with --max-error, those that are not sure into DIR/unsure. "
            "The table is then not printed.",
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
    quiet: Quiet = False,
) -> None:
    """Classify images, with probabilities.

    The table has the columns path, label, confidence, unlike_training, novelty, and p_CLASS for
    every class. An image that is unlike all training images (yes) has a novelty above 1, and its
    probabilities mean little, however high they are; about 5 % of usual images are called unlike
    too, and more if the model knows fewer than 40 groups. Before p_CLASS, --coverage adds the
    column possible (classes, separated by |) and --max-error adds kind (sure, ambiguous: between
    classes, out_of_distribution: unlike all training images) and reason. Unreadable images are left
    out of the table and listed at the end; the exit code is then 2, or 0 with --on-error skip.

    --sort-into copies and never replaces a file. The copies keep the sub-folders that the images
    have below the folders given. Where there is another file of the name, a copy is called NAME-2;
    where there is the same file, nothing is copied. Characters of a class's name that no folder can
    have are written as %2F. If a file cannot be copied, the exit code is 2.

    --watch waits until files are no longer being written. What cannot be read, or copied, is tried
    again when the file has changed, and from time to time. Ctrl-C ends it when all lines are
    written; the same command continues. The model and the options of the table are kept beside it,
    in _NAME.model, so that it has lines of one kind.

    \b
    Examples:
      hypervlad predict model.hvlad image.tif
      hypervlad predict model.hvlad new_images/ -o predictions.csv --max-error 0.05
      hypervlad predict model.hvlad new_images/ -o predictions.csv
      hypervlad predict model.hvlad new_images/ --page classified.html --max-error 0.05
      hypervlad predict model.hvlad "scans/**/*.tif" --on-error skip -o predictions.csv
      hypervlad predict model.hvlad new_images/ --sort-into sorted/ --max-error 0.05
      hypervlad predict model.hvlad microscope/ --watch -o predictions.csv
    """
    from hypervlad.images import ImageReadError, find_images
    from hypervlad.prediction.table import GrowingTable, record_of

    check_cache(cache, cache_size)
    if watch and (output is None or page is not None or not all(map(os.path.isdir, paths))):
        raise ValueError(
            "--watch takes folders and a table: --output CSV, without --page, which is written "
            "once; give these, or leave out --watch."
        )
    if page is not None:
        prepare_file(page, output, model, *paths, ends=(".html", ".htm"))
    elif page_pictures is not None:
        raise ValueError("--page-pictures needs --page, the page that shows them.")
    if output is not None:
        prepare_file(output, model, *paths)
        if not watch and output.exists() and record_of(output).exists():
            raise ValueError(
                f"{output} was made with --watch, and its lines would be lost; give another name, "
                "or remove it before."
            )
    if sort_into is not None:
        prepare_folder(sort_into, *paths)
    say_ignored(quiet, paths, model, output, page)
    files = [] if watch else find_images(paths)
    # One unreadable file among thousands must not stop the others: it is reported at the end.
    classifier = load_classifier(
        model, weights, device=device, on_error="skip", quiet=quiet or watch, cache=cache
    )
    classifier.check_calibrated(coverage=coverage, max_error=max_error)
    classes = classifier.classes_.tolist()
    classify = functools.partial(classifier.classify, coverage=coverage, max_error=max_error)
    sorter = _sorter_into(sort_into, classes, paths)
    with contextlib.ExitStack() as stack:
        if output is not None:
            lock = output.with_name(f".{output.name}.lock")
            stack.enter_context(exclusive_lock(lock, output))
        if watch and output is not None:
            stopped = stack.enter_context(_stop_on_signals())
            table = GrowingTable(
                output, classes, model=file_digest(model), coverage=coverage, max_error=max_error
            )
            bad = _watch(classify, paths, table, sorter, stopped, quiet)
            n_images = table.n_added + len(bad)
        else:
            found = classify(files)
            found.images.warn()
            bad, n_images = list(found.images.skipped), len(files)
            _say_what_is_unlike(quiet, found)
            _write_table(found, files, classes, output, quiet, printed=not (page or sort_into))
            if sorter is not None:
                sorter.add(files, names_below(files, paths), found)
    reduce_cache(cache, cache_size)
    if sorter is not None:
        _echo_sorted(sorter)
    if page is not None:
        from hypervlad.reports.classified_page import MAX_THUMBNAILS, write_classified_page

        write_classified_page(
            page,
            classifier,
            files,
            max_error=max_error,
            predictions=found,
            true_labels=_true_labels(files, paths, classes),
            title=f"Images classified by {model.name}",
            progress=not quiet,
            max_thumbnails=MAX_THUMBNAILS if page_pictures is None else page_pictures,
        )
        echo(f"page: {page} ({page.stat().st_size / 1e6:.1f} MB)")
    if sorter is not None and sorter.done.failed:
        raise OSError(f"{counted(len(sorter.done.failed), 'image')} could not be copied")
    if bad and on_error is OnError.RAISE:
        raise ImageReadError(
            f"{len(bad)} of {counted(n_images, 'image')} could not be read (listed in the "
            "warning); the others are classified. Remove or repair them, or accept this with "
            "--on-error skip."
        )


def _write_table(
    found: Classification,
    files: Sequence[Path],
    classes: Sequence[Any],
    output: Path | None,
    quiet: bool,
    *,
    printed: bool,
) -> None:
    """Write the table of images that were read to a file, or print it."""
    from hypervlad.prediction.table import record_of
    from hypervlad.reports import predictions_as_bytes
    from hypervlad.reports.predictions import prediction_columns

    names = [str(files[position]) for position in found.images.positions]
    columns = prediction_columns(found, classes)
    table = predictions_as_bytes(names, found.proba, classes, columns=columns)
    if output is not None:
        with replace_when_complete(output) as stream:
            stream.write(table)
        record_of(output).unlink(missing_ok=True)
        say(quiet, f"predictions of {counted(len(names), 'image')}: {output}")
    elif printed:
        echo(table, nl=False)


def _true_labels(
    files: Sequence[Path], paths: Sequence[str], classes: Sequence[Any]
) -> list[str] | None:
    """Return the first folder of each image; None unless all of these are named after classes."""
    folders = [name.split("/")[0] if "/" in name else None for name in names_of(files, paths)]
    known = {str(label) for label in classes}
    labels = [folder for folder in folders if folder in known]
    return labels if len(labels) == len(files) else None


def _say_what_is_unlike(quiet: bool, found: Classification) -> None:
    """Report images that are unlike the training images, and those that are training images."""
    n_images = len(found.proba)
    n_unlike, n_known = int(found.unlike_training.sum()), int(found.in_training.sum())
    if n_unlike:
        say(
            quiet,
            f"{n_unlike} of {counted(n_images, 'image')} {verb(n_unlike, 'is', 'are')} unlike all "
            "training images: probabilities of such images mean little",
        )
    if n_known:
        are = verb(n_known, "is a training image", "are training images")
        say(quiet, f"{n_known} of {counted(n_images, 'image')} {are} (the same pixels)")


def _sorter_into(
    folder: Path | None, classes: Sequence[Any], paths: Sequence[str]
) -> ImageSorter | None:
    """Return what copies images into folders of their classes, which must not be read as well."""
    from hypervlad.prediction.sorting import ImageSorter

    if folder is None:
        return None
    sorter = ImageSorter(folder, classes)
    check_sorted(sorter.folders, paths)
    return sorter


def _echo_sorted(sorter: ImageSorter) -> None:
    """Report how many images were copied into each folder."""
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
    if done.failed:
        listed = name_some([f"{file} ({reason})" for file, reason in done.failed.items()])
        n_failed = counted(len(done.failed), "image")
        echo(f"warning: {n_failed} could not be copied: {listed}", err=True)


def _watch(
    classify: Callable[[list[Path]], Classification],
    folders: Sequence[str],
    table: GrowingTable,
    sorter: ImageSorter | None,
    stopped: Callable[[], bool],
    quiet: bool,
) -> list[SkippedImage]:
    """Classify the images of folders until Ctrl-C; return those that could not be read."""
    from hypervlad.prediction.watching import watch_folders

    def process(files: list[Path], found: Classification) -> None:
        # Lines come last: what is interrupted before is done again.
        rows = list(range(len(found.proba)))
        if sorter is not None:
            rows = sorter.add(files, names_below(files, folders), found)
        read = [os.path.abspath(files[found.images.positions[row]]) for row in rows]
        table.add(read, found, rows)
        for name, row in zip(read, rows, strict=True):
            code = found.proba[row].argmax()
            say(quiet, f"{name}: {table.classes[code]}, {percent(found.proba[row, code])}")

    def unreadable(image: SkippedImage) -> None:
        echo(f"warning: {image.name}: {image.reason.removeprefix(f'{image.name}: ')}", err=True)

    if table.paths:
        say(quiet, f"{counted(len(table.paths), 'image')} already in {table.path}")
    say(quiet, f"watching {', '.join(folders)}; press Ctrl-C to stop")
    try:
        bad = watch_folders(classify, process, folders, table, stopped, unreadable=unreadable)
    finally:
        unsaved = table.close()
        if unsaved is not None:
            raise PermissionError(
                f"{table.path} could not be written, perhaps because another program has it open; "
                f"the lines that it lacks are in {unsaved}."
            )
    echo(f"classified {counted(table.n_added, 'image')}: {table.path}")
    if bad:
        names = name_some([image.name for image in bad])
        echo(f"warning: {counted(len(bad), 'image')} could not be read: {names}", err=True)
    return bad


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
