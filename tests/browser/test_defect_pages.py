"""Pages of defects in a real browser: the slider for the threshold, and regions and their marks."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.commands import run, save
from support.dark_spots import Darkness, spotted
from support.review_windows import save_screenshot
from support.surfaces import PATCH, blotted, surface

from hypervlad.evaluation import evaluate_defects
from hypervlad.images import read_mask
from hypervlad.results import write_defect_report, write_findings
from hypervlad.results.reports import threshold_page

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = pytest.mark.slow
EVIL = "</script><script>document.title='broken'</script><!-- & \"'.png"
LEVELS = [0.9, 0.8, 0.2, 0.7, 0.1, 0.45]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of scored images, and one of an evaluation: the first three have defects."""
    folder = tmp_path_factory.mktemp("pages")
    images = [spotted(level) for level in LEVELS]
    masks = [image < 1 for image in images[:3]] + [None] * 3
    names = ["a", "b", "c", "d", "e", "f"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threshold_page, "page_facts", lambda scorer: {"kind of model": EVIL})
        write_findings(folder, Darkness(), images, names)
        evaluation = evaluate_defects(Darkness(), images, masks, [EVIL, *names[1:]])
        path = folder / "evaluation.html"
        write_defect_report(path, Darkness(), images, evaluation)
    return {"scores": folder / "report.html", "evaluation": path}


class Opened:
    """A page in the browser."""

    def __init__(self, browser: Any, path: Path) -> None:
        self.browser = browser
        browser.get(path.as_uri())
        save_screenshot(browser, f"defects_{path.stem}")

    def find(self, selector: str) -> Any:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        found = self.browser.find_elements(By.CSS_SELECTOR, selector)
        return [each.text for each in found]

    def write(self, threshold: str) -> None:
        field = self.find("#number")
        field.clear()
        field.send_keys(threshold)

    @property
    def lines(self) -> set[float]:
        """Where the threshold is in the histograms, in per cent."""
        found = self.browser.find_elements(By.CSS_SELECTOR, ".bars .threshold")
        return {float(line.get_attribute("x1").rstrip("%")) for line in found}


@pytest.fixture(autouse=True)
def no_errors(browser: Any) -> Iterator[None]:
    yield
    assert not browser.get_log("browser"), "the page's own errors, and what its policy forbids"


@pytest.fixture
def scores(browser: Any, pages: dict[str, Path]) -> Opened:
    return Opened(browser, pages["scores"])


@pytest.fixture
def evaluation(browser: Any, pages: dict[str, Path]) -> Opened:
    return Opened(browser, pages["evaluation"])


def test_the_slider_starts_at_the_threshold_of_the_results(scores: Opened) -> None:
    assert scores.find("#number").get_property("value") == "0.5"
    assert float(scores.find("#slider").get_property("value")) == pytest.approx(0.5, abs=0.01)
    assert scores.texts(".chart .above") == ["3 of 6 (50.0 %)", "1 of 3 (33.3 %)"]
    assert scores.texts("td .call") == ["anomalous"] * 3 + ["normal"] * 3
    assert scores.find("#slider").get_attribute("aria-valuetext") == "0.5"


def test_a_number_moves_everything(scores: Opened) -> None:
    (before,) = scores.lines
    scores.write("0.4")
    assert scores.texts(".chart .above") == ["4 of 6 (66.7 %)", "1 of 3 (33.3 %)"]
    assert scores.texts(".chart .below") == ["2 of 6 (33.3 %)", "2 of 3 (66.7 %)"]
    assert scores.texts("td .call") == ["anomalous"] * 4 + ["normal"] * 2
    assert scores.texts(".field .call") == ["anomalous"] * 4 + ["normal"] * 2
    (after,) = scores.lines
    assert after < before
    cut = scores.find(".bars .reached").get_attribute("x")
    assert float(cut.rstrip("%")) == after, "bars beyond the threshold have their colour"
    assert scores.find("code").text == "--threshold 0.4"
    scores.find("#reset").click()
    assert scores.texts("td .call") == ["anomalous"] * 3 + ["normal"] * 3
    assert scores.find("code").text == "--threshold 0.5"
    assert scores.lines == {before}
    scores.write("1000")
    assert scores.lines == {100}
    scores.write("")
    assert scores.texts("td .call") == ["normal"] * 6, "until there is a number"


