"""The slider for the threshold in a real browser: counts, histograms and calls follow it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.dark_spots import Darkness, spotted
from support.review_windows import save_screenshot

from hypervlad.evaluation import evaluate_defects
from hypervlad.results import write_defect_report, write_findings
from hypervlad.results.reports import defects

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

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
        patch.setattr(defects, "page_facts", lambda scorer: {"kind of model": EVIL})
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
    assert scores.texts(".gallery .call") == ["anomalous"] * 4 + ["normal"] * 2
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
