"""The page of found particles in a real browser: outlines are switched, and lead to each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.review_windows import save_screenshot

from hypervlad import make_particle_fields
from hypervlad.particles import find_in_images
from hypervlad.results import write_particles_page

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.by import By

pytestmark = pytest.mark.slow
KINDS = ["sphere", "rod", "</script><script>document.title='broken'</script>"]


class Random:
    classes_, held_out_ = KINDS, None

    def predict_proba(self, particles: list[Any]) -> np.ndarray:
        return np.random.default_rng(0).dirichlet(np.ones(len(KINDS)), len(particles))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("particles")
    images, truths = make_particle_fields(
        4, kind="sem", classes=("sphere", "rod"), n_particles=12, size=256, random_state=0
    )
    files = {}
    for number, (image, truth) in enumerate(zip(images, truths, strict=True)):
        file = folder / f"{number}.png"
        Image.fromarray(np.uint8(255 * image)).save(file)
        files[file] = truth.labels
    found, _ = find_in_images(
        folder / "found", list(files), files.__getitem__, root=folder, pixel_size=2.0
    )
    found.classify(Random())
    return write_particles_page(folder / "page.html", found)


@pytest.fixture
def page(browser: Any, path: Path) -> Iterator[Any]:
    browser.get(path.as_uri())
    yield browser
    assert not browser.get_log("browser"), "the page's own errors, and what its policy forbids"


def n_visible(page: Any, selector: str) -> int:
    found = page.find_elements(By.CSS_SELECTOR, f".field .outlines {selector}")
    return sum(each.is_displayed() for each in found)


def test_outlines_of_a_class_and_of_all_are_switched(page: Any) -> None:
    assert page.title == "Particles found"
    save_screenshot(page, "particles")
    rods, n = n_visible(page, ".k1"), n_visible(page, "path")
    assert 0 < rods < n
    every, _, rod, _ = page.find_elements(By.CSS_SELECTOR, "#legend input")
    rod.click()
    assert (n_visible(page, ".k1"), n_visible(page, "path")) == (0, n - rods)
    every.click()
    assert n_visible(page, "path") == 0
    every.click()
    rod.click()
    assert n_visible(page, "path") == n


def test_a_particle_to_check_leads_to_its_place_in_the_field(page: Any) -> None:
    link = page.find_element(By.CSS_SELECTOR, ".gallery a")
    number = link.get_attribute("href").partition("#")[2]
    link.click()
    outline = page.find_element(By.ID, number)
    top, bottom = page.execute_script(
        "const r = arguments[0].getBoundingClientRect(); return [r.top, r.bottom]", outline
    )
    assert bottom > 0
    assert top < page.execute_script("return innerHeight")
    assert outline.value_of_css_property("stroke-width") == "3.5px"
    save_screenshot(page, "particle-in-its-field")


def test_outlines_lie_on_their_particles_and_the_page_fits_a_telephone(page: Any) -> None:
    size = {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") == 400
        for picture in page.find_elements(By.CSS_SELECTOR, ".picture"):
            image, drawn = (
                picture.find_element(By.CSS_SELECTOR, name).rect for name in ("img", ".outlines")
            )
            assert drawn == pytest.approx(image, abs=0.6)
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
