"""Counts and sizes against plain loops, and the coverage of their intervals by simulation."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, t

from hypervlad.particles import (
    Detection,
    Field,
    FindingRange,
    count_particles,
    edge_weights,
    particle_sizes,
)

SIDE = 1000
CONFUSION = np.array(
    [[0.85, 0.12, 0.03, 0], [0, 0.8, 0.15, 0.05], [0.05, 0, 0.8, 0.15], [0.08, 0.02, 0, 0.9]]
)


def table_of(classes_of_fields, **columns):
    """A table of particles of 10 x 10 pixels away from the edges; a sequence of classes a field."""
    rows = [(f"f{i}", k) for i, names in enumerate(classes_of_fields) for k in names]
    table = pd.DataFrame(rows, columns=["micrograph", "class"])
    box = {"top": 20, "left": 20, "bottom": 30, "right": 30, "touches_edge": False}
    return table.assign(**(box | {"field_height": SIDE, "field_width": SIDE} | columns))


def fields_of(n, pixel_size=10.0, side=SIDE):
    return [Field(f"f{i}", (side, side), pixel_size) for i in range(n)]


def test_correction_against_the_inverse_and_at_the_boundary():
    names, held_out = list("abcd"), np.round(100 * CONFUSION)
    counts = np.array([20, 8, 4, 12]) @ CONFUSION * 50
    table = table_of([np.repeat(names, np.round(counts / 2).astype(int))] * 2)
    options = {"classes": names, "confusion": held_out, "edges": "leave_out"}
    found = count_particles(table, fields_of(2), **options)
    np.testing.assert_allclose(found["count"][:4], [1000, 400, 200, 600], atol=4)
    assert found["count"][4] == found["counted"][4] == len(table)
    # Fewer are called b than a alone would give: none is b, and the total is kept.
    few = table_of([["a"] * 95 + ["b"] * 3 + ["d"] * 4] * 4)
    found = count_particles(few, fields_of(4), **options)
    assert found["count"][1] == found["low"][1] == 0
    assert found["count"][:4].sum() == pytest.approx(len(few))


def test_counts_keep_to_what_people_named():
    rng = np.random.default_rng(0)
    table, fields = table_of(rng.choice(list("xy"), (5, 12), p=[0.3, 0.7])), fields_of(5)
    for name in "xy":  # as the classifier answers, four of five are right
        table[f"p_{name}"] = np.where((table["class"] == name) ^ (rng.random(60) < 0.2), 0.9, 0.1)
    table["class"] = table["class"].mask(rng.random(60) < 0.1, "other")
    plain = {"classes": ["x", "y", "other"], "edges": "leave_out"}
    options = plain | {"confusion": [[12, 3], [4, 16]]}
    exact = count_particles(table, fields, **plain)
    known = count_particles(table, fields, by_person=np.ones(60, bool), **options)
    pd.testing.assert_frame_equal(known, exact)  # nothing is left to correct
    by_person = ((table["class"] == "other") | (rng.random(60) < 0.5)).to_numpy()
    least = count_particles(table[by_person], fields, **plain)
    answers = np.where(table["p_x"] > 0.5, "x", "y")
    table["class"] = table["class"].where(by_person, answers)
    some = count_particles(table, fields, by_person=by_person, **options)
    assert (some["low"] >= least["low"] - 1e-9).all()
    assert some["count"].tolist()[:3] == pytest.approx([*some["count"][:2], least["count"][2]])
    assert some["count"][:3].sum() == pytest.approx(some["count"][3]) == 60
    assert some["high"][2] > 2 * least["high"][2], "others are unknown"
    assert (some["high"][:3] <= some["high"][3]).all()
    unseen = table.assign(p_x=table["p_x"].where(~by_person))  # drawn by a person, with a class
    rest = count_particles(table[~by_person], fields, **(options | {"classes": ["x", "y"]}))
    both = count_particles(unseen, fields, by_person=by_person, **options)
    np.testing.assert_allclose(both["count"][:2], least["count"][:2] + rest["count"][:2])


@given(st.lists(st.lists(st.sampled_from("xyz"), max_size=6), min_size=1, max_size=6))
@settings(max_examples=10, deadline=None)
def test_invariants(classes):
    table, fields = table_of(classes), fields_of(len(classes))
    found = count_particles(table, fields, classes=list("xyz"))
    flat = [k for names in classes for k in names]
    assert found["particles"].tolist() == [*(flat.count(k) for k in "xyz"), len(flat)]
    np.testing.assert_allclose(found["counted"], found["count"])
    if len(classes) > 1:
        inside = found["poisson_low"] >= found["low"] - 1e-9
        highest = found["high"].fillna(np.inf)  # an open end
        assert (inside & (found["low"] <= found["count"]) & (found["count"] <= highest)).all()
    else:
        assert found[["low", "high"]].isna().all(axis=None)
    held_out = 9 * np.eye(3)[[1, 2, 0]]  # each class is taken for the next
    turned = count_particles(table, fields, classes=list("xyz"), confusion=held_out)
    np.testing.assert_allclose(turned["count"][:3], found["count"][[1, 2, 0]])


def test_numbers_per_area_of_fields_of_different_size():
    fields = [Field("f0", (100, 200), 10.0), Field("f1", (1000, 100), 20.0)]
    sizes = ["field_height", "field_width"]
    found = count_particles(table_of(["x", "xxx"]).drop(columns=sizes), fields, edges="leave_out")
    assert found["per_um2"][0] == pytest.approx(4 / (1 * 2 + 20 * 2))
    without_class = table_of(["xy", "x"]).drop(columns=["class", *sizes])
    assert count_particles(without_class, fields, edges="leave_out")["count"].tolist() == [3]
    nothing = count_particles(table_of(["xy", "x"]).drop(columns="class")[:0], fields_of(4))
    assert nothing[["count", "low"]].to_numpy().tolist() == [[0, 0]]
    assert nothing["high"][0] == pytest.approx(3.69, abs=0.01)
    unknown = count_particles(table_of(["x"]), fields_of(2, None), edges="leave_out")
    assert unknown["count"][0] == 1
    assert unknown["per_um2"].isna().all()


@pytest.mark.parametrize("n", [0, 1, 7, 200])
def test_poisson_intervals_are_garwoods_times_the_weight(n):
    low = chi2.ppf(0.025, 2 * n) / 2 if n else 0
    garwood = np.array([low, chi2.ppf(0.975, 2 * n + 2) / 2])
    # A box of 10 x 10 pixels is away from the edges of 22 x 22 at a quarter of its places.
    table = table_of(["x" * n], top=5, left=5, bottom=15, right=15, field_height=22, field_width=22)
    for edges, weight in (("leave_out", 1), ("weight", 4 if n else 1)):
        found = count_particles(table, fields_of(1, side=22), classes=["x"], edges=edges)
        assert found["counted"][0] == pytest.approx(weight * n)
        interval = found.loc[0, ["poisson_low", "poisson_high"]].to_numpy(float)
        assert interval == pytest.approx(weight * garwood)


def test_edge_weights_make_numbers_and_sizes_unbiased():
    """Boxes anywhere on a plane, of which a field of 60 x 90 pixels shows those that reach it."""
    rng, n = np.random.default_rng(0), 200_000
    height, width = rng.choice([3, 30], n), rng.choice([4, 50], n)
    top, left = rng.integers(-60, 120, n), rng.integers(-90, 180, n)
    visible = (top + height > 0) & (top < 60) & (left + width > 0) & (left < 90)
    table = pd.DataFrame({"large": (height == 30) & (width == 50)})
    table["top"], table["bottom"] = np.maximum(top, 0), np.minimum(top + height, 60)
    table["left"], table["right"] = np.maximum(left, 0), np.minimum(left + width, 90)
    table = table.assign(field_height=60, field_width=90)[visible]
    is_cut = (table[["top", "left"]] == 0).any(axis=1)
    table["touches_edge"] = is_cut | (table["bottom"] == 60) | (table["right"] == 90)
    weights, expected = edge_weights(table), n * (60 / 180) * (90 / 270)
    assert weights.sum() == pytest.approx(expected, rel=0.03)
    assert weights[table["large"]].sum() == pytest.approx(expected / 4, rel=0.06)
    left_out = edge_weights(table, "leave_out")
    assert left_out.sum() == (~table["touches_edge"]).sum() < 0.8 * expected
    assert left_out[table["large"]].sum() < 0.15 * left_out.sum()


def size_below_which(sizes, weights, share):
    before, below = None, 0.0
    for size, weight in sorted((s, w) for s, w in zip(sizes, weights, strict=True) if w):
        place = (below + weight / 2) / sum(weights)
        if place >= share:
            smaller, at = before or (size, 0.0)
            return smaller + (size - smaller) * (share - at) / (place - at)
        before, below = (size, place), below + weight
    return size


def test_widths_are_no_sizes_that_finding_misses():
    sizes = np.tile(np.arange(20.0, 200), 4)
    pairs = np.stack([np.arange(720) // 180, sizes, sizes * (sizes > 80)], axis=1)
    table = table_of([["x"] * 12] * 4, equivalent_diameter_nm=150.0, area_nm2=1e4)
    table["width_nm"] = table["feret_min_nm"] = np.arange(48) % 7 + 20.0
    known, rows = Detection(pairs, "nm", 4), {}
    for name in ("width_nm", "feret_min_nm"):
        sizes = particle_sizes(table, fields_of(4), detection=known, measure=name)
        rows[name] = sizes.set_index("class").loc["all"].iloc[0]
    assert np.isnan(rows["feret_min_nm"]["d50_low"]), "a particle of this size is mostly missed"
    assert 20 < rows["width_nm"]["d50_low"] < rows["width_nm"]["d50"] < 26


def test_sizes_against_a_loop():
    rng = np.random.default_rng(0)
    table = table_of([rng.choice(["x", "y"], 12) for _ in range(6)])
    table["equivalent_diameter_nm"] = rng.lognormal(3, 0.5, len(table)).round()
    table["area_nm2"] = np.pi / 4 * table["equivalent_diameter_nm"] ** 2
    table["right"] += rng.integers(0, 900, len(table))
    table["touches_edge"] = rng.random(len(table)) < 0.2
    found = particle_sizes(table, fields_of(6)).set_index(["class", "by"])
    weights = edge_weights(table)
    for name in ("x", "y", "all"):
        chosen = (table["class"] == name) | (name == "all")
        sizes = table["equivalent_diameter_nm"][chosen]
        for by, weight in (("number", weights), ("area", weights * table["area_nm2"])):
            row = found.loc[name, by]
            assert row["particles"] == (weights[chosen] > 0).sum()
            for share, d in ((0.1, "d10"), (0.5, "d50"), (0.9, "d90")):
                assert row[d] == pytest.approx(size_below_which(sizes, weight[chosen], share))
                low, high = np.nan_to_num(row[f"{d}_low"]), row[f"{d}_high"]
                assert low <= row[d] <= np.nan_to_num(high, nan=np.inf)
    row = found.loc["all", "number"]
    reach = (row["d50_high"] - row["d50_low"]) / row["d50"] / 2
    assert row["d50_error_fields"] == pytest.approx(reach / t.ppf(0.975, 5), rel=0.2)
    counts = count_particles(table, fields_of(6)).iloc[-1]
    kept = [table[table["micrograph"] != f"f{k}"] for k in range(6)]
    log = [np.log(edge_weights(each).sum() * 6 / 5 + 0.5) for each in kept]
    error = np.sqrt(np.square(log - np.log(counts["count"] + 0.5)).sum() * 5 / 6)
    relative = max(error * (counts["count"] + 0.5), np.linalg.norm(weights)) / counts["count"]
    assert counts["error_fields"] == pytest.approx(relative, rel=1e-3)
    assert counts["high"] - counts["low"] > 2 * 1.96 * counts["error_fields"] * counts["count"]
    equal = particle_sizes(table.assign(equivalent_diameter_nm=5.0), fields_of(6))
    assert (equal[["d50_low", "d50", "d50_high"]] == 5).all(axis=None)
    one = particle_sizes(table[table["micrograph"] == "f0"], fields_of(6))
    assert one["d50"].notna().all()
    assert one["d50_low"].isna().all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fields": fields_of(1)}, "1 micrograph of the table is not among the fields: f1"),
        ({"fields": fields_of(2) * 2}, "each field that was searched once, got twice: f0, f1"),
        ({"fields": [*fields_of(2), Field("b", (9, 9))]}, "1 of 3 fields have no pixel size: b"),
        ({"fields": fields_of(2, side=999)}, "pixel size of f0, f1 differ between the table and"),
        ({"classes": ["x"]}, "must name each class of the table once; it has y"),
        ({"confusion": np.eye(2), "classes": None}, "confusion needs classes"),
        ({"confusion": np.eye(3)}, "numbers of particles, 2 x 2 for the classes x, y; got"),
        ({"confusion": [[9, 1], [0, 0]]}, "no held-out particle of y"),
        ({"confusion": [[5, 5], [5, 5]]}, "does not tell some classes apart"),
        ({"confusion": [[0.9, 0.1], [0, 1]]}, "numbers of particles.* with shares"),
        ({"confusion": np.eye(2), "by_person": np.ones(3, bool)}, "the table lacks p_x, p_y"),
        ({"confusion": np.eye(2), "by_person": [True]}, "True or False for each of 3 particles"),
        ({"confusion": np.eye(1), "by_person": np.zeros(3, bool)}, "numbers of particles, 2 x 2"),
        ({"edges": "keep"}, "edges must be one of 'weight', 'leave_out', not 'keep'"),
        ({"table": table_of([["all"]]), "classes": None}, "a class is called 'all'"),
        ({"table": table_of(["xy"], touches_edge="False")}, "touches_edge must be True or False"),
        ({"table": table_of(["xy"], bottom=1020)}, "as large as its field from top to bottom"),
        ({"table": table_of(["x"]).assign(**{"class": None})}, "1 particle without a class"),
        ({"table": table_of(["x"]).drop(columns="field_width")}, "lacks field_width; give one"),
    ],
)
def test_what_cannot_be_counted(options, words):
    usual = {"table": table_of(["xy", "x"]), "fields": fields_of(2), "classes": ["x", "y"]}
    with pytest.raises(ValueError, match=words):
        count_particles(**(usual | options))


def sizes_of(measure):
    table = table_of(["xy"], equivalent_diameter_nm=[5.0, np.nan], area_nm2=1.0)
    return particle_sizes(table, fields_of(1), measure=measure)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sizes_of("equivalent_diameter_nm"), "unknown for 1 particle of f0: give"),
        (lambda: sizes_of("diameter"), "measure='diameter' is not a column of numbers"),
        (lambda: Field("f0", (9, 9, 3), 1.0), "shape of f0 must be"),
        (lambda: Field("f0", (9, 9), -1.0), "pixel_size of f0 must be"),
    ],
)
def test_unknown_sizes_and_impossible_fields(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_intervals_contain_what_finding_may_miss_where_nobody_corrected():
    table = table_of(["xx", "xxx", "xxxx"], equivalent_diameter_nm=10.0 + np.arange(9) * 4 % 9)
    table["area_nm2"] = table["equivalent_diameter_nm"] ** 2
    sure, doubtful = FindingRange(), FindingRange(0.5, 3.0, 0.8, 1.1)

    def measured(*ranges, person=False):
        own = zip(fields_of(3), ranges, strict=True)
        fields = [replace(each, finding_range=of, by_person=person) for each, of in own]
        counts = count_particles(table, fields, edges="leave_out").iloc[-1]
        return pd.concat([counts, particle_sizes(table, fields, edges="leave_out").iloc[-2]])

    plain = measured(*[None] * 3)
    pd.testing.assert_series_equal(measured(*[doubtful] * 3, person=True), plain)
    for ranges, share in (([doubtful] * 3, 1), ([sure, doubtful, doubtful], 7 / 9)):
        found, of_all = measured(*ranges), FindingRange(*np.power(doubtful, share))
        logs = FindingRange.logs([of_all], [9], 9)
        for best, start, own in zip(("count", "d50"), ("", "d50_"), logs, strict=True):
            ends = [f"{start}low", f"{start}high"]
            wide = np.hypot(np.log(plain[ends].astype(float) / plain[best]), own)
            expected = found[best] * np.exp([-1, 1] * wide)
            np.testing.assert_allclose(found[ends].astype(float), expected)
            error = own.mean() / 1.96
            assert found[f"{start}error_finding"] == pytest.approx(error, rel=1e-3)
        ratio = found["per_um2_high"] / found["per_um2"]
        assert ratio == pytest.approx(found["high"] / found["count"])
