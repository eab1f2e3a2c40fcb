"""The commands ``review start``, ``export`` and ``retrain``, and ``app``."""

from __future__ import annotations

import _thread
import contextlib
import importlib.util
import logging
import os
import signal
import subprocess
import sys
import webbrowser
from enum import StrEnum
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated

import typer

from hypervlad.cli import options as option
from hypervlad.cli.files import (
    folder_of,
    found_folder,
    images_in,
    labelled_images,
    load_classifier,
    own_pixel_size,
    write_or_print,
)
from hypervlad.cli.messages import echo, fitting, quoted, say
from hypervlad.common.progress import ProgressBar, can_print, is_terminal
from hypervlad.common.wording import counted, reason_of
from hypervlad.folders.outputs import check_folders, check_model, check_table

if TYPE_CHECKING:
    from hypervlad.app.project import Project
    from hypervlad.app.store import Queue


class LabelSource(StrEnum):
    """Who gave the labels to export."""

    ALL = "all"
    PERSON = "person"
    MODEL = "model"


_EXAMPLE = "hypervlad-example"
_LINK = "HYPERVLAD_LINK"  # in the environment of a window

QueueFolder = Annotated[
    Path, typer.Argument(metavar="QUEUE", help="Folder that 'review start' wrote.")
]
_PAGE_NEEDS = ("flask", "waitress", "roifile", "xlsxwriter")


def start(
    model: option.ModelPath,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATHS",
            help="Images, folders (with their sub-folders) or patterns; or one folder of found "
            "particles.",
        ),
    ],
    output: Annotated[Path, option.output("DIR", "Folder for the queue.")],
    training: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGES",
            help="Folder or table that the model was trained on, so that the page can show the "
            "nearest training images and not only their names.",
        ),
    ] = None,
    max_error: Annotated[
        float,
        typer.Option(
            help="Accepted fraction of wrong answers among the sure ones; with 90 % certainty, no "
            "more are wrong."
        ),
    ] = 0.05,
    pixel_size: option.PixelSize = None,
    cache: option.Cache = None,
) -> None:
    """Label the images that a model is sure of, and queue the others for manual labelling.

    The most informative images come first: uncertain ones and ones unlike all training images, with
    near-duplicates far apart. The images are not copied, so do not move them.

    Of a folder that 'hypervlad particles find' wrote, the particles are queued.

    \b
    Examples:
      hypervlad review start model.hvlad new/ -o queue/ --training images/ --max-error 0.02
      hypervlad review start classes.hvlad found/ -o queue/
    """
    from hypervlad.app.creation import start_queue
    from hypervlad.app.database import check_free
    from hypervlad.images import ImageReadError
    from hypervlad.statistics.conformal import check_share

    check_free(output)
    check_share("--max-error", max_error)
    if training is not None and not training.exists():
        raise ValueError(f"--training {training}: no such folder or table")
    found = found_folder(paths)
    files = images_in(paths, model, pixel_size) if found is None else []
    n, unit = (len(files), "image") if found is None else (len(found.table), "particle")
    size = own_pixel_size(pixel_size, files)
    classifier = load_classifier(
        model, pixel_size=size, cache=cache, on_error="skip", verbose=False
    )
    with ProgressBar(total=n, unit=unit, shown=option.common().verbose) as bar:
        started = start_queue(
            classifier,
            files if found is None else found,
            output,
            root=folder_of(paths),
            training=training,
            model_file=model,
            max_error=max_error,
            progress=bar.update,
        )
    say(f"labelled by the model: {counted(started.n_sure, unit)}")
    say(f"to be labelled by hand: {counted(started.n_doubtful, unit)}")
    echo(f"queue: {output}")
    if started.n_doubtful:
        say(f"next: hypervlad app {quoted(output)}")
    if started.n_unreadable and not option.common().skips:
        raise ImageReadError(
            f"{started.n_unreadable} of {counted(n, unit)} could not be read (listed "
            "in the warning); the others are in the queue. Accept this with --on-error skip."
        )


