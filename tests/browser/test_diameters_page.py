"""The page of fibre diameters in a real browser: a place is left out, and the numbers follow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial import cKDTree
from support.review_windows import save_screenshot

from hypervlad.data import make_fibre_images
from hypervlad.fibres import FibreDiameters, fibre_diameters
from hypervlad.fibres.measured_places import without_places
from hypervlad.results import write_diameters

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

pytestmark = pytest.mark.slow
NAMES = ["thin/0.png", "thick/1.png", "thick/</script><script>document.title='broken'</script>"]
PIXEL_SIZE = 12.5
SAVED = """
const anchor = HTMLAnchorElement.prototype, make = URL.createObjectURL;
URL.createObjectURL = (blob) => { blob.text().then((text) => { window.saved = text; });
  return make(blob); };
anchor.click = () => {};
"""


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return [
        make_fibre_images(
            1, diameter=d, cover=0.3, contrast_to_noise=20, size=(192, 256), random_state=seed
        )[0][0]
        for seed, d in enumerate((8, 14, 15))
    ]


@pytest.fixture(scope="module")
def found(images: list[np.ndarray]) -> list[FibreDiameters]:
    return [fibre_diameters(image, pixel_size=PIXEL_SIZE) for image in images]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, images: list[np.ndarray]) -> Path:
    folder = tmp_path_factory.mktemp("diameters")
    write_diameters(
        folder,
        images,
        NAMES,
        groups=["thin", "thick", "thick"],
        read_options={"pixel_size": PIXEL_SIZE},
    )
    return folder / "diameters.html"


@pytest.fixture
def page(browser: Any, path: Path) -> Iterator[Any]:
    browser.get(path.as_uri())
    yield browser
    assert not browser.get_log("browser"), "the page's own errors, and what its policy forbids"


def texts(page: Any, selector: str) -> list[str]:
    return [each.text for each in page.find_elements(By.CSS_SELECTOR, selector)]


def bars(page: Any) -> list[list[float]]:
    charts = page.find_elements(By.CSS_SELECTOR, "#chart .bars")
    return [
        [float(b.get_attribute("height")) for b in chart.find_elements(By.TAG_NAME, "rect")]
        for chart in charts
    ]


def click(page: Any, image: int, place: int, key: str = Keys.NULL) -> None:
    """Scroll to a line, and click beside its middle, as a person does."""
    svg = page.find_element(By.CSS_SELECTOR, f"figure[data-image='{image}'] .outlines")
    line = svg.find_elements(By.TAG_NAME, "path")[place]
    x, y = page.execute_script(
        "arguments[0].scrollIntoView({ block: 'center' });"  # not below the legend
        "const box = arguments[0].getBoundingClientRect();"
        "return [(box.left + box.right) / 2, (box.top + box.bottom) / 2]",
        line,
    )
    mouse = ActionChains(page)
    mouse.w3c_actions.pointer_action.move_to_location(round(x) + 1, round(y))
    mouse.w3c_actions.key_action.pause()
    mouse.key_down(key).click().key_up(key).perform()


def out(page: Any, image: int) -> list[int]:
    lines = page.find_elements(By.CSS_SELECTOR, f"figure[data-image='{image}'] .outlines path")
    return [k for k, line in enumerate(lines) if line.get_attribute("class") == "out"]


def loneliest(found: FibreDiameters) -> int:
    """Return the place that is farthest from all others."""
    distance, _ = cKDTree(found.positions).query(found.positions, k=2)
    return int(distance[:, 1].argmax())


def shown(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{float(f'{value:.3g}'):g}"


def test_numbers_of_the_script_are_those_of_the_library(
    page: Any, found: list[FibreDiameters]
) -> None:
    assert page.title == "Fibre diameters"
    save_screenshot(page, "diameters")
    thick = np.sqrt(found[1].median * found[2].median)
    assert texts(page, "#chart .median") == [shown(found[0].median), shown(thick)]
    n = [len(each.diameters) for each in found]
    assert texts(page, "#chart .places") == [f"{each:,} places" for each in (n[0], n[1] + n[2])]
    assert all(max(heights) == pytest.approx(96) for heights in bars(page))
    rows = texts(page, "figure .median")
    assert rows == [f"{shown(each.median)} nm" for each in found]


def test_a_click_leaves_a_place_out_and_the_numbers_follow(
    page: Any, found: list[FibreDiameters]
) -> None:
    before, alone = bars(page), loneliest(found[0])
    click(page, 0, alone)
    assert out(page, 0) == [alone]
    rest = without_places(found[0], np.arange(len(found[0].diameters)) == alone)
    assert texts(page, "figure .median")[0] == f"{shown(rest.median)} nm"
    assert texts(page, "#chart .median")[0] == shown(rest.median)
    assert texts(page, "figure .places")[0] == f"{len(rest.diameters)} places"
    assert (bars(page)[0] == before[0], bars(page)[1] == before[1]) == (False, True)
    assert texts(page, "#state") == ["1 place left out"]
    note = page.find_element(By.CSS_SELECTOR, ".stale")
    assert note.is_displayed()
    save_screenshot(page, "diameters-left-out")
    click(page, 0, alone)
    assert out(page, 0) == []
    assert not note.is_displayed()
    assert bars(page) == before


def test_shift_leaves_out_all_places_of_a_fibre(page: Any, found: list[FibreDiameters]) -> None:
    alone = loneliest(found[1])
    same = np.flatnonzero(found[1].fibres == found[1].fibres[alone]).tolist()
    click(page, 1, alone, Keys.SHIFT)
    assert out(page, 1) == same
    click(page, 1, alone)
    assert out(page, 1) == [each for each in same if each != alone]
    click(page, 1, alone)
    click(page, 1, alone, Keys.SHIFT)
    assert out(page, 1) == []


def test_the_saved_choice_is_what_the_library_accepts(
    page: Any, images: list[np.ndarray], found: list[FibreDiameters], tmp_path: Path
) -> None:
    page.execute_script(SAVED)
    alone = loneliest(found[2])
    click(page, 2, alone)
    page.find_element(By.ID, "save").click()
    text = page.execute_async_script(
        "const done = arguments[0]; setTimeout(() => done(window.saved), 300)"
    )
    choice = tmp_path / "choice.csv"
    choice.write_text(text, encoding="utf-8")
    write_diameters(
        tmp_path / "again",
        images,
        NAMES,
        groups=["thin", "thick", "thick"],
        read_options={"pixel_size": PIXEL_SIZE},
        leave_out=choice,
    )
    page.get((tmp_path / "again" / "diameters.html").as_uri())
    assert out(page, 2) == [alone]


def test_the_axis_is_logarithmic_on_request_and_lines_are_switched(page: Any) -> None:
    before, ticks = bars(page), texts(page, "#chart .axis text")
    page.find_element(By.ID, "log").click()
    assert bars(page) != before
    assert texts(page, "#chart .axis text") != ticks
    page.find_element(By.CSS_SELECTOR, "#legend input").click()
    assert not any(each.is_displayed() for each in page.find_elements(By.CSS_SELECTOR, ".outlines"))


def test_lines_lie_on_their_picture_and_the_page_fits_a_telephone(page: Any) -> None:
    size = {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") == 400
        save_screenshot(page, "diameters-telephone")
        for picture in page.find_elements(By.CSS_SELECTOR, ".picture"):
            image, drawn = (
                picture.find_element(By.CSS_SELECTOR, name).rect for name in ("img", ".outlines")
            )
            assert drawn == pytest.approx(image, abs=0.6)
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
