"""The page of found particles in a real browser: outlines are switched, and lead to each other."""

import numpy as np
import pytest
from PIL import Image
from support.browsing import Window

from hypervlad.particles import edge_weights, find_in_images
from hypervlad.results import write_particles_page

pytest.importorskip("selenium", reason="selenium is not installed")

KINDS = ["sphere", "rod", "</script><script>document.title='broken'</script>"]
SHAPE = (256, 300)
BOXES = [(20 + 60 * (k // 4), 10 + 70 * (k % 4), 12 + 2 * k, 8 + 3 * k) for k in range(12)]


class Random:
    classes_, held_out_ = KINDS, None

    def predict_proba(self, particles):
        return np.random.default_rng(0).dirichlet(np.ones(len(KINDS)), len(particles))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The page of three fields, each with twelve rectangles, the last at the edge."""
    folder, files = tmp_path_factory.mktemp("particles"), {}
    for number in range(3):
        labels = np.zeros(SHAPE, int)
        for k, (top, left, height, width) in enumerate(BOXES, start=1):
            labels[top : top + height, left : left + width] = k
        file = folder / f"{number}.png"
        Image.fromarray(np.uint8(60 + number + 120 * (labels > 0))).save(file)
        files[file] = labels
    found, _ = find_in_images(
        folder / "found", list(files), files.__getitem__, root=folder, pixel_size=2.0
    )
    found.classify(Random())
    return write_particles_page(folder / "page.html", found)


def outlines(page, kind=""):
    """The outlines of a class that are visible in the fields."""
    script = """return [...document.querySelectorAll(".fields path")].filter((path) =>
      path.checkVisibility() && /^Particle /.test(path.textContent) &&
      path.textContent.includes(arguments[0]))"""
    return list(page.run(script, kind))


def test_outlines_of_a_class_and_of_all_are_switched(page):
    assert page.browser.title == "Particles found"
    page.screenshot("particles")
    n, rods = len(outlines(page)), len(outlines(page, ": rod, "))
    assert 0 < rods < n == 36
    page.click("rod ")
    assert (len(outlines(page)), len(outlines(page, ": rod, "))) == (n - rods, 0)
    page.click("Outlines")
    assert outlines(page) == []
    page.click("Outlines", "rod ")
    assert len(outlines(page)) == n


def test_outlines_lie_on_their_particles_and_a_link_leads_there(page):
    left, top, right, bottom = page.box(page.picture("0.png"))
    scale = (right - left) / SHAPE[1], (bottom - top) / SHAPE[0]
    for drawn, (y, x, height, width) in zip(outlines(page)[:12], BOXES, strict=True):
        expected = [left + x * scale[0], top + y * scale[1]]
        expected += [left + (x + width) * scale[0], top + (y + height) * scale[1]]
        assert page.box(drawn) == pytest.approx(expected, abs=4), "within its line"
    link = page.find("particle ")
    name = f"Particle {link.text.split()[1]}:"
    link.click()
    widths = [float(each.value_of_css_property("stroke-width")[:-2]) for each in outlines(page)]
    (outline,) = (outlines(page)[k] for k in np.flatnonzero(np.array(widths) > min(widths)))
    assert page.is_in_view(outline)
    assert outline.get_property("textContent").startswith(name)
    page.screenshot("particle-in-its-field")


@pytest.mark.parametrize(("sides", "scaled"), [((6, 12, 14), np.asarray), ((1, 6, 26), np.log)])
def test_bars_are_weighted_and_particles_at_the_edge_left_out(browser, tmp_path, sides, scaled):
    """Over more than a decade, equal ratios have equal lengths."""
    labels, files = np.zeros((60, 90), int), {}
    for k, side in enumerate(sides):
        labels[5 : 5 + side, 2 + 28 * k : 2 + 28 * k + side] = k + 1
    labels[52:60, 20:50] = 4  # at the edge
    for number in range(5):
        file = tmp_path / f"{number}.png"
        Image.fromarray(np.uint8(60 + number + 120 * (labels > 0))).save(file)
        files[file] = labels
    found, _ = find_in_images(tmp_path / "found", list(files), files.__getitem__, root=tmp_path)
    page = Window(browser, write_particles_page(tmp_path / "page.html", found))
    chart = """const [chart] = [...document.querySelectorAll("[role=img]")]
      .filter((each) => /^Histogram/.test(each.getAttribute("aria-label")));
    const of = (e) => { const r = e.getBoundingClientRect(); return [r.left, r.right, r.height] };
    const ticks = [...document.querySelectorAll("text[text-anchor=middle]")]
      .filter((e) => /^[\\d.,]+$/.test(e.textContent));
    return [[...chart.querySelectorAll("rect")].map(of),
      ticks.map((e) => [Number(e.textContent), (of(e)[0] + of(e)[1]) / 2])]"""
    bars, ticks = page.run(chart)
    bars.sort()
    weights = edge_weights(found.table)[:4]
    assert weights[3] == 0
    heights = np.array([height for *_, height in bars])
    np.testing.assert_allclose(heights / heights.max(), weights[:3] / weights.max(), rtol=0.02)
    low, *_, high = scaled(np.array(sides) * np.sqrt(4 / np.pi))
    left, right = bars[0][0], bars[-1][1]
    assert len(ticks) > 2
    for value, at in ticks:
        assert (scaled(value) - low) / (high - low) == pytest.approx(
            (at - left) / (right - left), abs=0.01
        )
    page.assert_safe()