def correct(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER",
            help="Folder of images, of results that 'hypervlad particles find' wrote, or of a "
            "queue that 'hypervlad review start' wrote; by default "
            f"{_EXAMPLE}, of drawn particles to try it with, which is made here.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        option.output("DIR", "Folder for results of images, by default FOLDER-results, beside it."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port of 127.0.0.1; by default the last one of this folder, or a free one.",
        ),
    ] = None,
    open_page: Annotated[
        bool | None,
        typer.Option(
            "--open/--no-open",
            help="Open the page, in a browser or, with pywebview, in a window; by default only in "
            "a terminal.",
        ),
    ] = None,
) -> None:
    """Measure particles and fibres, find defects and classify in a browser, until Ctrl-C.

    A page for this computer only does with a folder of images, without a shell, what the commands
    'particles', 'diameters', 'align', 'defects', 'train', 'predict', 'review' and 'report' do. Each
    task runs beside the page, and can be stopped and continued; its results are in a sub-folder.

    Of images, particles are found as 'particles find' does. Delete, draw, grow, merge and split
    outlines, redraw edges, and set classes. Each edit is saved at once in the folder, where
    commands such as 'particles count' and 'train' read it; edits.sqlite there has all edits, so
    that they can be undone, also later. Mark images whose outlines are all right as done: only
    these are learnt, and counted as true.

    Of a queue, the uncertain images are labelled, and all labels looked at and corrected. There may
    be several windows. The link contains a secret and stays the same for a folder, so that open
    windows continue when the command is started again.

    \b
    Examples:
      hypervlad app images/
      hypervlad app found/
      hypervlad app queue/ --port 8765 --no-open
      hypervlad app
    """
    if missing := [name for name in _PAGE_NEEDS if importlib.util.find_spec(name) is None]:
        raise ImportError(
            f'the page needs {" and ".join(missing)}: pip install "hypervlad[review]"'
        )
    from hypervlad.app.database import FILE
    from hypervlad.app.project import Project
    from hypervlad.app.store import Queue
    from hypervlad.objects.found_outlines import EDITS

    if folder is None:
        folder = Path(_EXAMPLE)
        if not folder.exists():
            from hypervlad.datasets.particles import write_particle_folder

            say(f"drawing particles to try it with, in {folder}")
            write_particle_folder(folder, 6, random_state=0)
    if (is_queue := (folder / FILE).exists()) and output is None:
        _serve(Queue(folder), port, open_page)
        return
    if not is_queue and found_folder([str(folder)]) is None and not (folder / EDITS).exists():
        results = output or Path(f"{os.path.abspath(folder)}-results")
        check_folders(results, [str(folder)], tables=[EDITS])
        project = Project(results, folder)
    elif output is not None:
        raise ValueError(f"{folder} has results already; give --output with a folder of images")
    else:
        if not os.access(folder, os.W_OK):
            raise ValueError(f"{folder}: no permission to write edits here; copy it, and open that")
        project = Project(folder)
    say(f"results: {project.folder}")
    _serve(project, port, open_page)


def _serve(kept: Queue | Project, port: int | None, open_page: bool | None) -> None:
    from hypervlad.app.server import serve as serve_page

    logging.getLogger("waitress").setLevel(logging.ERROR)  # it warns of a busy server
    is_opened = is_terminal(sys.stdout) if open_page is None else open_page
    in_window = is_opened and importlib.util.find_spec("webview") is not None

    def announce(link: str) -> None:
        echo(f"open {link}")
        if can_print(sys.stdout):
            sys.stdout.flush()
        usual = opened.fact("port")
        if f":{usual}/" not in link:
            say(
                f"(the usual port {usual} is in use: is the {kept.kind.name} already being served?)"
            )
        say(f"{'close the window' if in_window else 'press Ctrl-C'} to stop; everything is saved")
        if in_window:
            # The window's end is that of Ctrl-C, which programs in the background ignore.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            Thread(target=_show_window, args=[link], daemon=True).start()
        elif is_opened:
            webbrowser.open(link)

    with contextlib.closing(kept) as opened:
        serve_page(opened, port=port, ready=announce)


def _show_window(link: str) -> None:
    """Show a page in a window, and end with it; where there can be none, in a browser."""
    # Its toolkit may abort the process that it is in, for example without a display. Other users
    # of the computer see arguments, but not the environment.
    code = f"from {__name__} import _window; _window()"
    environment = os.environ | {_LINK: link, "PYWEBVIEW_LOG": "CRITICAL"}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, env=environment
    ) as window:
        is_closed = window.wait() == 0
    if is_closed:
        _thread.interrupt_main()
    else:
        say("no window can be shown: press Ctrl-C to stop")
        webbrowser.open(link)


