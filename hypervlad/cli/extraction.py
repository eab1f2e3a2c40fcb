"""The commands ``extract``, ``cache``, ``scale`` and ``workbook``, of whole folders."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from hypervlad.cli import options as option
from hypervlad.cli.files import (
    images_in,
    load_model,
    names_of,
    own_pixel_size,
    say_ignored,
    write_or_print,
)
from hypervlad.cli.messages import echo, report_left_out, say, warn
from hypervlad.common.files import replace_when_complete
from hypervlad.common.wording import counted, name_some
from hypervlad.common.workbooks import is_workbook, workbook_of
from hypervlad.folders.outputs import check_file, check_page, check_table


def extract(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Folder of images, with its sub-folders; masks (*_mask.*) and hidden files are "
            "left out.",
        ),
    ],
    model: Annotated[
        Path,
        typer.Option(
            "--model", "-m", metavar="MODEL", help="File of a classifier, or of an encoder."
        ),
    ],
    output: Annotated[Path, option.output("FILE", "Parquet file to write, NAME.parquet.")],
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder that the paths in the table are relative to; by default DIR.",
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Only files that match, such as '*.tif' (compared with the name) or 'day1/*' "
            "(compared with the path below DIR); case is ignored. May be repeated.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Leave out files that match; may be repeated."),
    ] = None,
    cache: option.Cache = None,
    jobs: Annotated[
        int, typer.Option(metavar="N", help="Number of processes; -1 for one per core.")
    ] = 1,
    resume: option.Resume = False,
    pixel_size: option.PixelSize = None,
    skipped: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="CSV file to write with all unreadable images and the reasons."
        ),
    ] = None,
) -> None:
    """Write the feature vectors of a folder's images to a Parquet file.

    One row per image: path below DIR (or --root), label (its first folder below DIR), digest,
    height, width, channels, pixel_size (nm) and vector. Unreadable images have no row; they are
    listed in a warning, and the exit code is then 2, or 0 with --on-error skip. Finished parts are
    kept in _FILE.parts: if the command is stopped at any moment, repeat it with --resume.
    _FILE.images records the files that the vectors were computed from.

    \b
    Examples:
      hypervlad extract images/ -m model.hvlad -o features.parquet --jobs 4 --resume
      hypervlad extract share/ -m model.hvlad -o features.parquet --cache cache/ --include "*.tif"
    """
    from hypervlad.common.tables import write_table
    from hypervlad.extraction.extract import extract_features
    from hypervlad.images import ImageReadError

    if skipped is not None and skipped.resolve() in (output.resolve(), model.resolve()):
        raise ValueError(
            f"--skipped {skipped}: would overwrite the output or the model; give another name."
        )
    for file in (output, skipped):
        if file is not None:
            check_file(file, pixel_size)
    if not folder.is_dir() and folder.exists():
        raise ValueError(f"{folder} is a file; give its folder, and its name with --include.")
    if jobs == 0:
        raise ValueError("--jobs 0: give a number of processes, or -1 for one per core.")
    say_ignored([folder], model, output, skipped, pixel_size)
    size = own_pixel_size(pixel_size)
    loaded = load_model(model, object, "hypervlad train", cache=cache, pixel_size=size)
    encoder = getattr(loaded, "encoder_", loaded)
    arguments: dict[str, Any] = {"out": output, "root": root, "resume": resume}
    arguments |= {"include": tuple(include or ()), "exclude": tuple(exclude or ())}
    verbose = option.common().verbose
    done = extract_features(folder, encoder, **arguments, n_jobs=jobs, verbose=verbose)
    if skipped is not None:
        rows = [(image.name, image.reason) for image in done.skipped]
        write_table(skipped, ["image", "reason"], rows)
    say(str(done))
    echo(f"features: {output}")
    if done.skipped and not option.common().skips:
        raise ImageReadError(
            f"{counted(len(done.skipped), 'image')} could not be read (listed in the warning); the "
            "others are in the table. Remove or repair them, or accept this with --on-error skip."
        )


def cache(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder given to --cache or memory=.")
    ],
    limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Reduce it to this size, such as 20GB, or 0 to clear it; the least recently used "
            "entries are removed first.",
        ),
    ] = None,
) -> None:
    """Print the size of a cache, or reduce it.

    \b
    Examples:
      hypervlad cache cache/ --limit 20GB
      hypervlad cache cache/ --limit 0
    """
    from hypervlad.features.cache import CacheFolder, parse_size

    kept = CacheFolder(folder)
    if limit is not None:
        kept.reduce(parse_size(limit))
    usage = kept.usage()
    echo(f"{folder}: {counted(usage.n_entries, 'entry')}, {usage.n_bytes / 1e6:.1f} MB")


def scale(
    paths: option.Images,
    output: option.TableToWrite = None,
    scale_bar: Annotated[
        str | None,
        typer.Option(
            metavar="LENGTH",
            help='What the scale bars say, such as "10 um"; or a table (CSV) with the columns '
            "folder and scale_bar, of which the deepest folder of an image counts.",
        ),
    ] = None,
    read_labels: Annotated[
        bool,
        typer.Option(
            "--read-labels",
            help="Read the labels of the bars, and propose pixel sizes, which are not used before "
            "they are accepted. Takes --page, and the extra ocr of the installation.",
        ),
    ] = False,
    accept_labels: Annotated[
        bool,
        typer.Option(
            "--accept-labels",
            help="Read the labels, and use them where --scale-bar says nothing: once you have "
            "checked them on the page.",
        ),
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option(metavar="HTML", help="Page to write, with each bar that was found."),
    ] = None,
    set_: option.SetReading = None,
) -> None:
    """Find scale bars in images, and write a table of pixel sizes.

    The length of each bar is measured. What it says is given by --scale-bar, or read. A pixel size
    in the file takes precedence, and contradictions are named. The table contains path (relative to
    the table), pixel_size (nm per pixel), source, the bar's length with its error, kind and box in
    pixels, scale_bar, label (as read), proposed_pixel_size, metadata_pixel_size and a remark. Check
    each bar on the page before you use the sizes: --pixel-size of other commands takes the table.

    \b
    Examples:
      hypervlad scale images/ -o sizes.csv --scale-bar "10 um" --page scale.html
      hypervlad scale images/ -o sizes.csv --scale-bar bars.csv
      hypervlad scale images/ -o sizes.csv --read-labels --page scale.html
      hypervlad align images/ -o found/ --pixel-size sizes.csv --window 500nm
    """
    from hypervlad.folders import scale_page as report
    from hypervlad.images import ImageReadError, ReadOptions
    from hypervlad.images.reading import relative_names
    from hypervlad.images.scale_labels import new_label_reader

    if read_labels and page is None:
        raise ValueError("--read-labels needs --page HTML, on which you check what was read.")
    (reading,) = option.settings(set_, ReadOptions)
    given = {} if scale_bar is None else report.read_scale_bars(scale_bar)
    if output is not None:
        check_table(output, *paths, scale_bar)
    check_page(page, output, *paths)
    files = images_in(paths, output, page, scale_bar)
    found = report.find_scales(
        files,
        names=names_of(files, paths),
        scale_bars=given,
        read_label=new_label_reader() if read_labels or accept_labels else None,
        accept=accept_labels,
        read_options=ReadOptions(**reading),
        progress=option.common().verbose,
    )
    bad, scales, places = list[str](), list[report.ImageScale](), list[Path]()
    for file, each in zip(files, found, strict=True):
        if isinstance(each, ImageReadError):
            bad.append(str(each))
        else:
            scales.append(each)
            places.append(file.parent.resolve() / file.name)  # ".." beside a link leads elsewhere
    if scales:
        beside = Path.cwd() if output is None else output.parent.resolve()
        in_table = relative_names(places, beside)
        rows = [each._replace(name=path) for each, path in zip(scales, in_table, strict=True)]
        write_or_print(report.scales_as_bytes(rows), output)
        if page is not None:
            report.write_scale_page(page, scales, bad)
        n_bars = sum(each.bar is not None for each in scales)
        n_known = sum(each.pixel_size is not None for each in scales)
        say(
            f"scale bars: found in {n_bars:,} of {counted(len(scales), 'image')}; the pixel size "
            f"of {n_known:,} is known"
        )
        if n_bars and scale_bar is None and not (read_labels or accept_labels):
            say("give what the bars say with --scale-bar, or read it: --read-labels --page HTML")
        if n_proposed := sum(each.proposed is not None for each in scales):
            say(
                f"labels read: {n_proposed:,}; check them on {page}, then repeat this command with "
                "--accept-labels"
            )
        for each in scales:
            if each.is_contradictory:
                warn(f"{each.name}: {each.remark}")
    report_left_out(bad, len(files))


def workbook(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATHS", help="Folders of results, or tables (CSV).")
    ],
    output: Annotated[Path, option.output("XLSX", "Workbook to write, NAME.xlsx.")],
) -> None:
    """Put tables into one workbook for spreadsheets, with a sheet for each.

    The tables are those of hypervlad, such as particles.csv and fields.csv of particles find, or
    any others. The first row has the names of columns, and the second one their units, if a column
    has one. Texts are never formulas. Commands that write one table, such as predict and particles
    count, write a workbook themselves if the name after -o ends in .xlsx.

    \b
    Examples:
      hypervlad workbook found/ -o particles.xlsx
      hypervlad workbook found/ counts.csv -o particles.xlsx
    """
    from hypervlad.common.tables import read_separated

    if not is_workbook(output):
        raise ValueError(f"{output}: give the workbook a name that ends in .xlsx")
    tables = list[Path]()
    for path in paths:
        tables += sorted(path.glob("*.csv")) if path.is_dir() else [path]
    if not tables:
        raise ValueError(f"{name_some(list(map(str, paths)))}: no tables (*.csv) in it")
    check_table(output, *tables)
    n_called = Counter(table.stem for table in tables)
    sheets = [
        (
            table.stem if n_called[table.stem] == 1 else f"{table.parent.name} {table.stem}",
            *read_separated(table, "names"),
        )
        for table in tables
    ]
    with replace_when_complete(output) as stream:
        stream.write(workbook_of(sheets))
    echo(f"workbook of {counted(len(sheets), 'sheet')}: {output}")
