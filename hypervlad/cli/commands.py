"""The commands ``train``, ``predict``, ``explain``, ``evaluate``, ``check`` and ``info``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hypervlad.cli.messages import hint_at_bad_files, plain_errors, say
from hypervlad.cli.models import (
    check_apart,
    check_cache,
    check_page,
    cut_down,
    load_classifier,
    names_under,
    new_classifier,
    prepare_file,
)
from hypervlad.cli.options import (
    Backbone,
    Cache,
    CacheSize,
    CalibrationSize,
    Device,
    Folder,
    Groups,
    Images,
    ImageSize,
    IncludeBackbone,
    MaxError,
    ModelPath,
    ModelToWrite,
    NCodewords,
    OnError,
    PixelSize,
    Quiet,
    Seed,
    Unreadable,
    UnreadableInPrediction,
    Weights,
)
from hypervlad.modelfile import replace_when_complete

if TYPE_CHECKING:
    from hypervlad.metrics import Evaluation

_MOST_EXPLAINED = 24
_MOST_PICTURES = 10_000  # that of write_classified_page: about 40 MB


@plain_errors
def train(
    folder: Folder,
    output: ModelToWrite,
    groups: Groups = None,
    backbone: Backbone = None,
    weights: Weights = None,
    image_size: ImageSize = None,
    pixel_size: PixelSize = None,
    n_codewords: NCodewords = None,
    seed: Seed = 0,
    device: Device = "auto",
    on_error: Unreadable = OnError.RAISE,
    include_backbone: IncludeBackbone = False,
    calibration_size: CalibrationSize = None,
    cache: Cache = None,
    cache_size: CacheSize = None,
    quiet: Quiet = False,
) -> None:
    """Train a model on a folder of labelled images.

    \b
    Examples:
      hypervlad train images/ -o model.hvlad
      hypervlad train images/ -o model.hvlad --groups groups.csv --seed 1
      hypervlad train images/ -o model.hvlad --backbone vgg16 --weights vgg16.safetensors
    """
    from hypervlad.datasets import load_image_folder

    prepare_file(output)
    check_cache(cache, cache_size)
    data = load_image_folder(folder, groups)
    model = new_classifier(
        seed,
        quiet,
        backbone=backbone,
        weights=weights,
        image_size=image_size,
        pixel_size=pixel_size,
        n_codewords=n_codewords,
        device=device,
        on_error=on_error.value,
        memory=cache,
    ).set_params(calibration_size=calibration_size)
    of_groups = "" if data.groups is None else f", {len(set(data.groups.tolist()))} groups"
    n_classes = len(data.target_names)
    say(quiet, f"training on {len(data.images)} images of {n_classes} classes{of_groups}")
    with hint_at_bad_files():
        model.fit(data.images, data.target, groups=data.groups)
    model.save(output, include_backbone=include_backbone)
    cut_down(cache, cache_size)
    if model.held_out_ is not None:
        say(
            quiet,
            f"right when held out: {model.held_out_.accuracy:.1%} of {len(model.held_out_)} images",
        )
    typer.echo(f"model: {output}")


@plain_errors
def predict(
    model: ModelPath,
    paths: Images,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="CSV", help="Table to write; else it is printed."),
    ] = None,
    weights: Weights = None,
    device: Device = "auto",
    on_error: UnreadableInPrediction = OnError.RAISE,
    cache: Cache = None,
    cache_size: CacheSize = None,
    coverage: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Also name the classes that an image may be of, so that the true one is among "
            "them that often: 0.9, say.",
        ),
    ] = None,
    max_error: MaxError = None,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="HTML",
            help="Page to write, on which the images are sorted, filtered and looked at: one file, "
            "for any browser. No table is printed then.",
        ),
    ] = None,
    page_pictures: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Images, the most doubtful ones, with a picture on the page: about 4 kB each.",
        ),
    ] = _MOST_PICTURES,
    quiet: Quiet = False,
) -> None:
    """Classify images, with probabilities.

    The table has the columns path, label, confidence, then p_CLASS for every class. Before these
    come, with --coverage, possible (classes, parted by |) and, with --max-error, kind (sure,
    ambiguous: between classes, out_of_distribution: unlike all training images) and reason. An
    image that cannot be read has no line in it; such images are listed at the end, with exit code 2
    unless they are accepted with --on-error skip.

    \b
    Examples:
      hypervlad predict model.hvlad image.tif
      hypervlad predict model.hvlad new_images/ -o predictions.csv --max-error 0.05
      hypervlad predict model.hvlad new_images/ -o predictions.csv
      hypervlad predict model.hvlad new_images/ --page classified.html --max-error 0.05
      hypervlad predict model.hvlad "scans/**/*.tif" --on-error skip -o predictions.csv
    """
    from hypervlad.images import ImageReadError, find_images
    from hypervlad.reports import predictions_as_bytes, write_classified_page
    from hypervlad.reports.predictions import prediction_columns

    check_page(page, output)
    if output is not None:
        prepare_file(output)
    check_cache(cache, cache_size)
    files = find_images(paths)
    # One bad file among thousands must not cost the others their labels: it is told at the end.
    classifier = load_classifier(
        model, weights, device=device, on_error="skip", quiet=quiet, cache=cache
    )
    found = classifier.classify(files, coverage=coverage, max_error=max_error)
    found.images.warn()
    cut_down(cache, cache_size)
    names = [str(files[position]) for position in found.images.positions]
    classes = list(classifier.classes_)
    columns = prediction_columns(found, classes)
    table = predictions_as_bytes(names, found.proba, classes, columns=columns)
    if output is not None:
        with replace_when_complete(output) as stream:
            stream.write(table)
        say(quiet, f"predictions of {len(names)} images: {output}")
    elif page is None:
        typer.echo(table, nl=False)
    if page is not None:
        write_classified_page(
            page,
            classifier,
            files,
            max_error=max_error,
            predictions=found,
            title=f"Images classified by {model.name}",
            max_thumbnails=page_pictures,
            progress=not quiet,
        )
        typer.echo(f"page: {page} ({page.stat().st_size / 1e6:.1f} MB)")
    n_bad = len(files) - len(names)
    if n_bad and on_error is OnError.RAISE:
        raise ImageReadError(
            f"{n_bad} of {len(files)} images could not be read, as the warning lists; the others "
            "are classified. Remove or mend them, or accept this with --on-error skip."
        )


@plain_errors
def explain(
    model: ModelPath,
    paths: Images,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PNG", help="Picture to write.")
    ],
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="Class to show the evidence for, may be repeated; if not given, the class that "
            "the model names and the next most probable one.",
        ),
    ] = None,
    weights: Weights = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Show which places of images speak for a class (red) and against it (blue).

    Thin borders and corners in strong colours say little of the sample: networks see an image's
    edge as a pattern of its own. An image that cannot be read is left out; exit code 2 then.

    \b
    Examples:
      hypervlad explain model.hvlad image.tif -o why.png
      hypervlad explain model.hvlad new_images/ -o why.png --class fibre --class tube
    """
    from tqdm import tqdm

    from hypervlad.displays import EvidenceDisplay, save_png
    from hypervlad.images import ImageReadError, find_images

    if output.suffix.lower() != ".png":
        raise ValueError(f"{output}: the picture is a PNG file; give a name that ends in .png.")
    prepare_file(output)
    files = find_images(paths)
    if len(files) > _MOST_EXPLAINED:
        raise ValueError(
            f"{len(files)} images are too many for one picture; give at most {_MOST_EXPLAINED}."
        )
    classifier = load_classifier(model, weights, device=device, on_error="raise", quiet=quiet)
    labels = None if classes is None else _labels_named(classifier.classes_, classes)
    hidden = True if quiet else None
    found, bad = {}, []
    for file in tqdm(files, unit="image", disable=hidden):
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
        typer.echo(f"picture: {output}")
    if bad:
        raise ImageReadError(f"{len(bad)} of {len(files)} images not shown: {'; '.join(bad)}")


