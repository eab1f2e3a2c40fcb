"""The page of outlines in a real browser: chosen, drawn, merged, split, redrawn, undone."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageDraw, ImageFont
from support.commands import rows_of
from support.found_fields import App, write_found
from support.review_windows import Page

from hypervlad import load, make_fibre_images
from hypervlad.data import load_pixel_sizes
from hypervlad.particles import FoundFolder

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys


class Editor(Page):
    """A window that shows the page of outlines."""

    def opened(self) -> bool:
        return bool(self.run("return Boolean(image)"))

    def run(self, script: str, *arguments: object) -> Any:
        self.front()
        return self.browser.execute_script(script, *arguments)

    def at(self, x: float, y: float) -> tuple[int, int]:
        """Where a pixel of the image is, from the middle of the stage."""
        script = """const [width, height] = size();
        return [view.scale * arguments[0] + view.x - width / 2,
          view.scale * arguments[1] + view.y - height / 2]"""
        across, down = self.run(script, x, y)
        return round(across), round(down)

    def click(self, x: float, y: float, *, shift: bool = False) -> None:
        self.drag((x, y), shift=shift)

    def drag(self, *points: tuple[float, float], shift: bool = False) -> None:
        actions = ActionChains(self.browser, duration=20)
        if shift:
            actions.key_down(Keys.SHIFT)
        for number, point in enumerate(points):
            actions.move_to_element_with_offset(self.find("stage"), *self.at(*point))
            if not number:
                actions.click_and_hold()
        actions.release().key_up(Keys.SHIFT).perform()

    def press(self, *keys: str) -> None:
        for key in keys:
            ActionChains(self.browser).send_keys(key).perform()

    @property
    def areas(self) -> dict[int, int]:
        return dict(self.run("return [...shapes.values()].map(({ label, area }) => [label, area])"))


@pytest.fixture
def serve(browser: Any) -> Iterator[Callable[..., tuple[Any, App]]]:
    """Serve folders, each in a window; the page has had no errors at the end."""
    apps, windows = list[App](), list[Page]()

    def served(folder: Path, kind: type[Page] = Editor, path: str = "") -> tuple[Page, App]:
        apps.append(App(folder))
        windows.append(kind(browser, apps[-1].link + path))
        return windows[-1], apps[-1]

    yield served
    for window in windows:
        window.close()
    for app in apps:
        app.stop()


@pytest.fixture
def editor(serve: Any, tmp_path: Path) -> Any:
    window, window.app = serve(write_found(tmp_path))
    return window


def test_outlines_are_corrected_with_the_pointer_and_keys(editor: Editor) -> None:
    before = editor.areas
    assert sorted(before.values()) == [900, 900, 1600]
    editor.picture("outlines")
    editor.drag((20, 10), (140, 60), shift=True)
    editor.says("2 outlines in the rectangle")
    assert editor.text("chosen") == "2 outlines chosen"
    ring = "[[0, 0, 9, 0, 9, 9, 0, 9], [3, 3, 3, 6, 6, 6, 6, 3]]"
    editor.run(f"shapes.set(9, {{label: 9, area: 72, rings: {ring}, ...pathOf({ring})}})")
    assert editor.run("return outlinesAt([4, 4])[0].label") == 9, "in its hole"
    editor.run("shapes.set(8, {...shapes.get(9), label: 8, area: 73}); selected.clear()")
    beneath = []
    for is_more in (False, True, True, True):
        editor.click(1.5, 1.5, shift=is_more)
        beneath.append(editor.run("return [...selected]"))
    assert beneath == [[9], [9, 8], [8], [8, 9]]
    editor.run("shapes.delete(8); shapes.delete(9); selected.clear()")
    assert "mark it as done" in editor.find("learn").get_attribute("title")
    first = "const one = document.createElement('p'); update(one, '<b>1</b> of <i>2</i>'); "
    kept = f"{first}const [kept] = one.children; update(one, '<b>2</b> of <i>2</i><u>3</u>'); "
    assert editor.run(f"{kept} return kept === one.children[0] && one.textContent") == "2 of 23"
    editor.click(110, 30)
    editor.says("900 pixels, 67.7 nm across")
    editor.press("x")
    editor.says("saved: 1 outline deleted")
    editor.press("s")
    editor.drag((106, 30), (115, 36))
    editor.until(lambda: editor.areas.get(4, 0) > 850)
    editor.press("u", "a")
    editor.drag((150, 100), (170, 100), (170, 120), (150, 120))
    editor.says("saved: outline 4 drawn")
    editor.press("c")
    editor.drag((80, 85), (80, 135))
    editor.says("split into 2 outlines")
    editor.press("v", Keys.ESCAPE)
    editor.click(65, 110)
    editor.click(95, 110, shift=True)
    editor.press("m")
    editor.says("saved: 2 outlines merged")
    editor.press("e")
    editor.drag((100, 100), (110, 100), (110, 120), (100, 120))
    editor.says("redrawn, +")
    editor.picture("outlines_corrected")
    editor.press("d")
    editor.says("saved: this image is done")
    assert editor.text("progress") == "1 of 2 images done"
    editor.press("d")
    editor.says("saved: this image is not done")
    editor.press(*"uuuuu")
    editor.until(lambda: editor.areas == before)
    editor.press("r")
    editor.until(lambda: len(editor.areas) == 2)
    editor.press(".")
    editor.until(lambda: editor.text("name") == "b.png · 3 outlines")


def test_keys_alone_correct_and_another_window_is_noticed(editor: Editor) -> None:
    asked = "shown = null; let n = 0; const send = post; "
    asked += "post = (path, body) => { n += path === 'outlines'; return send(path, body); }; "
    assert editor.run(f"{asked} return Promise.all([refresh(), refresh()]).then(() => n)") == 1
    editor.until(editor.opened)
    editor.press("w")
    editor.says("1 of 3")
    assert editor.run("stroke = [[1, 1]]; return open(shown.id).then(() => stroke.length)") == 1
    assert editor.run("stroke = null; return selected.size") == 1
    editor.press("n")
    editor.until(lambda: not editor.hidden("dialog"))
    editor.press("cube", Keys.ENTER, Keys.ENTER)
    editor.says("saved: cube: 1 outline")
    editor.press(Keys.ESCAPE, Keys.ESCAPE, "a", " ", " ")  # a cross, and the pen
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.ARROW_LEFT):
        editor.press(key * 4)
    editor.press(" ")
    editor.says("drawn")
    app = editor.app  # type: ignore[attr-defined]
    app.image()
    editor.run("busy = true")  # so that it does not ask what has changed
    app.edit("delete", [1])
    editor.run("busy = false; selected.clear(); selected.add(2); remove()")
    editor.until(lambda: "another window" in editor.text("trouble"))
    editor.until(lambda: list(editor.areas) == [2, 3, 4])
    app.edit("delete", [2])
    editor.says("changed in another window")
    editor.until(lambda: list(editor.areas) == [3, 4])
    editor.press("j")  # but those that were drawn, and are gone
    editor.says("larger than most here; 3 more")
    editor.press(*"jjjj")
    editor.says("the next round begins")


def test_from_a_folder_of_images_to_a_report_in_few_clicks(
    browser: Any, serve: Any, tmp_path: Path
) -> None:
    fields = write_found(tmp_path).with_name("fields")  # two PNGs without a pixel size
    pixels = np.asarray(Image.open(fields / "a.png"))
    for number, share in enumerate((0.5, 0.5, 2e-4)):  # the last is of another magnification
        scale: Any = {"imagej": True, "resolution": (share, share), "metadata": {"unit": "nm"}}
        tifffile.imwrite(fields / f"c{number}.tif", np.roll(pixels, 9 * number, axis=0), **scale)
    (fields / "d").mkdir()
    tifffile.imwrite(fields / "d" / "a.tif", pixels[::-1].astype(np.uint16) * 200)
    (fields / "e.png").write_bytes(b"no image")
    (page, app), results = serve(fields), tmp_path / "fields-results"
    clicks = 0

    def click(name: str) -> None:
        nonlocal clicks
        clicks += 1
        page.until(lambda: page.find(name).is_enabled() and page.find(name).is_displayed())
        page.find(name).click()

    page.until(lambda: "3 without a pixel size · 1 unreadable" in page.text("progress"))
    unread = "This image cannot be read: e.png: not an image"
    page.run("open(7)")
    page.until(lambda: page.text("wait").startswith(unread))
    page.run("refresh()")
    page.press("p")
    page.says(unread)
    page.run("open(1)")
    page.until(page.opened)
    click("preview")
    page.says("3 bright particles found")
    page.find("#sizes [name=length]", "css selector").send_keys("2")
    page.find("#sizes [name=length] + button", "css selector").click()
    page.says("3 images: 2 nm per pixel")
    click("find")
    page.until(lambda: page.text("task-step") == "Particles are found.")
    page.until(lambda: "e.png: not an image" in page.text("task-lines"))
    page.until(page.opened)
    assert page.text("progress") == "0 of 6 images done"
    assert "d/a.tif\n3 outlines" in page.text("list"), "with the folder, and the unit"
    page.click(110, 30)
    page.press("x")
    page.says("saved: 1 outline deleted")
    page.press("d")
    page.until(lambda: page.text("progress") == "1 of 6 images done")
    page.press("l")
    page.until(lambda: page.text("sheet-title") == "Learn from 1 image that is done")
    page.picture("app_learn")
    page.find("#passes [value='1']", "css selector").click()
    page.find("#sheet .primary", "css selector").click()
    clicks += 7
    page.until(lambda: page.text("sheet-title") == "Outlines before and now")
    page.picture("app_learnt")
    assert "held out: none" in page.text("sheet-content")
    assert "1 edited image kept as it is" in page.text("sheet-content")
    assert "c2.tif: the outlines stay as they were" in page.text("sheet-content")
    page.press(Keys.ESCAPE)
    page.press("t")
    clicks += 2
    page.until(lambda: page.text("sheet-title") == "Results")
    page.picture("app_results")
    names = "particles.html report/figure.svg counts.csv tables.xlsx qupath.zip coco.json"
    links = page.run("return [...document.querySelectorAll('#sheet a')].map((a) => a.href)")
    for name in names.split():
        assert f"{app.link}results/{name}" in links
        assert app.send(f"results/{name}").status == 200
    assert b"roi/d/a.tif.zip" in app.send("results/fiji.zip").body
    assert clicks == 11
    assert load(results / "model.hvlad").pixel_size_ == 2  # that was typed
    assert (results / "earlier-1" / "particles.csv").exists()
    page.press(Keys.ESCAPE, "k")
    page.until(lambda: page.text("sheet-title") == "Outlines before and now")
    page.find("#sheet [data-post=take_back]", "css selector").click()
    page.says("the outlines are as they were before")
    assert page.text("list").count("outlines") == 6, "those of before only"
    browser.get(f"{app.link}defects.html")
    boxes = browser.find_elements("css selector", "#list [type=checkbox]")
    boxes[1].click()
    ActionChains(browser).key_down(Keys.SHIFT).click(boxes[4]).key_up(Keys.SHIFT).perform()
    page.until(lambda: app.send("defects.html").body.count(b'value="normal" checked') == 4)
    browser.get(f"{app.link}results/report/report.html")
    assert "95 % interval" in browser.find_element("tag name", "body").text
    said = [entry["message"] for entry in browser.get_log("browser")]
    expected = "/small/7", "422 (UNPROCESSABLE"  # of the image that cannot be read
    assert all(any(each in text for each in expected) for text in said), said


def test_what_bars_say_is_used_with_one_click_or_measured_by_hand(browser, serve, tmp_path):
    pytest.importorskip("rapidocr", reason="labels are read with the extra ocr")
    fields = write_found(tmp_path, "c.png").with_name("fields")
    for file in sorted(fields.iterdir()):
        (image := Image.new("L", (400, 300), 45)).paste(Image.open(file))
        (draw := ImageDraw.Draw(image)).rectangle([230, 220, 390, 290], fill=0)
        draw.rectangle([260, 270, 359, 275], fill=255)
        label = "500 nm" * (file.stem < "c")
        draw.text((310, 245), label, 255, ImageFont.load_default(28), anchor="mm")
        image.save(file.with_suffix(".jpg"), quality=95)
        file.unlink()
    (page, app), results = serve(fields), tmp_path / "fields-results"
    page.until(lambda: "2 images: bar of 100 px, “500 nm”" in page.text("sizes"))
    page.picture("sizes_proposed")
    page.find("#sizes [data-post=size] button", "css selector").click()
    page.says("2 images: 5 nm per pixel")
    page.find("find").click()
    page.until(lambda: page.text("task-step") == "Particles are found.")
    page.until(lambda: page.run("return shown.id > 0 && Boolean(image)"))
    page.press("o")
    page.says("left out, as it is no sample: a label and a scale bar")
    assert page.run("return layers.left_out.length") == 1
    page.picture("left_out")
    found = FoundFolder(results).field_table
    assert found["pixel_size_nm"].tolist() == pytest.approx([5, 5, np.nan], 0.01, nan_ok=True)
    assert found["scale_bar_error"][0] > 0
    browser.get(f"{app.link}sizes.html#")
    page.until(lambda: page.run("return fitted") and page.text("ends"))
    browser.find_elements("css selector", "#list .row")[2].click()
    page.until(lambda: page.run("return picture.complete") and page.text("name") == "c.jpg")
    page.click(260, 272)
    page.click(360, 272)
    page.find("length").send_keys("1 um", Keys.ENTER)
    page.says("1 image: ")  # about 10 nm per pixel: the screen decides how near clicks come
    sizes = load_pixel_sizes(results / "pixel_sizes.csv")
    assert sizes.of(fields / "c.jpg") == pytest.approx(10, rel=0.03)
    page.find("[data-post=undo_size]", "css selector").click()
    page.says("undone: 1 image as before")
    page.run("open(); stage.focus()")  # keys alone, from the ends of the bar
    page.press(Keys.ARROW_RIGHT, Keys.TAB, Keys.ARROW_LEFT)
    length = page.run("return [ends[1][0] - ends[0][0], 100 - 20 / view.scale]")
    assert length[0] == pytest.approx(length[1], abs=2)
    page.press(Keys.ENTER, "1 um", Keys.ENTER)
    page.says("1 image: ")
    body = {"share": "0.25", "length": "1 um", "to": "alike", "is_back": ""}
    app.post("size", image="1:a.jpg", **body)
    form = {"window": "", "tolerance": "", "keep": False, "image": "1:a.jpg", "only": "yes"}
    line = app.ended("alignment", **form)["task"]["lines"][0]
    assert "a.jpg, b.jpg: contradiction: 5 nm per pixel by the scale bar" in line


class TaskPage(Page):
    """A window that shows the page of a task of whole images."""

    def opened(self) -> bool:
        return bool(self.find("#list img[src]", "css selector"))

    def does(self, task: str, button: str, words: str) -> str:
        """Open the page of a task, press a button, and return what the frame shows at the end."""
        self.browser.get(f"{self.link}{task}.html")
        self.until(self.opened)
        self.browser.find_element("xpath", f"//button[.='{button}']").click()
        self.until(lambda: self.text("status") == words)
        self.until(lambda: self.find("result").get_attribute("aria-pressed") == "true")
        self.picture(f"{task}_{words[:4]}")
        shown = "frame" if self.find("frame").is_displayed() else "picture"
        return str(self.find(shown).get_attribute("src"))


def test_fibres_are_measured_without_a_shell(browser: Any, serve: Any, tmp_path: Path) -> None:
    (tmp_path / "mats").mkdir()
    for number, image in enumerate(make_fibre_images(2, size=160, random_state=0)[0]):
        tifffile.imwrite(tmp_path / "mats" / f"{number}.tif", image)
    page, app = serve(tmp_path / "mats", TaskPage, "diameters.html")
    results = tmp_path / "mats-results"
    page.link = app.link  # type: ignore[attr-defined]
    words = "Fibre diameters: this is the preview."
    shown = page.does("diameters", "Preview this image", words)
    assert "/preview/diameters/diameters.html" in shown
    browser.get(f"{app.link}diameters.html")
    page.until(lambda: page.find("#sizes [name=length]", "css selector").is_displayed())
    page.find("#sizes [name=length]", "css selector").send_keys("4", Keys.ENTER)
    page.until(lambda: page.text("status") == "2 images: 4 nm per pixel")
    page.find("#choices .primary", "css selector").click()
    page.until(lambda: page.text("status") == "All diameters are measured.")
    assert "All of these, ZIP" in page.text("files")
    browser.find_elements("css selector", "#list .row")[1].click()
    page.until(lambda: page.find("picture").get_attribute("src").endswith("/places/1.tif.png"))
    page.until(lambda: browser.execute_script("return picture.naturalWidth") == 960)
    page.picture("diameters_of_image")
    page.find("result").click()
    browser.switch_to.frame("frame")
    browser.execute_script("document.querySelectorAll('.rows a')[1].click()")
    page.until(lambda: browser.execute_script("return location.hash") == "#f1")
    body = browser.find_element("tag name", "body")
    page.until(lambda: "nm: mean of the medians of 2 images, 95 % interval" in body.text)
    (left_out := results / "diameters_left_out.csv").symlink_to(tmp_path / "elsewhere")
    save = "mark(['f0-0'], true, figures[0]); saveDecisions()"
    browser.execute_script(f"save = (name) => {{ window.downloaded = name; }}; {save}")
    page.until(lambda: browser.execute_script("return window.downloaded") == "choice.csv")
    browser.switch_to.default_content()
    assert "left_out.csv is a link" in page.text("trouble")
    left_out.unlink()
    left_out.write_text("damaged")
    browser.switch_to.frame("frame")
    browser.execute_script("saveDecisions()")
    browser.switch_to.default_content()
    page.until(lambda: "diameters_left_out.csv is kept" in page.text("status"))
    assert "is now diameters_left_out.csv.damaged-1" in page.text("trouble")
    assert "nm" in (results / "diameters" / "report" / "results.csv").read_text()
    page.find("#choices .primary", "css selector").click()
    page.until(lambda: page.text("status") == "All diameters are measured.")
    rows = rows_of(results / "diameters" / "diameters.csv")
    assert [row["left_out"] for row in rows] == ["1", "0"]
    assert not (results / "diameters-1").exists(), "what was measured is kept"
    browser.get(f"{app.link}alignment.html")
    before = page.does("alignment", "Preview this image", "Alignment: this is the preview.")
    page.find("[type=range]", "css selector").send_keys(Keys.ARROW_RIGHT)
    shows = partial(page.find("picture").get_attribute, "src")
    page.until(lambda: "/preview/alignment/" in shows() and shows() != before)
    page.until(lambda: app.post("images")["task"]["state"] == "done")  # until then, none starts
    assert app.post("images")["task"]["choices"]["window"] == "36", "previewed by itself"
    shown = page.does("alignment", "Measure all images", "All directions are measured.")
    assert "/alignment/report/report.html" in shown
    browser.find_elements("css selector", "#list .row")[1].click()
    page.until(lambda: page.find("picture").get_attribute("src").endswith("/figures/1.tif.png"))
    page.find("group").send_keys("thin", Keys.ENTER)
    page.says("1 image: group thin")
    first, second = browser.find_elements("css selector", "#list .row")
    ActionChains(browser).key_down(Keys.SHIFT).click(first).key_up(Keys.SHIFT).perform()
    page.until(lambda: page.text("group-of") == "2 images")
    page.find("group").send_keys("thick", Keys.ENTER)
    page.says("2 images: group thick")
    assert "4 nm per pixel, typed · thick" in second.text
    assert {row["group"] for row in rows_of(results / "groups.csv")} == {"thick"}
    sizes = {row["pixel_size_nm"] for row in rows_of(results / "alignment" / "alignment.csv")}
    assert sizes == {"4"}
    browser.get(f"{app.link}defects.html")
    browser.set_window_size(820, 900)  # a tablet's
    ends = "return [by('preview').getBoundingClientRect().bottom, innerHeight]"
    page.until(lambda: (at := browser.execute_script(ends))[0] < at[1] < 901)
    page.find("#choices .primary", "css selector").click()
    page.until(lambda: "tick images without defects" in page.text("task-lines"))
    away = "sent = fetch; fetch = async () => { throw new TypeError('away'); }; refresh()"
    browser.execute_script(away)
    page.until(lambda: "does not answer" in page.text("trouble"))
    browser.execute_script("fetch = sent")
    page.until(lambda: not page.find("trouble").is_displayed())
    browser.set_window_size(1366, 900)
