"""The command ``align-train``: a model that judges windows for ``align``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hypervlad.cli.messages import hint_at_bad_files, plain_errors, say
from hypervlad.cli.models import absolute_weights, groups_of, masks_of, prepare_file
from hypervlad.cli.options import (
    Backbone,
    Device,
    Groups,
    IncludeBackbone,
    ModelToWrite,
    OnError,
    Quiet,
    Seed,
    Unreadable,
    Weights,
)

_SIZE = (384, 512)
_TEST_SHARE = 4  # one more synthetic image for every four, to tell how good the model is


@plain_errors
def align_train(
    output: ModelToWrite,
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATHS", help="Images, folders (searched through) or patterns."),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of masks, white where fibres are aligned, each called as its image.",
        ),
    ] = None,
    synthetic: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Learn from N synthetic images of nanowires, too or alone; 60, say.",
        ),
    ] = 0,
    remove_banner: Annotated[
        bool,
        typer.Option("--remove-banner", help="Cut off the instrument's information bar."),
    ] = False,
    window: Annotated[
        int, typer.Option(metavar="PIXELS", help="Side of the windows that are judged.")
    ] = 32,
    groups: Groups = None,
    backbone: Backbone = None,
    weights: Weights = None,
    seed: Seed = 0,
    device: Device = "auto",
    on_error: Unreadable = OnError.RAISE,
    include_backbone: IncludeBackbone = False,
    quiet: Quiet = False,
) -> None:
    """Learn what aligned windows look like, for align --method MODEL.

    From images with masks of where fibres are aligned, from synthetic images whose truth is known,
    or from both.

    \b
    Examples:
      hypervlad align-train images/ --masks aligned/ -o alignment.hvlad
      hypervlad align-train --synthetic 60 -o alignment.hvlad
      hypervlad align new/ --method alignment.hvlad -o found/
    """
    from hypervlad.alignment import AlignmentClassifier, default_alignment_encoder
    from hypervlad.datasets import make_alignment_examples

    if not paths and not synthetic:
        raise ValueError("nothing to learn from: give images with --masks, or --synthetic 60")
    if synthetic and not 2 <= window <= min(_SIZE):
        raise ValueError(f"--window {window}: synthetic images have {_SIZE[0]} x {_SIZE[1]} pixels")
    _check_is_model(output)
    prepare_file(output)
    images, y, codes = _labelled(paths or [], masks, groups)
    reading = dict(default_alignment_encoder().read_options or {})
    if remove_banner:
        reading["banner"] = "remove"
    given = {"backbone": backbone, "weights": absolute_weights(weights)}
    encoder = default_alignment_encoder(
        **{name: value for name, value in given.items() if value is not None},
        device=device,
        on_error=on_error.value,
        read_options=reading,
    )
    model = AlignmentClassifier(encoder, window=window, random_state=seed, verbose=not quiet)
    n_made = synthetic + -(-synthetic // _TEST_SHARE)
    made: Any = ([], [])
    if synthetic:
        say(quiet, f"making {n_made} synthetic images")
        made = make_alignment_examples(n_made, size=_SIZE, random_state=seed)
    maps = [truth.aligned_map(window) for truth in made[1]]
    say(quiet, f"learning from {len(images)} images with masks and {synthetic} synthetic ones")
    own = [f"synthetic {i}" for i in range(synthetic)]
    with hint_at_bad_files():
        model.fit([*images, *made[0][:synthetic]], [*y, *maps[:synthetic]], groups=[*codes, *own])
    model.save(output, include_backbone=include_backbone)
    share = model.aligned_share_
    typer.echo(
        f"model: {output} ({model.n_windows_} windows of {model.n_images_} images, {share:.0%} of "
        "them aligned)"
    )
    if synthetic:
        right = model.score(made[0][synthetic:], maps[synthetic:])
        typer.echo(
            f"{right:.1%} of the windows of {n_made - synthetic} other synthetic images are judged "
            "right; of real images this says nothing"
        )


def _check_is_model(path: Path) -> None:
    """Refuse to write a model over an image or anything else that is no model."""
    from hypervlad.modelfile import read_model

    if path.is_file():
        try:
            read_model(path)
        except ValueError as error:
            raise ValueError(f"{path} is there, and no model: choose another name") from error


def _labelled(
    paths: list[str], masks: Path | None, groups: Path | None
) -> tuple[list[Path], list[Path], list[str]]:
    """Return images that have a mask, their masks, and their groups."""
    from hypervlad.images import find_images

    if not paths:
        if masks is not None or groups is not None:
            raise ValueError("--masks and --groups are of images: give these, too")
        return [], [], []
    if masks is None:
        raise ValueError("images to learn from need --masks, white where fibres are aligned")
    files = find_images(paths)
    found = masks_of(files, masks, paths)
    codes = [str(file) for file in files] if groups is None else groups_of(files, groups, paths)
    pairs = [each for each in zip(files, found, codes, strict=True) if each[1] is not None]
    if len(pairs) < len(files):
        typer.echo(f"{len(files) - len(pairs)} images without a mask are left out", err=True)
    return (
        [file for file, _, _ in pairs],
        [mask for _, mask, _ in pairs if mask is not None],
        [str(code) for _, _, code in pairs],
    )
