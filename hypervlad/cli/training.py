"""The commands ``train`` and ``demo``: from a folder of images to a model, and to a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hypervlad.cli import options as option
from hypervlad.cli.files import check_cache, check_report, labelled_images, own_pixel_size
from hypervlad.cli.messages import echo, fitting, say, warn
from hypervlad.common.wording import counted, verb
from hypervlad.folders.outputs import check_model

if TYPE_CHECKING:
    from hypervlad.classify.estimator import MicrographClassifier


def train(
    folder: option.Labelled,
    output: option.ModelToWrite,
    *,
    groups: option.Groups = None,
    backbone: option.Backbone = None,
    weights: option.Weights = None,
    pixel_size: option.PixelSize = None,
    resample_to: Annotated[
        float | None,
        typer.Option(
            metavar="NM",
            help="Resample images of known pixel size to this many nanometres per pixel, instead "
            "of resizing them to a square of image_size pixels.",
        ),
    ] = None,
    seed: option.Seed = 0,
    include_backbone: option.IncludeBackbone = False,
    cache: option.Cache = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for a report on the held-out images: an HTML page with figures, mistakes "
            "and probably wrong labels, and a table of the predictions.",
        ),
    ] = None,
    set_: option.SetReading = None,
) -> None:
    """Train a model on labelled images.

    At the end it reports how well models classified training images whose groups they were trained
    without. Expect these figures for new groups of the same kind, not for another instrument or
    kind of sample.

    Of the parameters for --set, image_size is the side of the square that images are resized to,
    and prior the shares of the classes expected among new images: training (those of the training
    images), uniform (equal ones, which finds most images of rare classes), sqrt (in between, the
    default), or a number for each class, as below.

    \b
    Examples:
      hypervlad train images/ -o model.hvlad
      hypervlad train labels.csv -o model.hvlad
      hypervlad train images/ -o model.hvlad --groups groups.csv --report report/
      hypervlad train images/ -o model.hvlad --backbone vgg16 --weights vgg16.safetensors
      hypervlad train images/ -o model.hvlad --set image_size=448 --set banner=remove
      hypervlad train images/ -o model.hvlad --set "prior={'flat': 0.9, 'pitted': 0.1}"
    """
    chosen = _settings(set_)
    check_model(output, folder, groups)
    if report is not None:
        check_report(report, folder)
    check_cache(cache)
    data = labelled_images(folder, groups, output, pixel_size)
    if n_own := int(data.by_model.sum()):
        warn(
            f"{n_own} of {counted(len(data.images), 'label')} {verb(n_own, 'is', 'are')} "
            "a model's own (source model), and training on them repeats its mistakes; 'hypervlad "
            "review export --source person' writes the others"
        )
    model = _new_classifier(
        data.images,
        chosen,
        seed,
        own_pixel_size(pixel_size, data.images),
        backbone=backbone,
        weights=weights,
        pixel_size=resample_to,
        memory=None if cache is None else str(cache),
    )
    _fit(model, data, output, report, include_backbone)


def _settings(set_: Sequence[str] | None) -> list[dict[str, Any]]:
    """Return parameters of the classifier, its encoder and learner, and those of reading."""
    from hypervlad.classify.estimator import MicrographClassifier
    from hypervlad.classify.fitting import default_encoder, default_learner
    from hypervlad.images import ReadOptions

    parts = MicrographClassifier, default_encoder(), default_learner(), ReadOptions
    found = option.settings(set_, *parts)
    ReadOptions(**found[-1])
    return found


def _new_classifier(
    images: Sequence[Any], chosen: list[dict[str, Any]], seed: int, size: Any = None, **given: Any
) -> MicrographClassifier:
    """Return an unfitted classifier; of `given`, its encoder gets what is not None."""
    from hypervlad.classify.estimator import MicrographClassifier
    from hypervlad.classify.fitting import default_encoder, default_learner
    from hypervlad.images.reading import is_particle

    own, encoding, boosting, reading = chosen
    reading |= option.given_options(pixel_size=size)
    of_particles = is_particle(images[0])
    if of_particles and reading:
        raise ValueError(
            "particles are read as they were found: give the reading options to 'hypervlad "
            "particles find'"
        )
    common = option.common()
    seeded: dict[str, Any] = {"random_state": seed, "verbose": common.verbose}
    encoding |= option.given_options(**given, read_options=reading)
    encoder = default_encoder(
        particles=of_particles,
        **encoding | seeded,
        device=common.device,
        on_error=common.on_error.value,
    )
    return MicrographClassifier(encoder, boosting=default_learner(**boosting), **own | seeded)


def _fit(
    model: MicrographClassifier,
    data: Any,
    output: Path,
    report: Path | None,
    include_backbone: bool = False,
) -> None:
    from hypervlad.classify.reports import report_on_held_out
    from hypervlad.classify.summary import held_out_lines, noted_warnings
    from hypervlad.features.weights import check_may_be_included
    from hypervlad.images.reading import is_particle, relative_names

    unit = "particle" if is_particle(data.images[0]) else "image"
    material = f"{counted(len(data.images), unit)} of {counted(len(data.target_names), 'class')}"
    if data.groups is not None:
        material += f", {counted(len(set(data.groups.tolist())), 'group')}"
    say(f"training on {material}")
    if include_backbone:
        assert model.encoder is not None
        check_may_be_included(model.encoder.backbone, model.encoder.weights)
    with fitting(), noted_warnings() as notes:
        model.fit(data.images, data.target, groups=data.groups)
    model.wrong_outlines_ = data.get("wrong_outlines")
    if (chosen := data.get("chosen")) is not None:
        model.chosen_ = chosen[model.training_.positions]
    model.save(output, include_backbone=include_backbone)
    for line in held_out_lines(model):
        echo(line)
    if report is not None and model.held_out_ is not None:
        index, _ = report_on_held_out(
            report,
            model,
            data.images,
            groups=data.groups,
            names=relative_names(data.images, data.root),
            title=f"How well {output.name} classifies held-out training {unit}s",
            notes=notes,
            progress=option.common().verbose,
        )
        echo(f"report: {index}")
    elif report is not None:
        echo("report: none, because no image was held out")
    echo(f"model: {output}")


def demo(
    output: Annotated[Path, option.output("DIR", "Folder for the model and the report.")] = Path(
        "demo-report"
    ),
    *,
    n_images: Annotated[int, typer.Option(metavar="N", help="Number of images.")] = 240,
    set_: option.SetReading = None,
) -> None:
    """Try it on synthetic TEM images of four classes: train a model, and write a report.

    It does what 'hypervlad train' does with --report, and the images stay in the folder.

    \b
    Examples:
      hypervlad demo
      hypervlad predict demo-report/model.hvlad demo-report/synthetic-tem-240/ --page page.html
    """
    from hypervlad.datasets.tem import write_tem_folder

    chosen, model = _settings(set_), output / "model.hvlad"
    check_report(output)
    check_model(model)
    folder = output / f"synthetic-tem-{n_images}"
    if not folder.is_dir():
        say(f"creating {n_images} synthetic TEM images")
        write_tem_folder(folder, n_images, random_state=0)
    data = labelled_images(folder, None)
    _fit(_new_classifier(data.images, chosen, 0), data, model, output)
