"""A page of classified images, to look through: one file, its pictures inside."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from hypervlad._version import __version__
from hypervlad.displays import page
from hypervlad.displays.classified_data import as_script, data_of, link_to, most_doubtful
from hypervlad.displays.contact_sheet import image_names
from hypervlad.displays.facts import model_facts, read_options_of, versions_in_words
from hypervlad.displays.predictions import Predictions, predictions_of
from hypervlad.displays.sections import percent
from hypervlad.displays.thumbnails import thumbnails
from hypervlad.modelfile import replace_when_complete

MOST_PICTURES = 10_000
_SIDE = 160  # pixels, of a picture's longer side
_FILES = Path(__file__).parent / "sheet"
_KINDS = {
    "sure": "sure",
    "ambiguous": "between classes",
    "out_of_distribution": "unlike all training images",
}


def write_classified_page(
    path: str | os.PathLike[str],
    model: Any,
    images: Sequence[Any],
    *,
    names: Sequence[str] | None = None,
    max_error: float | None = None,
    predictions: Predictions | None = None,
    title: str = "Classified images",
    most_pictures: int = MOST_PICTURES,
    progress: bool = False,
) -> Path:
    """Classify images and write a page on which they are sorted, filtered and looked at.

    The page is one file and needs no network, no server and no other file; a click on an image
    leads to the original as long as page and images keep their places. Without scripts it is a
    table. It takes the place of an older one only when it is complete.

    Parameters
    ----------
    path : path of an .html file
    model : fitted MicrographClassifier
        Images that cannot be read stop it, unless its encoder has ``on_error="skip"``; then they
        are listed with the reasons.
    images : sequence of n path or ndarray of shape (H, W) or (H, W, 3)
    names : sequence of n str, optional
        What to call each image; its path, or ``image 3``, by default.
    max_error : float, optional
        Also say which answers are sure, so that this share of them is wrong at most, and why the
        others are not: see `MicrographClassifier.judge`.
    predictions : Predictions, optional
        What `predictions_of` returned for these images and this `max_error`; they are encoded if
        it is not given.
    title : str
    most_pictures : int, default=10000
        Of further images there is no picture, only what the model says; the most doubtful ones
        have one. A picture takes about 4 kB.
    progress : bool, default=False
        Show a bar on stderr.

    Returns
    -------
    Path
        That of the page.

    Raises
    ------
    ValueError
        If the lengths differ, or a judgement is asked for and nothing was held out in ``fit``.
    ImageReadError
        If no image could be read, or one could not and the encoder does not skip.
    """
    path = Path(path)
    names = image_names(images, full=True) if names is None else list(names)
    if len(names) != len(images):
        raise ValueError(f"got {len(images)} images and {len(names)} names; expected as many.")
    found = predictions_of(model, images, None, max_error) if predictions is None else predictions
    read = [images[index] for index in found.read]
    folder = path.absolute().parent
    links = [link_to(image, folder) for image in read]
    called = [names[index] for index in found.read]
    data = data_of(list(model.classes_), model.training_, found, called, links)
    pictured = most_doubtful(found, most_pictures)
    pieces = [
        _headline(found, len(images), max_error),
        _bound(len(read), len(pictured)),
        _file("sheet.html"),
        f"<noscript>{_plain_table(data)}</noscript>",
        _unreadable(found, names),
        page.section(
            "The model", page.facts_table({**model_facts(model), "versions": versions_in_words()})
        ),
        f'<script type="application/json" id="data">{as_script(data)}</script>',
    ]
    script = _file("sheet.js")
    head = page.opening(title, __version__, style=_file("sheet.css"), script=script)
    folder.mkdir(parents=True, exist_ok=True)
    with replace_when_complete(path) as stream:
        stream.write("\n".join([head, *filter(None, pieces), ""]).encode("utf-8"))
        pictures = thumbnails(read, pictured.tolist(), _SIDE, read_options_of(model.encoder_))
        hidden = None if progress else True  # None: hidden where stderr is no terminal
        _write_pictures(
            stream, tqdm(pictures, "page", len(pictured), unit="picture", disable=hidden)
        )
        stream.write(f"<script>{script}</script>{page.closing(__version__)}".encode())
    return path


def _write_pictures(stream: IO[bytes], pictures: Any) -> None:
    """Write pictures as they are made: as text, which costs a browser next to nothing."""
    for position, picture in pictures:
        if picture:
            line = f'<script type="text/plain" id="picture-{position}">{picture}</script>\n'
            stream.write(line.encode("ascii"))


def _headline(found: Predictions, n_images: int, max_error: float | None) -> str:
    n_read, n_bad = len(found.read), n_images - len(found.read)
    sentence = f"The model has named a class for {_counted(n_read, 'image')}."
    if n_bad:
        sentence += f" {_counted(n_bad, 'image')} could not be read: listed below."
    numbers = {"images classified": f"{n_read:,}"}
    pieces = [page.paragraph(sentence, "lead")]
    if found.judged is not None:
        kinds = found.judged.kind
        numbers |= {name: f"{int(np.sum(kinds == kind)):,}" for kind, name in _KINDS.items()}
        pieces.append(page.paragraph(_about_kinds(max_error), "soft"))
    elif n_read:
        numbers["median confidence"] = percent(float(np.median(found.proba.max(axis=1))))
    if n_bad:
        numbers["could not be read"] = f"{n_bad:,}"
    return "\n".join([*pieces, page.cards(numbers)])


def _about_kinds(max_error: float | None) -> str:
    errors = "as few as asked" if max_error is None else f"at most {percent(max_error)}"
    return (
        f"Of the sure answers, {errors} should be wrong, if these images are like those learnt "
        "from. Between classes: the confidence is too low for that. Unlike all training images: "
        "farther from all training images than these are from each other, so that no confidence "
        "means much."
    )


def _bound(n_images: int, n_pictured: int) -> str:
    if n_pictured == n_images:
        return ""
    return page.paragraph(
        f"To keep this file small, only the {n_pictured:,} most doubtful of the {n_images:,} "
        "images have a picture here; the others are listed without."
    )


def _plain_table(data: dict[str, Any]) -> str:
    """Return what there is to see without scripts."""
    classes, judged = data["classes"], "kinds" in data
    counts = np.bincount(data["said"], minlength=len(classes)).tolist()
    rows = [
        [
            name,
            classes[code],
            percent(max(row)),
            *([data["kinds"][index], data["reasons"][index]] if judged else []),
        ]
        for index, (name, code, row) in enumerate(
            zip(data["names"], data["said"], data["proba"], strict=True)
        )
    ]
    header = ["Image", "Class", "Confidence", *(["Kind", "Reason"] if judged else [])]
    return "\n".join(
        [
            page.paragraph("Scripts are switched off: pictures, sorting and filters need them."),
            page.table(["Class", "Images"], zip(classes, counts, strict=True)),
            page.table(header, rows),
        ]
    )


def _unreadable(found: Predictions, names: Sequence[str]) -> str:
    if not found.skipped:
        return ""
    # Reasons begin with the file; here its name stands before them anyway.
    rows = [
        (names[bad.position], bad.reason.removeprefix(f"{bad.name}: ")) for bad in found.skipped
    ]
    return page.section("Could not be read", page.facts_table(rows))


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def _file(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")