def test_keys_move_the_slider(scores: Opened) -> None:
    slider = scores.find("#slider")
    slider.send_keys(Keys.END)
    assert scores.texts(".chart .above") == ["0 of 6 (0.0 %)", "0 of 3 (0.0 %)"]
    assert scores.lines == {100}
    slider.send_keys(Keys.HOME)
    assert scores.texts(".chart .above") == ["6 of 6 (100.0 %)", "3 of 3 (100.0 %)"]
    before = float(slider.get_property("value"))
    slider.send_keys(Keys.ARROW_RIGHT)
    after = float(scores.find("#number").get_property("value"))
    assert 0 < after - before < 0.01
    assert float(slider.get_attribute("aria-valuetext")) == after


def test_found_images_and_false_alarms_follow(evaluation: Opened) -> None:
    assert "broken" not in evaluation.browser.title
    assert evaluation.texts(".group strong") == [
        *("Defective images", "Defect-free images", "Training images, held out"),
    ]
    assert evaluation.texts(".chart .above")[:2] == ["2 of 3 (66.7 %)", "1 of 3 (33.3 %)"]
    evaluation.write("0.15")
    assert evaluation.texts(".chart .above")[:2] == ["3 of 3 (100.0 %)", "2 of 3 (66.7 %)"]
    assert evaluation.texts("td .call") == [
        *("anomalous (found)", "anomalous (found)", "anomalous (false alarm)"),
        *("anomalous (false alarm)", "anomalous (found)", "normal (right)"),
    ]


def test_it_fits_a_telephone_and_controls_have_names(evaluation: Opened) -> None:
    for name, role in (("slider", "slider"), ("number", "spinbutton")):
        control = evaluation.find(f"#{name}")
        assert control.aria_role == role
        assert control.accessible_name == "Threshold"
    assert evaluation.find(".chart .above").aria_role == "status", "a live region"
    size = {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    evaluation.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        width = evaluation.browser.execute_script("return document.documentElement.scrollWidth")
        assert width == 400
    finally:
        evaluation.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_it_can_be_read_without_scripts(browser: Any, pages: dict[str, Path]) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page = Opened(browser, pages["scores"])
        assert page.texts(".chart .above") == ["3 of 6 (50.0 %)", "1 of 3 (33.3 %)"]
        assert page.texts("td .call") == ["anomalous"] * 3 + ["normal"] * 3
        assert page.find(".bars .found rect").size["height"] > 0
        assert not page.find("#slider").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


# --- regions and marks ------------------------------------------------------------------------

SIDE, OTHER = (48, 60), (12, 12)  # of an image, pixels; centre of the defect that is not found


@pytest.fixture
def marked(browser: Any, tmp_path: Path) -> Iterator[Opened]:
    """A page of two images: of the first, two regions are found and a faint defect is not."""
    image, _ = blotted(0, (30, 44))
    image[38:42, 8:14] = 0.1
    image[blotted(0, OTHER, radius=4)[1]] *= 0.9
    save(tmp_path / "new" / "a" / "1.png", image)
    save(tmp_path / "new" / "a" / "2.png", surface(1))
    save(tmp_path / "new" / "b.tif", np.minimum(blotted(2, (20, 20))[0] + 0.1, 1))
    files = sorted((tmp_path / "new").rglob("*.*"))
    names = [file.relative_to(tmp_path / "new").as_posix() for file in files]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threshold_page, "page_facts", lambda scorer: {})
        write_findings(tmp_path / "found", Darkness(0.75), files, names)
    page = Opened(browser, tmp_path / "found" / "report.html")
    yield page
    browser.execute_script("localStorage.clear(); window.onbeforeunload = null")


def figure(page: Opened, name: str) -> Any:
    return page.find(f".field[aria-label='{name}']")


def part(figure: Any, selector: str) -> Any:
    return figure.find_element(By.CSS_SELECTOR, selector)


def pressed(page: Opened) -> list[bool]:
    """Whether each region of the first image is a false alarm, in the picture and in the table."""
    pairs = [(f"#r0-{k}", f"[data-region=r0-{k}]") for k in (1, 2)]
    states = [[page.find(each).get_attribute("aria-pressed") for each in pair] for pair in pairs]
    assert all(first == second for first, second in states)
    return [first == "true" for first, _ in states]