@plain_errors
def evaluate(
    model: ModelPath,
    folder: Folder,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the report.")
    ],
    groups: Groups = None,
    weights: Weights = None,
    device: Device = "auto",
    on_error: Unreadable = OnError.RAISE,
    cache: Cache = None,
    cache_size: CacheSize = None,
    quiet: Quiet = False,
) -> None:
    """Test a model on a labelled folder and report.

    The folder should hold none of the images that the model was trained on.

    \b
    Examples:
      hypervlad evaluate model.hvlad test_images/ -o report/
      hypervlad evaluate model.hvlad test_images/ -o report/ --groups groups.csv
    """
    from hypervlad.datasets import load_image_folder
    from hypervlad.reports import report_on_model

    check_apart(output, folder)
    check_cache(cache, cache_size)
    data = load_image_folder(folder, groups)
    classifier = load_classifier(
        model, weights, device=device, on_error=on_error.value, quiet=quiet, cache=cache
    )
    index, result = report_on_model(
        output,
        classifier,
        data.images,
        data.target,
        groups=data.groups,
        names=names_under(data.root, data.images),
        title=f"{model.name} on the images of {folder.resolve().name}",
        how_measured=f"The model {model.name} classified all images of the folder "
        f"{folder.resolve().name}, whose sub-folders give the true classes. The figures hold only "
        "if none of these images, nor others of the same samples, was used to train it.",
        progress=not quiet,
    )
    cut_down(cache, cache_size)
    print_result(result, index)


