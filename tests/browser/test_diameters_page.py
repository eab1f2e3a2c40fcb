"""The page of fibre diameters in a real browser: places are left out."""

import re

import numpy as np
import pytest
from scipy.spatial import cKDTree
from support.browsing import Window
from support.commands import rows_of
from support.waiting import wait_until

from hypervlad.data import make_fibre_images
from hypervlad.results import write_diameters

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

NAMES = ["thin/0.png", "thick/1.png", "thick/</script><script>document.title='broken'</script>"]
SIZE = (160, 224)


@pytest.fixture(scope="module")
def images():
    return [
        make_fibre_images(
            1, diameter=d, cover=0.3, contrast_to_noise=20, size=SIZE, random_state=seed
        )[0][0]
        for seed, d in enumerate((8, 14, 15))
    ]


def write(folder, images, **options):
    given = {"groups": ["thin", "thick", "thick"], "read_options": {"pixel_size": 12.5}}
    write_diameters(folder, images, NAMES, **given, **options)
    return folder / "diameters.html"


@pytest.fixture(scope="module")
def path(tmp_path_factory, images):
    return write(tmp_path_factory.mktemp("diameters"), images)


def medians(page):
    """Those of the groups, in the order of their names, and of the images."""
    return [float(text.replace(",", "")) for text in re.findall(r"median ([\d.,]+)", page.words)]


def place_of(places, image):
    """A place that is farther than others from the next, and where it is in the image."""
    own = [row for row in places if row["path"] == NAMES[image]]
    points = np.array([[float(row["x_px"]), float(row["y_px"])] for row in own])
    apart = cKDTree(points).query(points, 2)[0][:, 1]
    at = int(apart.argmax())
    return own[at], tuple(points[at])


def click(page, image, place, key=Keys.NULL):
    x, y = page.point(page.picture(NAMES[image]), *place, SIZE)
    mouse = ActionChains(page.browser)
    mouse.w3c_actions.pointer_action.move_to_location(x, y)
    mouse.w3c_actions.key_action.pause()
    mouse.key_down(key).click().key_up(key).perform()


def n_left_out(page):
    found = re.findall(r"(\d+) places? left out", page.text)
    return int(found[0]) if found else 0


def test_the_page_has_the_numbers_of_the_tables(page, path):
    page.screenshot("diameters")
    groups = {row["group"]: float(row["median_nm"]) for row in rows_of(path.parent / "groups.csv")}
    of_images = [float(row["median_nm"]) for row in rows_of(path.parent / "diameters.csv")]
    found = medians(page)
    assert sorted(found[:2]) == pytest.approx(sorted(groups.values()), rel=0.006)
    assert found[2:] == pytest.approx(of_images, rel=0.006)
    places = rows_of(path.parent / "places.csv")
    for name in NAMES:
        assert f"{sum(row['path'] == name for row in places)} places" in page.words


def test_what_a_click_leaves_out_is_what_the_library_leaves_out(page, path, images, tmp_path):
    places = rows_of(path.parent / "places.csv")
    row, alone = place_of(places, 2)
    _, other = place_of(places, 1)
    fibre = [each for each in places if each["path"] == NAMES[2] and each["fibre"] == row["fibre"]]
    click(page, 2, alone)
    wait_until(lambda: n_left_out(page) == 1, "the click, which a busy browser may do later")
    assert "All numbers are those before your changes." in page.text
    click(page, 2, alone)
    wait_until(lambda: n_left_out(page) == 0, "the second click")
    assert "before your changes" not in page.text
    click(page, 1, other)
    click(page, 2, alone, Keys.SHIFT)
    wait_until(lambda: n_left_out(page) == len(fibre) + 1, "all places of the fibre")
    page.screenshot("diameters-left-out")
    choice = page.downloaded(tmp_path, "Save what is left out", "choice.csv")
    again = Window(page.browser, write(tmp_path / "again", images, leave_out=choice))
    assert n_left_out(again) in (0, len(fibre) + 1)
    before, after = (rows_of(each / "diameters.csv") for each in (path.parent, tmp_path / "again"))
    of_images = [float(row["median_nm"]) for row in after]
    assert medians(again)[2:] == pytest.approx(of_images, rel=0.006)
    n_fewer = [int(a["places"]) - int(b["places"]) for a, b in zip(before, after, strict=True)]
    assert n_fewer == [0, 1, len(fibre)]
    again.assert_safe()
