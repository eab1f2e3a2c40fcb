"""Commands about trained classifiers: explain, evaluate, suspects, check, info."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from itertools import compress
from pathlib import Path
from typing import Annotated, Any

import typer

from hypervlad.cli import options as option
from hypervlad.cli.files import (
    check_report,
    labelled_images,
    load_classifier,
    own_pixel_size,
    say_ignored,
    write_or_print,
)
from hypervlad.cli.messages import echo, hint_at_bad_files, quoted, report_left_out, say, warn
from hypervlad.common.files import replace_when_complete
from hypervlad.common.progress import ProgressBar, is_terminal
from hypervlad.common.wording import counted, name_some, verb
from hypervlad.folders.outputs import check_file, check_table

_MAX_EXPLAINED = 24


def explain(
    model: option.ModelPath,
    paths: option.Images,
    output: Annotated[Path, option.output("PNG", "Picture to write.")],
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="Class to show the evidence for; may be repeated. By default the two most "
            "probable classes.",
        ),
    ] = None,
    pixel_size: option.PixelSize = None,
) -> None:
    """Show which regions of images are evidence for a class (red) or against it (blue).

    The picture shows at most 24 images, in the order given, those of a folder by name. The evidence
    of images that are unlike all training images, which a warning names, means little, and so do
    colours in thin borders and corners, because networks respond to edges of images. Unreadable
    images are left out, and the exit code is then 2, or 0 with --on-error skip.

    \b
    Examples:
      hypervlad explain model.hvlad image.tif -o why.png
      hypervlad explain model.hvlad new_images/ -o why.png --class fibre --class tube
    """

    from hypervlad.classify.evidence_display import EvidenceDisplay
    from hypervlad.images import ImageReadError, find_images
    from hypervlad.images.errors import unlike_training_text
    from hypervlad.pages.base import save_png

    if output.suffix.lower() != ".png":
        raise ValueError(f"{output}: the picture is a PNG file; give a name that ends in .png.")
    check_file(output, model, *paths)
    given = [file for path in paths for file in find_images(path)]
    files = list({os.path.abspath(file): file for file in given}.values())
    say_ignored(paths, model, pixel_size)
    if len(files) > _MAX_EXPLAINED:
        raise ValueError(
            f"{counted(len(files), 'image')} are too many for one picture; give at most "
            f"{_MAX_EXPLAINED}."
        )
    size = own_pixel_size(pixel_size, files)
    classifier = load_classifier(model, pixel_size=size, on_error="raise")
    labels = None if classes is None else _labels_named(classifier.classes_, classes)
    found, bad = {}, []
    for file in ProgressBar(files, unit="image", shown=option.common().verbose):
        try:
            found[file] = classifier.explain(file)
        except ImageReadError as error:
            bad.append(str(error))
    if found:
        display = EvidenceDisplay(
            list(found),
            list(found.values()),
            labels=labels,
            runner_up=True,
            read_options=classifier.encoder_.fitted_params_.read_options,
        )
        with replace_when_complete(output) as stream:
            save_png(display.plot, stream)
        if unlike := [str(file) for file, each in found.items() if each.novelty > 1]:
            warn(
                f"{unlike_training_text(len(unlike), len(found))}, so the evidence means "
                f"little: {name_some(unlike)}"
            )
        echo(f"picture: {output}")
    report_left_out(bad, len(files))


def evaluate(
    model: option.ModelPath,
    folder: option.Labelled,
    output: option.FolderToWrite,
    groups: option.Groups = None,
    pixel_size: option.PixelSize = None,
    cache: option.Cache = None,
) -> None:
    """Test a model on labelled images and write a report.

    Images with the same pixels as a training image, or another one of their class, are counted and
    left out.

    \b
    Examples:
      hypervlad evaluate model.hvlad test.csv -o report/
      hypervlad evaluate model.hvlad test_images/ -o report/ --groups groups.csv
    """
    from hypervlad.classify.reports import report_on_model
    from hypervlad.images.files import composed
    from hypervlad.images.reading import relative_names
    from hypervlad.pages.facts import words_of

    check_report(output, folder)
    data = labelled_images(folder, groups, model, pixel_size)
    data = _labelled_by_people(folder, data)
    size = own_pixel_size(pixel_size, data.images)
    classifier = load_classifier(model, cache=cache, pixel_size=size)
    known = {composed(str(label)): label for label in classifier.classes_}
    if set(known).isdisjoint(data.target_names):
        raise ValueError(
            f"{folder}: the model knows none of its classes ({', '.join(data.target_names)}), but "
            f"only {', '.join(known)}; give another model, or name them like its classes"
        )
    source = f"the {'table' if folder.is_file() else 'folder'} {folder.resolve().name}"
    how_measured = (
        f"The model {model.name} classified the images of {source}, whose "
        f"{'labels' if folder.is_file() else 'sub-folders'} are the true classes. The figures are "
        "valid only if neither these images nor others of the same samples were used to train it."
    )
    with hint_at_bad_files():
        index, _, lines = report_on_model(
            output,
            classifier,
            data.images,
            [known.get(label, label) for label in data.target.tolist()],
            groups=data.groups,
            names=relative_names(data.images, data.root),
            title=f"{model.name} on {source}",
            how_measured=words_of(classifier, [model.name, source])(how_measured),
            progress=option.common().verbose,
        )
    for line in [*lines, f"report: {index}"]:
        echo(line)


def check(
    folder: option.Labelled,
    other: Annotated[
        Path | None,
        typer.Argument(
            metavar="[OTHER]",
            help="A second folder or table: then only copies across both are reported.",
        ),
    ] = None,
    *,
    groups: option.Groups = None,
    write_groups: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Write a table of groups that keep all copies together."),
    ] = None,
    set_: option.SetReading = None,
) -> None:
    """Check labelled images before training.

    Reports unreadable files, copies (above all across classes or groups) and class counts. For two
    folders, such as training and test images, it reports the copies across them. Give the same
    reading options as to train. The exit code is 1 if something needs your attention, otherwise 0.

    \b
    Examples:
      hypervlad check images/ --groups groups.csv
      hypervlad check train.csv test_images/
      hypervlad check images/ --write-groups groups.csv
    """
    from hypervlad.folders.check import check_image_folder, compare_image_folders
    from hypervlad.images import ReadOptions

    (reading,) = option.settings(set_, ReadOptions)
    given: dict[str, Any] = {"options": ReadOptions(**reading)}
    given["verbose"] = option.common().verbose and is_terminal(sys.stderr)
    if other is not None and (groups is not None or write_groups is not None):
        raise ValueError("--groups and --write-groups are for one folder or table; give only one.")
    if write_groups is not None:
        check_file(write_groups, folder, groups)
    say_ignored([folder] if other is None else [folder, other], groups, write_groups)
    if other is None:
        report = check_image_folder(folder, groups, **given)
    else:
        report = compare_image_folders(folder, other, **given)
    echo(str(report))
    if write_groups is not None:
        report.write_groups(write_groups)
        suggested = report.suggested_groups
        n_groups = counted(len(set(suggested.values())), "group")
        n_sets = len(report.exact_copies + report.near_copies) - len(report.sets_left_apart)
        echo(
            f"\ngroups: {write_groups} ({n_groups} of {counted(len(suggested), 'file')}; "
            f"{counted(n_sets, 'set')} of copies, each in one group)"
        )
        if groups is None and report.group_counts is not None:
            say(f"to train with them, put them into the column group of {folder}")
        else:
            tables = f"{quoted(folder)} --groups {quoted(write_groups)}"
            say(f"to train with them: hypervlad train {tables}")
    if not report.ok:
        raise typer.Exit(1)


def info(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Model file, whichever command wrote it.")
    ],
) -> None:
    """Describe the contents of a model file.

    \b
    Example:
      hypervlad info model.hvlad
    """
    from hypervlad.common.modelfile import read_model
    from hypervlad.loading import load
    from hypervlad.pages.facts import model_facts

    facts = {
        "file": f"{model} ({os.path.getsize(model) / 1e6:.1f} MB)" if model.is_file() else "",
        "written by": f"hypervlad {read_model(model, header_only=True).library_version}",
        **model_facts(load(model)),
    }
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        echo(f"{name + ':':{width}}{value}")


def suspects(model: option.ModelPath, output: option.TableToWrite = None) -> None:
    """List training images whose label is probably wrong, the most suspect first.

    Each image was classified by a model that was trained without its group. The table has the
    columns path (relative to the training folder), label, likely, p_label and p_likely. Look at the
    images before you change labels: images that are difficult for the model are listed too.

    \b
    Examples:
      hypervlad suspects model.hvlad -o suspects.csv
    """
    from hypervlad.common.tables import table_as_bytes

    if output is not None:
        check_table(output, model)
    classifier = load_classifier(model)
    header = ("path", "label", "likely", "p_label", "p_likely")
    found = classifier.label_issues()
    rows = [(i.name, i.label, i.likely, round(i.p_label, 4), round(i.p_likely, 4)) for i in found]
    write_or_print(table_as_bytes(header, rows), output)
    assert classifier.held_out_ is not None  # label_issues raises otherwise
    n_held_out, n_training = len(classifier.held_out_), len(classifier.training_)
    others = n_training - n_held_out
    left_out = (
        f" ({counted(others, 'other')} not examined, because never held out)" if others else ""
    )
    suspect = verb(len(rows), "is suspect", "are suspect")
    found_of = f"{len(rows)} of {counted(n_held_out, 'label')}"
    echo(f"{found_of} {suspect}{left_out}", err=output is None)
    if output is not None:
        echo(f"table: {output}")


def _labelled_by_people(table: Path, data: Any) -> Any:
    from sklearn.utils import Bunch

    by_model = data.by_model
    n_own, n_labels = int(by_model.sum()), counted(len(by_model), "label")
    if not n_own:
        return data
    if n_own == len(by_model):
        raise ValueError(
            f"{table}: all {n_labels} are a model's own (source model), so they test nothing; "
            "label some of the images by hand"
        )
    warn(
        f"{table}: {n_own} of {n_labels} left out, because a model gave "
        f"{verb(n_own, 'it', 'them')} (source model) and would agree with itself"
    )
    return Bunch(
        images=list(compress(data.images, ~by_model)),
        target=data.target[~by_model],
        groups=None if data.groups is None else data.groups[~by_model],
        target_names=sorted(set(data.target[~by_model])),
        root=data.root,
    )


def _labels_named(known: Iterable[Any], names: Sequence[str]) -> list[Any]:
    from hypervlad.images.files import composed

    label_of = {composed(str(label)): label for label in known}
    for name in names:
        if composed(name) not in label_of:
            raise ValueError(
                f"the model has no class {name!r}; its classes: {', '.join(label_of)}."
            )
    return [label_of[composed(name)] for name in names]