@plain_errors
def check(
    folder: Folder,
    groups: Groups = None,
    write_groups: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Write groups that keep all copies together."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Look over a labelled folder before training.

    Bad files, copies (across classes or groups above all), class counts. Exit code 0 if all
    is well, 1 if something was found that should be looked at.

    \b
    Examples:
      hypervlad check images/
      hypervlad check images/ --groups groups.csv
      hypervlad check images/ --write-groups groups.csv
    """
    from hypervlad.datasets import check_image_folder

    if write_groups is not None:
        prepare_file(write_groups)
    report = check_image_folder(folder, groups, verbose=not quiet)
    typer.echo(str(report))
    if write_groups is not None:
        report.write_groups(write_groups)
        typer.echo(f"\ngroups: {write_groups}")
    if not report.ok:
        raise typer.Exit(1)


@plain_errors
def info(model: ModelPath) -> None:
    """Say what a model file holds.

    \b
    Example:
      hypervlad info model.hvlad
    """
    from hypervlad.modelfile import read_model
    from hypervlad.models import load
    from hypervlad.reports import model_facts

    facts = {
        "file": f"{model} ({os.path.getsize(model) / 1e6:.1f} MB)" if model.is_file() else "",
        "written by": f"hypervlad {read_model(model).library_version}",
        **model_facts(load(model)),
    }
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        typer.echo(f"{name + ':':{width}}{value}")


@plain_errors
def suspects(
    model: ModelPath,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="CSV", help="Table to write; else it is printed."),
    ] = None,
) -> None:
    """List training images whose label is probably wrong, the likeliest first.

    Each was judged in training by a model that had not seen its group. The table has the columns
    path (below the training folder), label, likely, p_label and p_likely. Look at them before you
    believe it: an image that is hard for the model is listed too.

    \b
    Examples:
      hypervlad suspects model.hvlad
      hypervlad suspects model.hvlad -o suspects.csv
    """
    from hypervlad.reports.files import table_as_bytes

    if output is not None:
        prepare_file(output)
    classifier = load_classifier(model, None, device="auto", on_error="raise", quiet=True)
    header = ("path", "label", "likely", "p_label", "p_likely")
    found = classifier.label_issues()
    rows = [(i.name, i.label, i.likely, round(i.p_label, 4), round(i.p_likely, 4)) for i in found]
    table = table_as_bytes(header, rows)
    if output is None:
        typer.echo(table, nl=False)
    else:
        with replace_when_complete(output) as stream:
            stream.write(table)
    assert classifier.held_out_ is not None  # or it would have been said
    n_judged, n_training = len(classifier.held_out_), len(classifier.training_)
    others = n_training - n_judged
    left_out = f" ({others} others were never held out, and not judged)" if others else ""
    typer.echo(f"{len(rows)} of {n_judged} labels are suspect{left_out}", err=output is None)
    if output is not None:
        typer.echo(f"table: {output}")


def _labels_named(known: Iterable[Any], names: Sequence[str]) -> list[Any]:
    """Return a model's labels by their names as typed."""
    label_of = {str(label): label for label in known}
    for name in names:
        if name not in label_of:
            raise ValueError(f"the model knows no class {name!r}; it knows {', '.join(label_of)}.")
    return [label_of[name] for name in names]


def print_result(result: Evaluation, index: Path) -> None:
    low, high = result.interval
    label, share = result.baseline
    typer.echo(
        f"accuracy: {result.accuracy:.3f} on {len(result.true)} images "
        f"(95 % interval {low:.3f} to {high:.3f}; always saying {label!r}: {share:.3f})"
    )
    if result.unknown:
        typer.echo(f"classes that the model does not know: {', '.join(result.unknown)}")
    typer.echo(f"report: {index}")