def draw(page: Opened, name: str, points: list[tuple[float, float]]) -> None:
    """Draw lines in an image between points (row, column), in its pixels."""
    shown = part(figure(page, name), ".picture")
    size = shown.size
    (height, width), scale = SIDE, (size["height"] / SIDE[0], size["width"] / SIDE[1])
    offsets = [
        (round((x - width / 2) * scale[1]), round((y - height / 2) * scale[0])) for y, x in points
    ]
    chain = ActionChains(page.browser, duration=10).move_to_element_with_offset(shown, *offsets[0])
    chain.click_and_hold()
    for offset in offsets[1:]:
        chain.move_to_element_with_offset(shown, *offset)
    chain.release().perform()


def warns_of_leaving(page: Opened) -> bool:
    script = """const leaving = new Event("beforeunload", { cancelable: true });
    window.dispatchEvent(leaving); return leaving.defaultPrevented"""
    return bool(page.browser.execute_script(script))


def test_maps_and_outlines_are_switched_by_clicks_and_keys(marked: Opened) -> None:
    def visible() -> tuple[bool, bool]:
        return marked.find(".map").is_displayed(), marked.find("#r0-1").is_displayed()

    first = figure(marked, "a/1.png")
    image, layer, lines = (part(first, name).rect for name in ("img", ".map", ".outlines"))
    assert layer == pytest.approx(image, abs=0.6)
    assert lines == pytest.approx(image, abs=0.6)
    assert visible() == (True, True)
    for press, expected in (("m", (False, True)), ("o", (False, False)), ("M", (True, False))):
        ActionChains(marked.browser).send_keys(press).perform()
        assert visible() == expected
    marked.find("[data-key=o]").click()
    assert visible() == (True, True)
    marked.write("0.7")
    marked.find("#number").send_keys("m")
    assert visible() == (True, True), "typed into a field"


def test_a_row_leads_to_its_region(marked: Opened) -> None:
    row = marked.browser.find_elements(By.CSS_SELECTOR, "#regions tbody tr")[0]
    part(row, "td").click()
    link = part(row, "a").get_attribute("href").partition("#")[2]
    assert marked.browser.switch_to.active_element.get_attribute("id") == link
    assert marked.find(f"#{link}").value_of_css_property("stroke-width") == "3.5px"
    script = "const r = arguments[0].getBoundingClientRect(); return [r.top, r.bottom, innerHeight]"
    top, bottom, height = marked.browser.execute_script(script, marked.find(f"#{link}"))
    assert 0 < top < bottom < height
    part(row, "a").send_keys(Keys.ENTER)
    assert marked.browser.switch_to.active_element.get_attribute("id") == link
    ActionChains(marked.browser).send_keys(Keys.ENTER).perform()
    assert marked.find(f"#{link}").get_attribute("aria-pressed") == "true"
    save_screenshot(marked.browser, "defects_region")
    beside = """let failed = false; window.onerror = () => { failed = true };
    document.querySelector("#regions").click(); return failed"""
    assert not marked.browser.execute_script(beside), "a click beside all rows"


