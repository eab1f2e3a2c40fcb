"""The page of found particles: what is in it, and that nothing breaks or leaves it."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.pages import Page

from hypervlad.particles import FoundFolder, edge_weights, find_in_images
from hypervlad.results import write_particles_page
from hypervlad.results.displays.colours import CLASS_COLOURS
from hypervlad.results.reports import particles
from hypervlad.results.reports.files import asset
from hypervlad.results.reports.particles import size_chart

EVIL = "a & <b>'\" <script>alert(1)<!--"
# Particles 1 to 4: 20 x 10, 6 x 6 and 12 x 12 pixels, and one at the edge of 8 x 30.
LABELS = np.zeros((60, 90), int)
LABELS[10:20, 10:30], LABELS[30:36, 40:46], LABELS[40:52, 60:72] = 1, 2, 3
LABELS[52:60, 20:50] = 4

Found = Callable[..., FoundFolder]


class Classifier:
    """Gives the particles of each field the classes in turn, ever less certain."""

    held_out_ = None

    def __init__(self, classes: list[str]) -> None:
        self.classes_ = classes

    def predict_proba(self, found: list[Any]) -> NDArray[np.float64]:
        n, proba = len(self.classes_), []
        for number in range(len(found)):
            share = 0.95 - 0.1 * number
            row = np.full(n, (1 - share) / (n - 1))
            row[number % n] = share
            proba.append(row)
        return np.array(proba)


@pytest.fixture
def found(tmp_path: Path) -> Found:
    """Write a folder of fields that are called so, and classify their particles."""

    def made(
        fields: dict[str, NDArray[np.int_]],
        classes: list[str] | None = None,
        pixel_size: float | None = 2.0,
    ) -> FoundFolder:
        files = {}
        for name, labels in fields.items():
            file = tmp_path / "images" / name
            file.parent.mkdir(exist_ok=True, parents=True)
            Image.fromarray(np.uint8(40 + 150 * (labels > 0))).save(file)
            files[file] = labels
        folder, left_out = find_in_images(
            tmp_path / "found",
            list(files),
            files.__getitem__,
            root=tmp_path / "images",
            pixel_size=pixel_size,
        )
        assert left_out == []
        if classes is not None:
            folder.classify(Classifier(classes))
        return folder

    return made


def page_of(folder: FoundFolder, **options: Any) -> Page:
    return Page(write_particles_page(folder.path.parent / "page.html", folder, **options))


def fields_of(page: Page) -> list[str]:
    """The parts of the page from one picture of a field to the next."""
    return page.source.split('<figure class="field">')[1:]


def test_counts_sizes_and_every_outline_are_shown(found: Found) -> None:
    folder = found({f"{letter}.png": LABELS for letter in "abcde"}, ["rod", "cube"])
    page = page_of(folder)
    counts = folder.count().counts
    for row in counts.to_dict("records"):
        assert f"{row['class']} {row['particles']} {row['count']:.3g}" in page.spaced
    assert "20particles outlined" in page.words
    assert "5touch an edge" in page.words
    assert "Not corrected for wrong classes" in page.spaced
    assert "equivalent diameter in nm" in page.words
    assert len(fields_of(page)) == 5
    for number, part in enumerate(fields_of(page)):
        ids = re.findall(r'class="(k\d \w+)" id="(.+?)"', part)
        assert ids == [(f"k{i % 2} solid", f"p{number}-{i + 1}") for i in range(4)]
        assert ">20 nm<" in part, "a scale bar"
    assert html.unescape(re.findall("<title>(.+?)</title>", fields_of(page)[0])[3]) == (
        f"Particle 4: cube, 65.0 %, {np.sqrt(4 / np.pi * 240) * 2:.3g} nm"
    )
    assert "e.png 4 2 2" in page.spaced


def test_paths_run_around_the_particles(found: Found) -> None:
    page = page_of(found({"a.png": LABELS}))
    for (_, number, text), box in zip(
        re.findall(r'class="(.+?)" id="p0-(\d)" d="(.+?)"', page.source),
        [(20, 20, 60, 40), (80, 60, 92, 72), (120, 80, 144, 104), (40, 104, 100, 120)],
        strict=True,
    ):
        start, moves = re.fullmatch("M(.+)l(.+)z", text).groups()  # type: ignore[union-attr]
        steps = np.array([start, *moves.split()], object)
        corners = np.array(" ".join(steps).split(), int).reshape(-1, 2).cumsum(axis=0)
        assert (*corners.min(axis=0), *corners.max(axis=0)) == box, number
        assert (corners[0] == corners[-1]).all()


def test_particles_to_check_come_first_where_most_doubtful(found: Found) -> None:
    page = page_of(found({f"{letter}.png": LABELS for letter in "abcd"}, ["rod", "cube"]))
    galleries = dict(re.findall(r"<h3>(.+?)</h3>.*?<ul(.+?)</ul>", page.source, re.DOTALL))
    links = {name: re.findall('href="#p(.+?)"', gallery) for name, gallery in galleries.items()}
    assert links["Least certain classes"][:6] == ["0-4", "1-4", "2-4", "3-4", "0-3", "1-3"]
    assert links["Smallest"] == [f"{number}-2" for number in range(4)]
    assert links["Largest"] == [f"{number}-4" for number in range(4)]
    ids = set(re.findall(' id="p(.+?)"', page.source))
    assert ids.issuperset(chain(*links.values()))


def test_without_classes_pixel_size_and_particles(found: Found) -> None:
    page = page_of(found({"a.png": LABELS, "b.png": 0 * LABELS}, pixel_size=None))
    assert "The pixel size is unknown" in page.words
    assert "equivalent diameter in px" in page.words
    assert 'class="scale"' not in page.source
    assert "Least certain" not in page.words
    assert 'id="p0-4"' in fields_of(page)[0]
    assert "<path" not in fields_of(page)[1]
    assert "1fields without particles" in page.words


def test_nothing_found_is_a_page_too(found: Found) -> None:
    page = page_of(found({"a.png": 0 * LABELS}))
    assert "There are none." in page.words
    assert "0particles outlined" in page.words
    assert "<h1>Particles found</h1>" in page.source


def test_names_are_text_and_cannot_break_the_page(found: Found) -> None:
    folder = found({f"{EVIL}.png": LABELS, "b.png": LABELS}, [EVIL, "x"])
    page = page_of(folder)
    assert page.words.count(EVIL) > 7
    assert len(page.scripts) == 1
    assert "script-src 'sha256-" in page.policy
    assert all((image["src"] or "").startswith("data:image/jpeg") for image in page.images)
    assert all((link or "").startswith("#p") for link in page.links)


def test_of_many_fields_some_are_pictured_and_the_page_says_so(
    found: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = found({f"{letter}.png": LABELS for letter in "abcdefg"})
    monkeypatch.setattr(particles, "_MAX_FIELDS", 3)
    page = page_of(folder)
    assert "3 of 7 fields" in page.words
    shown = re.findall('alt="(.+?)"', page.source)
    assert shown == ["a.png", "d.png", "g.png"]
    for letter in "abcdefg":
        assert f"{letter}.png 4" in page.spaced, "in the table"
    assert "particle 2 of b.png" in page.spaced, "without a link"
    monkeypatch.setattr(particles, "_MAX_OUTLINES", 8)
    assert "2 of 7 fields" in page_of(folder).words


def test_what_cannot_be_read_is_listed(found: Found) -> None:
    folder = found({"a.png": LABELS, "b.png": LABELS})
    (folder.images / "a.png").unlink()
    with pytest.warns(UserWarning, match="1 field without a picture"):
        page = page_of(folder)
    assert "a.png: no such image in" in page.words
    Image.new("L", (90, 61)).save(folder.images / "a.png")
    with pytest.warns(UserWarning, match="1 field without a picture"):
        page = page_of(folder)
    assert "a.png: outlines of 60 x 90 pixels for an image of" in page.words
    assert len(fields_of(page)) == 1
    assert "a.png 4" in page.spaced, "its particles are still counted"


def test_an_outline_that_a_person_added_is_drawn_and_said_to_be_new(found: Found) -> None:
    folder = found({"a.png": LABELS})
    folder.table = folder.table.drop(index=2)
    page = page_of(folder)
    assert "Particle 3: not in the table" in page.words
    assert "Particle 4: 35" in page.words


def test_counts_that_are_impossible_are_explained(found: Found) -> None:
    folder = found({"a.png": LABELS, "b.png": LABELS}, ["rod", "cube"])
    folder.table.loc[0, "class"] = None
    page = page_of(folder)
    assert "No counts and sizes: " in page.words
    assert "1 particle without a class" in page.words
    assert "no class 1" in page.spaced, "the legend"
    assert len(fields_of(page)) == 2


def test_bars_are_weighted_and_particles_at_the_edge_left_out(found: Found) -> None:
    table = found({f"{letter}.png": LABELS for letter in "abcde"}).table
    chart = size_chart(table, "equivalent_diameter_px", ["x"] * len(table), ["x"])
    assert chart is not None
    ((name, style, n, bars),) = chart.groups
    assert (name, style, n) == ("x", "k0 solid", 15)
    weights, area = edge_weights(table)[:4], table["area_px2"][:4]
    sizes = np.sqrt(area / np.pi * 4)
    assert weights[3] == 0
    heights = weights[[1, 2, 0]] * 48 / weights[:3].max()
    np.testing.assert_allclose([height for _, height in bars], heights, atol=0.01)
    ends = sizes.iloc[1], sizes.iloc[0]
    places = [(float(text) - ends[0]) / (ends[1] - ends[0]) for _, text in chart.ticks]
    np.testing.assert_allclose([at for at, _ in chart.ticks], np.multiply(100, places), atol=1e-3)
    # Over more than a decade, equal ratios have equal lengths.
    wide = table.assign(area_px2=np.geomspace(10, 10_000, len(table)))
    chart = size_chart(wide, "area_px2", ["x"] * len(table), ["x"])
    assert chart is not None
    ticks = {text: at for at, text in chart.ticks}
    assert ticks["1,000"] - ticks["500"] == pytest.approx(ticks["100"] - ticks["50"], abs=0.01)


def test_sizes_that_are_all_equal_have_an_axis(found: Found) -> None:
    table = found({"a.png": np.where(LABELS == 2, 1, 0)}).table
    chart = size_chart(table, "equivalent_diameter_nm", ["x"], ["x"])
    assert chart is not None
    assert len(chart.groups[0][3]) == 1
    assert chart.ticks
    assert size_chart(pd.DataFrame(table[:0]), "equivalent_diameter_nm", [], ["x"]) is None


def test_colours_are_those_of_displays() -> None:
    assert re.findall("--class: (#.{6})", asset("particles.css")) == list(CLASS_COLOURS)
