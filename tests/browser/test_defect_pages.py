"""Pages of defects in a real browser: the slider for the threshold, and regions and their marks."""

import json
import re
import warnings

import numpy as np
import pytest
from support.browsing import Window
from support.commands import run, save
from support.dark_spots import Darkness, spotted
from support.surfaces import PATCH, blotted, surface

from hypervlad.evaluation import evaluate_defects
from hypervlad.particles import read_outlines
from hypervlad.results import write_defect_report, write_findings

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys

EVIL = "</script><script>document.title='broken'</script><!-- & \"'.png"
LEVELS = [0.9, 0.8, 0.2, 0.7, 0.1, 0.45]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of scored images, and one of an evaluation: the first three have defects."""
    folder = tmp_path_factory.mktemp("pages")
    images = [spotted(level) for level in LEVELS]
    masks = [image < 1 for image in images[:3]] + [None] * 3
    names = ["a", "b", "c", "d", "e", "f"]
    write_findings(folder, Darkness(), images, names)
    evaluation = evaluate_defects(Darkness(), images, masks, [EVIL, *names[1:]])
    path = write_defect_report(folder / "evaluation.html", Darkness(), images, evaluation)
    return {"scores": folder / "report.html", "evaluation": path}


def calls(page):
    """What the images are called, those with the highest scores first."""
    table = page.text.partition("Image by image")[2]
    return re.findall(r"\t(anomalous|normal)\t", table)


def sides(page):
    """How many scores of each histogram are above the threshold, and how many below it."""
    return re.findall(r": (\d+ of \d+) \([\d.]+ %[,)]", page.words)


def threshold(page):
    """The slider, and the field for a number."""
    slider, number = page.named("Threshold")
    assert (slider.aria_role, number.aria_role) == ("slider", "spinbutton")
    return slider, number


def write(page, text):
    _, number = threshold(page)
    number.clear()
    number.send_keys(text)


@pytest.fixture
def scores(browser, pages):
    page = Window(browser, pages["scores"])
    yield page
    page.assert_safe()


def test_a_number_and_keys_move_everything(scores):
    slider, number = threshold(scores)
    assert number.get_property("value") == "0.5"
    assert float(slider.get_property("value")) == pytest.approx(0.5, abs=0.01)
    start = (["3 of 6", "3 of 6", "1 of 3", "2 of 3"], ["anomalous"] * 3 + ["normal"] * 3)
    assert (sides(scores), calls(scores)) == start
    write(scores, "0.4")
    assert sides(scores) == ["4 of 6", "2 of 6", "1 of 3", "2 of 3"]
    assert calls(scores) == ["anomalous"] * 4 + ["normal"] * 2
    assert "called anomalous: 4 of 6 (66.7 %, 95 % interval 30.0 to 90.3 %)" in scores.words
    assert len(re.findall(r"score [\d.]+, anomalous", scores.text)) == 4, "beneath pictures"
    assert "--threshold 0.4." in scores.text
    scores.click("Back to 0.5")
    assert (sides(scores), calls(scores)) == start
    assert "--threshold 0.5." in scores.text
    slider.send_keys(Keys.END)
    assert sides(scores)[::2] == ["0 of 6", "0 of 3"], "the slider covers all scores"
    write(scores, "")
    assert calls(scores) == ["normal"] * 6, "until there is a number"
    slider.send_keys(Keys.HOME)
    assert sides(scores)[::2] == ["6 of 6", "3 of 3"]
    before = float(slider.get_property("value"))
    slider.send_keys(Keys.ARROW_RIGHT)
    after = float(number.get_property("value"))
    assert 0 < after - before < 0.01
    assert float(slider.get_attribute("aria-valuetext")) == after


def test_found_images_and_false_alarms_follow(browser, pages):
    page = Window(browser, pages["evaluation"])
    assert sides(page)[1:5] == ["2 of 3", "1 of 3", "1 of 3", "2 of 3"]  # below the first words
    write(page, "0.15")
    assert sides(page)[1:5] == ["3 of 3", "0 of 3", "2 of 3", "1 of 3"]
    assert calls(page) == ["anomalous"] * 5 + ["normal"]
    page.assert_fits_a_telephone()
    page.assert_safe()


# --- regions and marks ------------------------------------------------------------------------

SIDE, OTHER = (48, 60), (12, 12)  # of an image, pixels; centre of the defect that is not found
FIRST = "Mark as false alarm: a/1.png, region 1"


@pytest.fixture
def marked(browser, tmp_path):
    """A page: three regions of its first image are found, one in a hole, a faint defect is not."""
    image, _ = blotted(0, (30, 44), radius=10)
    image[blotted(0, (30, 44), radius=6)[1]] = 0.5
    image[29:31, 43:45] = 0.15
    image[38:42, 8:14] = 0.1
    image[blotted(0, OTHER, radius=4)[1]] *= 0.9
    save(tmp_path / "new" / "a" / "1.png", image)
    save(tmp_path / "new" / "a" / "2.png", surface(1))
    save(tmp_path / "new" / "b.tif", np.minimum(blotted(2, (20, 20))[0] + 0.1, 1))
    files = sorted((tmp_path / "new").rglob("*.*"))
    names = [file.relative_to(tmp_path / "new").as_posix() for file in files]
    write_findings(tmp_path / "found", Darkness(0.75), files, names)
    page = Window(browser, tmp_path / "found" / "report.html")
    yield page
    page.assert_safe()
    page.run("localStorage.clear(); window.onbeforeunload = null")


def pressed(page, name):
    """Whether a region is a false alarm, in the picture and in the table."""
    shown = page.named(name)
    assert len(shown) == 2
    (state,) = {each.get_attribute("aria-pressed") for each in shown}
    return bool(state == "true")


def draw(page, name, points):
    """Draw lines in an image between points (row, column), in its pixels."""
    picture = page.picture(name)
    mouse = ActionChains(page.browser, duration=10)
    for number, (y, x) in enumerate(points):
        mouse.w3c_actions.pointer_action.move_to_location(*page.point(picture, x, y, SIDE))
        if number == 0:
            mouse.click_and_hold()
    mouse.release().perform()


def warns_of_leaving(page):
    script = """const leaving = new Event("beforeunload", { cancelable: true });
    window.dispatchEvent(leaving); return leaving.defaultPrevented"""
    return bool(page.run(script))


def test_a_row_leads_to_its_region_and_keys_switch_and_mark(marked):
    marked.click("a/1.png, region 1")
    assert marked.focused == FIRST
    (region,) = [each for each in marked.named(FIRST) if marked.is_in_view(each)]
    left, top, right, bottom = marked.box(marked.picture("a/1.png"))
    box = marked.box(region)
    assert left <= box[0] < box[2] <= right
    assert top <= box[1] < box[3] <= bottom
    ActionChains(marked.browser).send_keys(Keys.ENTER).perform()
    assert pressed(marked, FIRST)
    for key, outlines, maps in (("m", 2, False), ("o", 1, False), ("M", 1, True), ("o", 2, True)):
        ActionChains(marked.browser).send_keys(key).perform()
        assert len(marked.named(FIRST)) == outlines
        assert marked.find("Maps").is_selected() == maps
        assert marked.find("Outlines").is_selected() == (outlines == 2)
    _, number = threshold(marked)
    number.send_keys("m")
    assert marked.find("Maps").is_selected(), "typed into a field"
    marked.assert_fits_a_telephone()


def test_saved_masks_are_those_that_fit_takes(marked, tmp_path):
    browser = marked.browser
    assert not marked.find("Save masks").is_enabled()
    assert "0 of 3 reviewed" in marked.text
    finding = Darkness(0.75).find(tmp_path / "new" / "a" / "1.png")
    (false,) = [k for k, each in enumerate(finding.regions, start=1) if each.column < 20]
    marked.named(f"Mark as false alarm: a/1.png, region {false}")[0].click()
    assert pressed(marked, f"Mark as false alarm: a/1.png, region {false}")
    draw(marked, "a/1.png", [OTHER, (20, 20)])
    own = "Missed defect, drawn here: remove"
    assert not marked.named(own), "not before the button is pressed"
    marked.click("Draw missed defects: a/1.png")
    turns = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ring = [(OTHER[0] + 5 * np.sin(turn), OTHER[1] + 5 * np.cos(turn)) for turn in turns]
    draw(marked, "a/1.png", ring)
    draw(marked, "a/1.png", [(2, 50), (6, 50), (6, 56), (2, 56)])
    marked.screenshot("defects-drawn")
    assert len(marked.named(own)) == 2
    assert marked.run("return getSelection().isCollapsed"), "nothing is selected"
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert marked.find("Draw missed defects: a/1.png").get_attribute("aria-pressed") == "false"
    marked.named(own)[-1].click()
    assert "0 of 3 reviewed. a/1.png has marks but is not reviewed: it is not" in marked.text
    marked.click("Reviewed: a/1.png", "Reviewed: a/2.png")
    assert warns_of_leaving(marked)
    saved = marked.downloaded(tmp_path, "Save masks", "masks.json")
    assert "2 of 3 reviewed, saved" in marked.text
    assert not warns_of_leaving(marked)
    listed = json.loads(saved.read_text("utf-8"))["images"]
    assert [each["file_name"] for each in listed] == ["a/1.png", "a/2.png"]
    mask = read_outlines(saved, image="new/a/1.png").label_image() > 0
    right = finding.mask.copy()
    right[30:] &= np.arange(60) > 20  # without the false alarm
    assert len(finding.regions) == 3
    rows, columns = np.mgrid[: SIDE[0], : SIDE[1]]
    distance = np.hypot(rows + 0.5 - OTHER[0], columns + 0.5 - OTHER[1])
    np.testing.assert_array_equal(mask[distance > 6.5], right[distance > 6.5])
    assert mask[distance < 4].all()
    assert len(read_outlines(saved, image="new/a/2.png")) == 0
    command = ["defects", "fit", tmp_path / "new" / "a", "--masks", saved]
    options = ["--backbone", "tiny", "--weights", "random", "--set", f"patch={PATCH}"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few images
        printed = run(*command, "-o", tmp_path / "better.hvlad", *options)
    assert "masks: 2 of 2 images have one" in printed.output


def test_marks_survive_a_reload_if_the_browser_keeps_them(marked):
    marked.named(FIRST)[0].click()
    marked.click("No defects: b.tif", "Draw missed defects: a/1.png")
    draw(marked, "a/1.png", [(40, 50), (44, 50), (44, 56)])
    marked.browser.refresh()
    assert pressed(marked, FIRST)
    assert not pressed(marked, "Mark as false alarm: a/1.png, region 2")
    assert len(marked.named("Missed defect, drawn here: remove")) == 1
    assert "1 of 3 reviewed, not saved. a/1.png has" in marked.text
    assert warns_of_leaving(marked)
    assert pressed(marked, "Mark as false alarm: b.tif, region 1")
    marked.click("No defects: b.tif")
    assert not pressed(marked, "Mark as false alarm: b.tif, region 1"), "undone"
    forbid = "Object.defineProperty(window, 'localStorage', { get() { throw Error('no') } })"
    command, source = "Page.addScriptToEvaluateOnNewDocument", {"source": forbid}
    added = marked.browser.execute_cdp_cmd(command, source)
    try:
        marked.browser.refresh()
        assert not pressed(marked, FIRST)
        marked.named(FIRST)[0].click()
        assert "0 of 3 reviewed. a/1.png has marks" in marked.text
    finally:
        marked.browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
        marked.run("window.onbeforeunload = null")
        marked.browser.refresh()