def _window() -> None:
    """Show a window, in a process that ends with its stdin, as its parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the parent
    Thread(target=lambda: os._exit(len(os.read(0, 1))), daemon=True).start()
    try:
        import webview

        webview.settings["ALLOW_DOWNLOADS"] = True
        webview.create_window("hypervlad", os.environ[_LINK], width=1280, height=900)
        webview.start()
    except Exception as error:
        sys.exit(reason_of(error))


def export(
    queue: QueueFolder,
    output: Annotated[
        Path,
        option.output(
            "FILE",
            "Table to write, NAME.csv or NAME.xlsx; or the folder of the particles, to correct it.",
        ),
    ],
    source: Annotated[
        LabelSource, typer.Option(help="Whose labels to write: those of people, or the model's.")
    ] = LabelSource.ALL,
) -> None:
    """Write the labels to a table: path, label, source, confidence, file.

    The source is person or model, the confidence is that of the model, and the file is the full
    path. Uncertain images that are not yet labelled have no row. Evaluate and train models on the
    labels of people: those of the model repeat its mistakes.

    Of particles, the columns are micrograph, particle, class, source and confidence; save the table
    in their folder to train with it. If you give that folder itself, the classes that people gave
    are written into its particles.csv, and outlines labelled "not a particle" are moved from
    outlines/ to removed/.

    \b
    Examples:
      hypervlad review export queue/ -o by_hand.csv --source person
      hypervlad review export queue/ -o found/
    """
    from hypervlad.app.database import FILE
    from hypervlad.app.labels import export_labels, write_classes
    from hypervlad.app.store import Queue
    from hypervlad.objects.found_files import OWN_FILES

    if output.is_dir():
        if source is LabelSource.MODEL:
            raise ValueError(f"{output} gets the classes of people; give --source with a table")
        with contextlib.closing(Queue(queue)) as opened:
            n_classes, n_removed = write_classes(opened, output)
        echo(f"classes given by people: {counted(n_classes, 'particle')}")
        echo(f"removed: {counted(n_removed, 'wrong outline')}")
        echo(f"table: {output / 'particles.csv'}")
        return
    with contextlib.closing(Queue(queue)) as opened:
        # Of particles, the folder's own table has their measures too.
        own = map(output.with_name, OWN_FILES if found_folder([str(output.parent)]) else ())
        check_table(output, queue / FILE, *own)
        table, n_open = export_labels(opened, source.value)
    write_or_print(table, output)
    if n_open:
        say(f"{counted(n_open, 'uncertain image')} not yet labelled, so without a row")
    echo(f"labels: {output}")


def retrain(
    queue: QueueFolder,
    training: Annotated[
        Path,
        typer.Option(
            metavar="IMAGES", help="The training images: a folder or a table, as for train."
        ),
    ],
    output: option.ModelToWrite,
    model: Annotated[
        Path | None,
        typer.Option(metavar="MODEL", help="Model to retrain; by default that of the queue."),
    ] = None,
    groups: option.Groups = None,
    keep_queue: Annotated[
        bool, typer.Option("--keep-queue", help="Keep the old model's answers in the queue.")
    ] = False,
    pixel_size: option.PixelSize = None,
    cache: option.Cache = None,
) -> None:
    """Retrain the model with the manual labels, and compare it with the old one.

    It first reports how well held-out training images are classified, as train does. Then it
    compares the two models on the manually labelled images, for the new model by held-out answers.
    That favours the new model: the old one was uncertain about these images.

    The table of groups has a row for each training image, and for images of the queue that belong
    together or to training images. Every other image is its own group. Without a table, training
    images keep the groups of the old model. The new model's answers replace the queue's old ones.

    \b
    Examples:
      hypervlad review retrain queue/ --training images/ --groups groups.csv -o better.hvlad
    """
    from hypervlad.app.particles import queued_training
    from hypervlad.app.retraining import compare, gather, refit, remaining, requeue
    from hypervlad.app.store import Queue
    from hypervlad.classify.summary import held_out_lines

    with contextlib.closing(Queue(queue)) as opened:
        check_model(output, training, groups)
        size = own_pixel_size(pixel_size)
        old = load_classifier(model or _model_of(opened), pixel_size=size, cache=cache)
        old.check_calibrated(max_error=float(opened.fact("max_error", "0.05") or 0.05))
        old.encoder = old.encoder_  # options of the command line also apply to the next fit
        data = labelled_images(training, None, groups, pixel_size)
        data.images = queued_training(training, data)
        material = gather(opened, data, groups=groups, model=old)
        n_images, n_groups = len(material.images), len(set(material.groups.tolist()))
        in_groups = f", {counted(n_groups, 'group')}" if n_groups < n_images else ""
        by_hand = f"{material.by_person.sum()} of them labelled by hand{in_groups}"
        say(f"training on {counted(n_images, 'image')}, {by_hand}")
        with fitting():
            new = refit(old, material)
        new.chosen_ = material.chosen[new.training_.positions]
        new.wrong_outlines_ = material.wrong_outlines
        new.save(output, include_backbone=old.encoder_.network_state_ is not None)
        for line in held_out_lines(new):
            echo(line)
        for line in compare(new, old.classes_.tolist(), material).lines():
            echo(line)
        if new.held_out_ is None:
            say("no image could be held out, so no answer is sure: the queue is unchanged")
            echo(f"model: {output}")
            return
        new.encoder_.set_params(on_error="skip", verbose=False)
        n_left = len(remaining(opened))
        with ProgressBar(total=n_left, unit="image", shown=option.common().verbose) as bar:
            left = requeue(opened, new, material, output, write=not keep_queue, progress=bar.update)
        echo(f"{left} ({'the queue is unchanged' if keep_queue else 'the queue is updated'})")
    echo(f"model: {output}")


def _model_of(queue: Queue) -> Path:
    from hypervlad.app.database import QueueError

    noted = queue.fact("model")
    if noted is None or not Path(noted).is_file():
        raise QueueError(
            f"{queue.folder}: its model is no longer at {noted}; give its file with --model"
        )
    return Path(noted)
