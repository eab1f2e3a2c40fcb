"""The commands ``train`` and ``demo``: from a folder of images to a model, and to a report."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hypervlad.cli import options as option
from hypervlad.cli.files import (
    check_cache,
    check_file,
    check_model,
    check_report,
    labelled_images,
    load_classifier,
    own_pixel_size,
    rows_of,
)
from hypervlad.cli.messages import echo, fitting, plain_errors, say
from hypervlad.common.files import new_folder
from hypervlad.common.progress import ProgressBar
from hypervlad.common.wording import counted, verb

if TYPE_CHECKING:
    from hypervlad.classify.estimator import MicrographClassifier

N_DEMO_IMAGES = 240
_TEST_SIZE = 0.2
_N_COMPARED = 16


@plain_errors
def train(
    folder: option.Labelled,
    output: option.ModelToWrite,
    *,
    groups: option.Groups = None,
    backbone: option.Backbone = None,
    weights: option.Weights = None,
    image_size: option.ImageSize = None,
    pixel_size: option.PixelSize = None,
    pixel_sizes: option.PixelSizes = None,
    image_page: option.ImagePage = None,
    channel: option.Channel = None,
    scaling: option.Scaling = None,
    remove_banner: option.RemoveBanner = False,
    seed: option.Seed = 0,
    device: option.Device = "auto",
    on_error: option.Unreadable = option.OnError.RAISE,
    include_backbone: option.IncludeBackbone = False,
    prior: option.Prior = None,
    cache: option.Cache = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for a report on the held-out images: an HTML page with figures, mistakes "
            "and probably wrong labels, and a table of the predictions.",
        ),
    ] = None,
    quiet: option.Quiet = False,
) -> None:
    """Train a model on labelled images.

    At the end it reports how well models classified training images whose groups they were trained
    without. Expect these figures for new groups of the same kind, not for another instrument or
    kind of sample.

    \b
    Examples:
      hypervlad train images/ -o model.hvlad
      hypervlad train labels.csv -o model.hvlad
      hypervlad train images/ -o model.hvlad --groups groups.csv --report report/
      hypervlad train images/ -o model.hvlad --backbone vgg16 --weights vgg16.safetensors
    """
    from hypervlad.classify.summary import held_out_lines, noted_warnings
    from hypervlad.features.weights import check_may_be_included
    from hypervlad.images.reading import is_particle, relative_names

    reading = option.reading_fields(image_page, channel, scaling, remove_banner)
    check_model(output, folder, groups)
    if report is not None:
        check_report(report, folder)
    check_cache(cache)
    shares = _shares(prior)
    data = labelled_images(folder, groups, quiet, output, pixel_sizes)
    if pixel_sizes is not None:
        reading["pixel_size"] = own_pixel_size(None, pixel_sizes, data.images)
    n_own = int(data.by_model.sum())
    if n_own:
        echo(
            f"warning: {n_own} of {counted(len(data.images), 'label')} {verb(n_own, 'is', 'are')} "
            "a model's own (source model), and training on them repeats its mistakes; 'hypervlad "
            "review export --source person' writes the others",
            err=True,
        )
    model = new_classifier(
        data.images,
        seed,
        quiet,
        prior=shares,
        backbone=backbone,
        weights=weights,
        image_size=image_size,
        pixel_size=pixel_size,
        read_options=reading or None,
        device=device,
        on_error=on_error.value,
        memory=cache,
    )
    n_classes = counted(len(data.target_names), "class")
    unit = "particle" if is_particle(data.images[0]) else "image"
    material = [f"{counted(len(data.images), unit)} of {n_classes}"]
    if data.groups is not None:
        material.append(counted(len(set(data.groups.tolist())), "group"))
    say(quiet, f"training on {', '.join(material)}")
    if include_backbone:
        assert model.encoder is not None
        check_may_be_included(model.encoder.backbone, model.encoder.weights)
    with fitting(), noted_warnings() as notes:
        model.fit(data.images, data.target, groups=data.groups)
    model.save(output, include_backbone=include_backbone)
    for line in held_out_lines(model):
        echo(line)
    if report is not None and model.held_out_ is not None:
        from hypervlad.classify.evaluation_page import report_on_held_out

        index, _ = report_on_held_out(
            report,
            model,
            data.images,
            groups=data.groups,
            names=relative_names(data.images, data.root),
            title=f"How well {output.name} classifies held-out training {unit}s",
            notes=notes,
            progress=not quiet,
        )
        echo(f"report: {index}")
    elif report is not None:
        echo("report: none, because no image was held out")
    echo(f"model: {output}")


def _shares(values: Sequence[str] | None) -> str | dict[str, float] | None:
    if not values:
        return None
    if len(values) == 1 and "=" not in values[0]:
        return values[0]
    shares: dict[str, float] = {}
    for value in values:
        name, _, number = value.rpartition("=")
        try:
            shares[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise ValueError(f"--prior takes one rule, or CLASS=NUMBER, not {value!r}")
    if len(shares) < len(values):
        raise ValueError(f"--prior names a class twice: {', '.join(values)}")
    return shares


def new_classifier(
    images: Sequence[Any], seed: int, quiet: bool, *, prior: Any = None, **encoder_options: Any
) -> MicrographClassifier:
    """Return an unfitted classifier; options of its encoder that are None keep their defaults."""
    from hypervlad.classify.boosting.classifier import BoostedSoftmaxClassifier
    from hypervlad.classify.estimator import MicrographClassifier
    from hypervlad.classify.fitting import default_encoder
    from hypervlad.images.reading import is_particle

    given = option.given_options(encoder_options)
    if "memory" in given:
        given["memory"] = str(given["memory"])
    of_particles = is_particle(images[0])
    if of_particles and "read_options" in given:
        raise ValueError(
            "particles are read as they were found: give the reading options to 'hypervlad "
            "particles find'"
        )
    encoder = default_encoder(particles=of_particles, **given, random_state=seed, verbose=not quiet)
    boosting = BoostedSoftmaxClassifier(prior="sqrt" if prior is None else prior)
    return MicrographClassifier(encoder, boosting=boosting, random_state=seed, verbose=not quiet)


@plain_errors
def demo(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="IMAGES",
            help="Labelled images, as for train; by default synthetic TEM images.",
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="Folder for the model and the report."),
    ] = Path("demo-report"),
    *,
    groups: option.Groups = None,
    backbone: option.Backbone = None,
    weights: option.Weights = None,
    image_size: option.ImageSize = None,
    image_page: option.ImagePage = None,
    channel: option.Channel = None,
    scaling: option.Scaling = None,
    remove_banner: option.RemoveBanner = False,
    seed: option.Seed = 0,
    device: option.Device = "auto",
    on_error: option.Unreadable = option.OnError.RAISE,
    n_images: Annotated[
        int, typer.Option(metavar="N", help="Number of synthetic images.")
    ] = N_DEMO_IMAGES,
    quiet: option.Quiet = False,
) -> None:
    """Run all steps once, from images to a report.

    Hold out a fifth of the images, train on the others, save the model, load it, classify the
    held-out images, and write a report.

    \b
    Examples:
      hypervlad demo
      hypervlad demo images/ --groups groups.csv --seed 1
    """
    from hypervlad.classify.evaluation_page import report_on_model
    from hypervlad.images.reading import relative_names
    from hypervlad.pages.facts import words_of
    from hypervlad.statistics.splits import holdout_split

    reading = option.reading_fields(image_page, channel, scaling, remove_banner)
    check_report(output, folder)
    model_path = output / "model.hvlad"
    check_file(model_path)
    subject = "synthetic TEM images" if folder is None else folder.resolve().name
    if folder is None:
        folder = _synthetic_folder(output, n_images, seed, quiet)
    data = labelled_images(folder, groups, quiet)
    train_rows, test_rows = holdout_split(
        data.target, data.groups, test_size=_TEST_SIZE, random_state=seed
    )
    if not len(test_rows):
        raise ValueError(
            f"{folder}: no image can be held out, because every class has only one image or "
            "group; add images."
        )
    model = new_classifier(
        data.images,
        seed,
        quiet,
        backbone=backbone,
        weights=weights,
        image_size=image_size,
        read_options=reading or None,
        device=device,
        on_error=on_error.value,
    )
    say(quiet, f"training on {len(train_rows)} of {counted(len(data.images), 'image')}")
    training, held_out = rows_of(data, train_rows), rows_of(data, test_rows)
    with fitting():
        model.fit(training.images, training.target, groups=training.groups)
    model.save(model_path)
    loaded = load_classifier(
        model_path, weights, device=device, on_error=on_error.value, quiet=quiet
    )
    _compare(model, loaded, held_out.images[:_N_COMPARED], model_path)
    say(quiet, f"classifying the {len(test_rows)} held-out images")
    index, _, lines = report_on_model(
        output,
        loaded,
        held_out.images,
        held_out.target,
        groups=held_out.groups,
        names=relative_names(held_out.images, data.root),
        title=f"How well the model classifies {subject}",
        how_measured=words_of(loaded)(_how_held_out(len(train_rows), len(test_rows), data.groups)),
        details={"seed": seed},
        files={"model.hvlad": "the model; use it with: hypervlad predict model.hvlad images/"},
        progress=not quiet,
    )
    for line in [*lines, f"report: {index}"]:
        echo(line)
    echo(f"model: {model_path} (after saving and loading, it predicts exactly the same)")


def _synthetic_folder(output: Path, n_images: int, seed: int, quiet: bool) -> Path:
    """Create the demo's images unless they exist: the folder's name contains all settings."""
    import numpy as np
    from PIL import Image

    from hypervlad.datasets.tem import make_tem_images

    folder = output / f"synthetic-tem-{n_images}-seed{seed}"
    if folder.is_dir():
        return folder
    say(quiet, f"creating {n_images} synthetic TEM images")
    images, labels = make_tem_images(n_images, random_state=seed)
    with (
        new_folder(output),
        tempfile.TemporaryDirectory(prefix=".images-", dir=output) as temporary,
    ):
        draft = Path(temporary) / "draft"
        for number, label in enumerate(ProgressBar(labels, desc="writing", disable=quiet or None)):
            (draft / label).mkdir(parents=True, exist_ok=True)
            grey = np.round(255 * images[number]).astype(np.uint8)
            Image.fromarray(grey).save(draft / label / f"{number:04d}.png")
        os.replace(draft, folder)
    return folder


def _compare(
    model: MicrographClassifier, loaded: MicrographClassifier, images: list[Any], path: Path
) -> None:
    import numpy as np

    def predict(one: MicrographClassifier) -> Any:
        # In torch: OpenVINO, whose last digits differ, takes over once there is much to do.
        runtime = one.encoder_.runtime
        one.encoder_.set_params(runtime="torch")
        proba = one.predict_proba(images)
        one.encoder_.set_params(runtime=runtime)
        return proba

    # Sums on a GPU have no fixed order; on the CPU every bit must be the same.
    tolerance = 0.0 if model.encoder_.network().device.type == "cpu" else 1e-5
    if not np.allclose(predict(model), predict(loaded), rtol=0, atol=tolerance, equal_nan=True):
        raise RuntimeError(f"{path}: the loaded model does not predict like the saved one.")


def _how_held_out(n_train: int, n_test: int, groups: Any) -> str:
    kept = (
        ""
        if groups is None
        else " Images of one group were never split, so the test images come from samples that "
        "the model was not trained on."
    )
    return (
        f"The model was trained on {counted(n_train, 'image')} and tested on "
        f"{counted(n_test, 'other')}: about a fifth "
        f"of each class, held out at random.{kept}"
    )
