"""The commands ``extract`` and ``cache``: features of whole folders, and where they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hypervlad.cli.messages import plain_errors, say
from hypervlad.cli.models import (
    check_cache,
    check_file,
    cut_down,
    load_encoder,
    prepare_file,
)
from hypervlad.cli.options import (
    Cache,
    CacheSize,
    Device,
    OnError,
    Quiet,
    UnreadableInPrediction,
    Weights,
)

if TYPE_CHECKING:
    from hypervlad.images import SkippedImage


@plain_errors
def extract(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Folder of images, searched through; masks (*_mask.*) and hidden files are left "
            "out.",
        ),
    ],
    model: Annotated[
        Path, typer.Option("--model", "-m", metavar="MODEL", help="File written by train or demo.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Parquet file to write, NAME.parquet."),
    ],
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder that the paths in the table count from; DIR itself if not given.",
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Only files that fit, such as '*.tif' (the name) or 'day1/*' (the path below "
            "DIR), in upper or lower case; may be repeated.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="No files that fit; may be repeated."),
    ] = None,
    cache: Cache = None,
    cache_size: CacheSize = None,
    jobs: Annotated[
        int, typer.Option(metavar="N", help="Processes, which share the cores; -1: one a core.")
    ] = 1,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Images a batch, which is what a stop costs at most, in each process; by their "
            "size and the device if not given.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on where an earlier run was stopped, or else begin."),
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Read all files; otherwise one whose path, size and time of change are known is "
            "trusted to be the same.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    weights: Weights = None,
    device: Device = "auto",
    on_error: UnreadableInPrediction = OnError.RAISE,
    skipped: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV file for the images that cannot be read, all of them, and why.",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write the vectors of a folder's images to a Parquet file.

    One row an image: path below DIR (or --root), label (the first folder below DIR that it lies
    in), digest, height, width, channels, pixel_size (nm) and vector. An image that cannot be read
    has no row; such images are listed in a warning, with exit code 2 unless they are accepted with
    --on-error skip. What is finished waits in _FILE.parts: stopped at any moment, the same command
    with --resume goes on. _FILE.images keeps which files the vectors are of.

    \b
    Examples:
      hypervlad extract images/ -m model.hvlad -o features.parquet
      hypervlad extract images/ -m model.hvlad -o features.parquet --jobs 4 --resume
      hypervlad extract share/ -m model.hvlad -o features.parquet --cache cache/ --include "*.tif"
    """
    from hypervlad.extraction import extract_features, plan_extraction
    from hypervlad.images import ImageReadError

    check_cache(cache, cache_size)
    for file in (output, skipped):
        if file is not None:
            check_file(file)
    if skipped is not None and skipped.resolve() in (output.resolve(), model.resolve()):
        raise ValueError(
            f"--skipped {skipped}: would overwrite another file; give a name of its own."
        )
    if not folder.is_dir() and folder.exists():
        raise ValueError(f"{folder}: a file; give its folder, and its name with --include.")
    if jobs == 0:
        raise ValueError("--jobs 0: give a number of processes, or -1 for one a core.")
    encoder = load_encoder(model, weights, device=device, cache=cache)
    if batch_size is not None:
        encoder.set_params(batch_size=batch_size)
    wanted, unwanted = tuple(include or ()), tuple(exclude or ())
    if dry_run:
        plan = plan_extraction(
            folder,
            encoder,
            out=output,
            root=root,
            include=wanted,
            exclude=unwanted,
            resume=resume,
            verify=verify,
        )
        typer.echo(str(plan))
        return
    done = extract_features(
        folder,
        encoder,
        out=output,
        root=root,
        include=wanted,
        exclude=unwanted,
        n_jobs=jobs,
        resume=resume,
        verify=verify,
        verbose=not quiet,
    )
    if skipped is not None:
        prepare_file(skipped)
        _write_skipped(skipped, done.skipped)
    cut_down(cache, cache_size)
    say(quiet, str(done))
    typer.echo(f"features: {output}")
    if done.skipped and on_error is OnError.RAISE:
        raise ImageReadError(
            f"{len(done.skipped)} images could not be read, as the warning lists; the others are "
            "in the table. Remove or mend them, or accept this with --on-error skip."
        )


def _write_skipped(path: Path, skipped: Sequence[SkippedImage]) -> None:
    from hypervlad.modelfile import replace_when_complete
    from hypervlad.reports.files import table_as_bytes

    rows = [(image.name, image.reason) for image in skipped]
    with replace_when_complete(path) as stream:
        stream.write(table_as_bytes(["image", "reason"], rows))


@plain_errors
def cache(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="What --cache or memory= have filled.")
    ],
    limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Cut down to this, such as 20GB: what was not used for longest goes first.",
        ),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove everything.")] = False,
) -> None:
    """Say what a cache holds; cut it down or clear it.

    \b
    Examples:
      hypervlad cache cache/
      hypervlad cache cache/ --limit 20GB
      hypervlad cache cache/ --clear
    """
    from hypervlad.cache import CacheFolder, bytes_of

    if clear and limit is not None:
        raise ValueError("--clear leaves nothing to cut down: give it or --limit.")
    kept = CacheFolder(folder)
    if clear:
        kept.clear()
    elif limit is not None:
        kept.reduce(bytes_of(limit))
    usage = kept.usage()
    typer.echo(f"{folder}: {usage.n_entries} entries, {usage.n_bytes / 1e6:.1f} MB")
