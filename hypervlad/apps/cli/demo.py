"""The command ``demo``: from a folder of images to a report."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hypervlad.apps.cli import options as option
from hypervlad.apps.cli.classification import print_result
from hypervlad.apps.cli.files import check_file, check_report, labelled_images, rows_of
from hypervlad.apps.cli.messages import echo, fitting, plain_errors, say
from hypervlad.apps.cli.models import load_classifier, new_classifier
from hypervlad.common.files import new_folder
from hypervlad.common.progress import ProgressBar
from hypervlad.common.wording import counted

if TYPE_CHECKING:
    from hypervlad.models.classifier import MicrographClassifier

N_DEMO_IMAGES = 240
_TEST_SIZE = 0.2
_N_COMPARED = 16


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
    from hypervlad.evaluation.splits import holdout_split
    from hypervlad.images.reading import relative_names
    from hypervlad.results.reports.evaluation import report_on_model

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
        how_measured=_how_held_out(len(train_rows), len(test_rows), data.groups),
        details={"seed": seed},
        files={"model.hvlad": "the model; use it with: hypervlad predict model.hvlad images/"},
        progress=not quiet,
    )
    print_result(lines, index)
    echo(f"model: {model_path} (after saving and loading, it predicts exactly the same)")


def _synthetic_folder(output: Path, n_images: int, seed: int, quiet: bool) -> Path:
    """Create the demo's images, unless they exist: the folder's name contains all settings."""
    import numpy as np
    from PIL import Image

    from hypervlad.data.synthetic import make_tem_images

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
