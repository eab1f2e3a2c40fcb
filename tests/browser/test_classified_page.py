"""The page of classified images in a real browser, from the disk: sorted, filtered, opened."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.classifications import classification
from support.review_windows import save_screenshot

from hypervlad import HypercolumnVLAD, MicrographClassifier, make_tem_images
from hypervlad.common.wording import percent
from hypervlad.results import write_classified_page

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

pytestmark = pytest.mark.slow
EVIL = "</script><script>document.title='broken'</script><!-- & \"'.png"


@pytest.fixture(scope="module")
def model() -> MicrographClassifier:
    images, labels = make_tem_images(96, size=64, random_state=0)
    encoder = HypercolumnVLAD(
        "tiny", weights="random", image_size=32, n_codewords=4, random_state=0
    )
    return MicrographClassifier(encoder, random_state=0).fit(images, labels)


class Sheet:
    """A page in the browser, and what it was made of."""

    def __init__(
        self,
        browser: Any,
        model: MicrographClassifier,
        path: Path,
        n: int,
        judged: bool = True,
        truth: list[str | None] | None = None,
    ) -> None:
        self.browser, self.path = browser, path
        rng = np.random.default_rng(1)
        images, _ = make_tem_images(48, size=160, random_state=0)
        self.kinds = rng.choice(["sure", "ambiguous", "out_of_distribution"], n)
        self.kinds[-1] = "sure"
        self.found = classification(
            rng.dirichlet(np.ones(len(model.classes_)), n),
            unlike=np.flatnonzero(self.kinds == "out_of_distribution").tolist(),
            kinds=self.kinds.tolist() if judged else None,
            skipped=[(n, Path("bad.tif"))],
        )
        self.names = [f"scans/{number}.png" for number in range(n - 1)] + [f"scans/{EVIL}"]
        self.labels = [str(model.classes_[code]) for code in self.found.proba.argmax(axis=1)]
        # As the page has them: of two images that differ in later digits only, the name decides.
        self.confidence = np.round(self.found.proba.max(axis=1), 6)
        write_classified_page(
            path,
            model,
            [images[k] for k in rng.integers(0, len(images), n)] + [np.eye(3)],
            names=[*self.names, "bad.tif"],
            max_error=0.75 if judged else None,
            true_labels=None if truth is None else [*truth, None],
            predictions=self.found,
        )
        self.opened()

    def opened(self) -> Sheet:
        self.browser.get(self.path.as_uri())
        return self

    def find(self, selector: str) -> Any:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def text(self, name: str) -> str:
        found: str = self.find(f"#{name}").text
        return found

    def order(self, value: str) -> None:
        Select(self.find("#order")).select_by_value(value)

    @property
    def shown(self) -> list[int]:
        """The images whose cards are shown, in order."""
        script = "return [...document.querySelectorAll('.card')].map(c => Number(c.dataset.image))"
        found: list[int] = self.browser.execute_script(script)
        return found

    def click(self, part: str, name: str) -> None:
        """Press the bar of a class or kind."""
        buttons = self.browser.find_elements(By.CSS_SELECTOR, f"#{part} button")
        (button,) = [b for b in buttons if b.find_element(By.CLASS_NAME, "name").text == name]
        button.click()

    def counted(self, part: str) -> list[int]:
        numbers = self.browser.find_elements(By.CSS_SELECTOR, f"#{part} .number")
        return [int(number.text.replace(",", "")) for number in numbers]

    def write(self, name: str, words: str) -> None:
        field = self.find(f"#{name}")
        field.clear()
        field.send_keys(words)

    def until(self, true: Any) -> None:
        WebDriverWait(self.browser, 20, 0.02).until(lambda _: true())

    def press(self, *keys: str) -> None:
        for key in keys:
            self.browser.switch_to.active_element.send_keys(key)

    def picture(self, name: str) -> None:
        save_screenshot(self.browser, name)


@pytest.fixture(scope="module")
def pages(
    browser: Any, model: MicrographClassifier, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Sheet]:
    """Open a page of so many images, which is made once."""

    @functools.cache
    def made(n: int) -> Sheet:
        return Sheet(browser, model, tmp_path_factory.mktemp("pages") / f"{n}.html", n)

    return made


@pytest.fixture
def few(pages: Callable[[int], Sheet]) -> Iterator[Sheet]:
    yield pages(12).opened()
    assert not pages(12).browser.get_log("browser"), "the page's own errors"


@pytest.fixture
def many(pages: Callable[[int], Sheet]) -> Iterator[Sheet]:
    yield pages(500).opened()
    assert not pages(500).browser.get_log("browser"), "the page's own errors"


def test_shares_are_rounded_as_in_tables_and_messages(few: Sheet) -> None:
    """Less than everything is never 100 %; two doubles between which both round alike."""
    shares = [0, 1e-9, 0.0009, 0.001, 0.0025, 0.1225, 1 / 3, 0.5, 0.9949, 0.996, 0.999, 0.99996, 1]
    shares += np.random.default_rng(0).random(200).tolist()
    found = few.browser.execute_script("return arguments[0].map(percent)", shares)
    assert found == [percent(share) for share in shares]


def in_order(key: Any) -> list[int]:
    return np.argsort(key, kind="stable").tolist()


def test_images_are_sorted(few: Sheet) -> None:
    assert few.browser.title == "Classified images", "no name is run as a script"
    assert few.shown == in_order(few.confidence)
    script = "return [...document.querySelectorAll('.card img')].map((i) => i.naturalWidth)"
    few.until(lambda: few.browser.execute_script(script) == [160] * 12)
    few.picture("few")
    few.order("sure")
    assert few.shown == in_order(-few.confidence)
    few.order("name")
    assert few.shown == [11, *range(11)], "2 before 10"
    few.order("novelty")
    assert [few.found.novelty[k] for k in few.shown] == sorted(few.found.novelty, reverse=True)
    few.order("class")
    assert [few.labels[k] for k in few.shown] == sorted(few.labels)
    assert "bad.tif damaged" in few.find("main").text


def test_filters_leave_what_fits_and_count_it(many: Sheet) -> None:
    n, kinds = len(many.names), many.kinds
    classes = sorted(set(many.labels))
    assert many.text("status") == f"{n} images"
    assert many.counted("classes") == [many.labels.count(name) for name in classes]
    assert many.counted("kinds") == [
        int((kinds == kind).sum()) for kind in ("sure", "ambiguous", "out_of_distribution")
    ]
    many.picture("many")
    many.click("kinds", "unlike the training images")
    unknown = np.flatnonzero(kinds == "out_of_distribution")
    assert many.text("status") == f"{len(unknown)} of {n} images"
    of_unknown = [many.labels[k] for k in unknown]
    assert many.counted("classes") == [of_unknown.count(name) for name in classes]
    many.click("classes", classes[0])
    fit = [k for k in unknown if many.labels[k] == classes[0]]
    assert set(many.shown) == set(fit[:120] if len(fit) > 120 else fit)
    assert many.counted("classes") == [of_unknown.count(name) for name in classes], "to add others"
    many.find("#clear").click()
    assert many.text("status") == f"{n} images"
    many.write("low", "50")
    many.write("high", "60")
    between = np.flatnonzero((many.confidence >= 0.5) & (many.confidence <= 0.6))
    assert 0 < len(between) < n
    assert many.text("status") == f"{len(between)} of {n} images"
    many.find("#clear").click()
    many.write("text", "/49")
    many.until(lambda: many.text("status") == f"10 of {n} images")
    many.order("name")
    assert many.shown == [49, *range(490, 499)]
    many.write("text", "nowhere")
    many.until(lambda: many.find("#nothing").is_displayed())


def test_wrong_predictions_are_filtered(
    browser: Any, model: MicrographClassifier, tmp_path: Path
) -> None:
    classes = [str(label) for label in model.classes_]
    truth = [None, None, "<b>new</b>", *(classes * 10)[:37]]
    sheet = Sheet(browser, model, tmp_path / "page.html", 40, truth=truth)
    wrong = [k for k in range(2, 40) if truth[k] != sheet.labels[k]]
    right = [k for k in range(2, 40) if truth[k] == sheet.labels[k]]
    assert wrong
    assert right
    assert sheet.counted("truths") == [len(right), len(wrong), 2]
    assert f"{len(right)} of 38" in sheet.find("main").text
    sheet.click("truths", "predicted wrongly")
    assert set(sheet.shown) == set(wrong)
    assert sheet.text("status") == f"{len(wrong)} of 40 images"
    shown = [card.text for card in browser.find_elements(By.CSS_SELECTOR, ".card .truth")]
    assert shown == [f"true label: {truth[k]}" for k in sheet.shown]
    sheet.picture("true-labels")
    browser.find_elements(By.CSS_SELECTOR, ".card")[0].click()
    text = sheet.text("details-truth")
    assert text == f"True label: {truth[sheet.shown[0]]} (predicted wrongly)."
    sheet.picture("true-label")
    sheet.find("#close").click()
    sheet.click("truths", "unknown")
    assert set(sheet.shown) == {0, 1, *wrong}
    sheet.find("#clear").click()
    assert len(sheet.shown) == 40
    assert not browser.get_log("browser")


def test_a_bar_of_the_histogram_is_a_range(many: Sheet) -> None:
    bins = np.minimum((many.confidence * 20).astype(int), 19)
    chosen = int(np.bincount(bins).argmax())
    bars = many.browser.find_elements(By.CSS_SELECTOR, "#histogram .bin")
    assert len(bars) == 20
    bars[chosen].click()
    assert many.find("#low").get_property("value") == str(5 * chosen)
    assert many.text("status").startswith(f"{int((bins == chosen).sum())} of")
    many.browser.find_elements(By.CSS_SELECTOR, "#histogram .bin")[chosen].click()
    assert many.text("status") == f"{len(many.names)} images"


def test_only_a_page_of_cards_is_drawn(many: Sheet) -> None:
    order = in_order(many.confidence)
    assert many.shown == order[:120]
    many.find("#next").click()
    assert many.shown == order[120:240]
    assert many.text("place") == "121 – 240 of 500"
    Select(many.find("#at-once")).select_by_visible_text("480")
    assert many.shown == order[:480]
    many.find("#next").click()
    assert many.shown == order[480:]
    assert many.find("#next").get_property("disabled")
    many.find("#previous").click()
    assert many.shown == order[:480]


def test_details_are_those_of_the_image(few: Sheet) -> None:
    few.order("name")
    few.browser.find_elements(By.CSS_SELECTOR, ".card")[1].click()
    assert few.text("details-name") == few.names[0]
    assert few.labels[0] in few.text("details-answer")
    shares = [bar.text for bar in few.browser.find_elements(By.CSS_SELECTOR, "#details-proba li")]
    expected = sorted(few.found.proba[0], reverse=True)
    for stated, share in zip(shares, expected, strict=True):
        assert float(stated.split()[-2].lstrip("<")) == pytest.approx(100 * share, abs=0.11)
    if few.kinds[0] != "sure":
        assert f"is {few.kinds[0]}" in few.text("details-reason")
    assert few.text("details-nearest")
    few.picture("details")
    few.find("#after").click()
    assert few.text("details-name") == few.names[1]
    few.press(Keys.ARROW_LEFT)
    assert few.text("details-name") == few.names[0]
    few.press(Keys.ESCAPE)
    few.until(lambda: not few.find("#details").is_displayed())


def test_all_can_be_done_with_keys(few: Sheet) -> None:
    order = in_order(few.confidence)
    few.browser.execute_script("document.querySelector('.card').focus()")
    few.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.ENTER)
    assert few.text("details-name") == few.names[order[1]]
    few.press(Keys.ARROW_RIGHT, Keys.ESCAPE)
    few.until(  # the focus is where one has come to
        lambda: few.browser.switch_to.active_element.get_attribute("data-image") == str(order[2])
    )
    few.press(Keys.END)
    focused = few.browser.switch_to.active_element
    assert focused.get_attribute("data-image") == str(order[-1])


def test_without_a_judgement_images_unlike_the_training_images_are_marked(
    browser: Any, model: MicrographClassifier, tmp_path: Path
) -> None:
    plain = Sheet(browser, model, tmp_path / "page.html", 12, judged=False)
    n_unlike = int((plain.found.novelty > 1).sum())
    assert 0 < n_unlike < 12
    marked = plain.browser.find_elements(By.CSS_SELECTOR, ".card .kind")
    assert [mark.text for mark in marked] == ["unlike the training images"] * n_unlike
    assert "sure" not in plain.find("#kinds").text
    plain.picture("plain-kinds")
    plain.order("novelty")
    assert plain.shown[0] == int(plain.found.novelty.argmax())
    plain.browser.find_elements(By.CSS_SELECTOR, ".card")[0].click()
    assert not plain.find("#details-reason").is_displayed()
    assert plain.find("#details-near").is_displayed()
    assert f"{plain.found.novelty.max():.2f}" in plain.text("details-novelty")
    assert not browser.get_log("browser")


def test_it_is_readable_in_the_dark_and_on_paper(few: Sheet) -> None:
    def colours() -> list[str]:
        script = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
        found: list[str] = few.browser.execute_script(script)
        return found

    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    light = colours()
    few.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    assert colours() != light
    few.picture("dark")
    few.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {**dark, "media": "print"})
    assert colours() == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
    assert not few.find("#filters").is_displayed()
    assert few.find("#grid").is_displayed()
    few.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