def test_saved_masks_are_those_that_fit_takes(marked: Opened, tmp_path: Path) -> None:
    browser, first = marked.browser, figure(marked, "a/1.png")
    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    assert not marked.find("#save").is_enabled()
    assert marked.find("#state").text == "0 of 3 reviewed"
    marked.find("[data-region=r0-2]").click()
    assert pressed(marked) == [False, True]
    draw(marked, "a/1.png", [OTHER, (20, 20)])
    assert not browser.find_elements(By.CSS_SELECTOR, ".drawn"), "not before the button is pressed"
    part(first, ".draw").click()
    turns = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ring = [(OTHER[0] + 5 * np.sin(turn), OTHER[1] + 5 * np.cos(turn)) for turn in turns]
    draw(marked, "a/1.png", ring)
    draw(marked, "a/1.png", [(40, 50), (44, 50), (44, 56), (40, 56)])
    save_screenshot(browser, "defects_drawn")
    assert len(browser.find_elements(By.CSS_SELECTOR, ".drawn")) == 2
    assert browser.execute_script("return getSelection().isCollapsed"), "nothing is selected"
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert part(first, ".draw").get_attribute("aria-pressed") == "false"
    part(first, ".drawn:last-child").click()
    part(figure(marked, "a/2.png"), ".reviewed").click()
    assert marked.find("#state").text == "2 of 3 reviewed, not saved"
    assert warns_of_leaving(marked)
    marked.find("#save").click()
    archive = tmp_path / "masks.zip"
    WebDriverWait(browser, 10).until(lambda _: archive.exists())
    assert marked.find("#state").text == "2 of 3 reviewed, saved"
    assert not warns_of_leaving(marked)

    with zipfile.ZipFile(archive) as stored:
        assert stored.testzip() is None
        assert stored.namelist() == ["a/1.png.png", "a/2.png.png"]
        stored.extractall(tmp_path / "masks")
    with Image.open(tmp_path / "masks" / "a" / "1.png.png") as opened:
        assert (opened.mode, opened.getextrema()) == ("L", (0, 255))
    mask = read_mask(tmp_path / "masks" / "a" / "1.png.png", shape=SIDE)
    right = Darkness(0.75).find(tmp_path / "new" / "a" / "1.png").mask
    right[30:] &= np.arange(60) > 20  # without the false alarm
    rows, columns = np.mgrid[: SIDE[0], : SIDE[1]]
    distance = np.hypot(rows + 0.5 - OTHER[0], columns + 0.5 - OTHER[1])
    np.testing.assert_array_equal(mask[distance > 6], right[distance > 6])
    assert mask[distance < 4].all()
    assert not read_mask(tmp_path / "masks" / "a" / "2.png.png", shape=SIDE).any()
    command = ["defects", "fit", tmp_path / "new" / "a", "--masks", tmp_path / "masks"]
    options = ["--backbone", "tiny", "--weights", "random", "--patch", str(PATCH)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few images
        printed = run(*command, "-o", tmp_path / "better.hvlad", *options)
    assert "masks: 2 of 2 images have one" in printed.output
    assert "of 2 defect-free parts of images" in printed.output


def test_marks_survive_a_reload(marked: Opened) -> None:
    marked.find("#r0-1").click()
    part(figure(marked, "b.tif"), ".none").click()
    part(figure(marked, "a/1.png"), ".draw").click()
    draw(marked, "a/1.png", [(40, 50), (44, 50), (44, 56)])
    marked.browser.refresh()
    assert pressed(marked) == [True, False]
    assert len(marked.browser.find_elements(By.CSS_SELECTOR, ".drawn")) == 1
    assert marked.find("#state").text == "2 of 3 reviewed, not saved"
    assert warns_of_leaving(marked)
    no_defects = part(figure(marked, "b.tif"), ".none")
    region = part(figure(marked, "b.tif"), ".region")
    assert region.get_attribute("aria-pressed") == "true"
    no_defects.click()
    assert region.get_attribute("aria-pressed") == "false", "undone"


def test_a_browser_that_keeps_nothing(marked: Opened) -> None:
    forbid = "Object.defineProperty(window, 'localStorage', { get() { throw Error('no') } })"
    added = marked.browser.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": forbid}
    )
    try:
        marked.browser.refresh()
        marked.find("#r0-1").click()
        assert marked.find("#state").text == "1 of 3 reviewed, not saved"
    finally:
        marked.browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
        marked.browser.execute_script("window.onbeforeunload = null")
        marked.browser.refresh()


def test_controls_have_names_and_pictures_fit_a_telephone(marked: Opened) -> None:
    names = {
        "#r0-1": "False alarm: a/1.png, region 1",
        "[data-region=r0-1]": "False alarm: a/1.png, region 1",
        ".reviewed": "Reviewed: a/1.png",
        ".draw": "Draw missed defects: a/1.png",
        ".none": "No defects: a/1.png",
        "#regions": "Table of regions",
    }
    assert {each: marked.find(each).accessible_name for each in names} == names
    assert marked.find("#state").aria_role == "status"
    size = {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    marked.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        width = marked.browser.execute_script("return document.documentElement.scrollWidth")
        assert width == 400
        save_screenshot(marked.browser, "defects_telephone")
    finally:
        marked.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
