"""Rules against the same comparisons in Python, and what they refuse."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervlad.particles import match_rule


def table(seed=0, n=40):
    rng = np.random.default_rng(seed)
    nm = rng.uniform(10, 9e3, (n, 2))
    return pd.DataFrame(
        {
            "micrograph": ["a.tif", "b.tif"] * (n // 2),
            "class": rng.choice(["cube", "long rod"], n),
            "length_px": nm[:, 0] / 2,
            "length_nm": nm[:, 0],
            "width_px": nm[:, 1] / 2,
            "width_nm": nm[:, 1],
            "area_px2": nm.prod(axis=1) / 4,
            "area_nm2": nm.prod(axis=1),
            "aspect_ratio": nm[:, 0] / nm[:, 1],
            "touches_edge": rng.random(n) < 0.5,
        }
    )


T = table()
LONG, EDGE, CUBE = T["length_nm"] > 5000, T["touches_edge"], T["class"] == "cube"
OF_B = T["micrograph"] == "b.tif"
# Of a.tif some particles are too short or too straight; the pixel size of b.tif is unknown.
CURVED = T.assign(persistence_length_px=T["length_px"].where(LONG))
CURVED["persistence_length_nm"] = 2 * CURVED["persistence_length_px"]
SCALELESS = T.assign(length_nm=T["length_nm"].where(~OF_B))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("length > 5 um", LONG),
        ("5e3 nm < length", LONG),
        ("2000 px < length <= .0082e3 um", (T["length_px"] > 2000) & (T["length_nm"] <= 8200)),
        ("length > 2500 px", LONG),
        ("length_nm > 5000", LONG),
        ("area >= 2.5 um2", T["area_nm2"] >= 2.5e6),
        ("0.1 um <= width < 4 um", (T["width_nm"] >= 100) & (T["width_nm"] < 4000)),
        ("not touches_edge and (class == 'cube' or length > 5 um)", ~EDGE & (CUBE | LONG)),
        ('class != "long rod" AND NOT length > 5 um', CUBE & ~LONG),
        ("class == '5 um'", CUBE & False),
        ("who-fibre", LONG & (T["width_nm"] < 3000) & (T["aspect_ratio"] > 3)),
    ],
)
def test_rules(rule, expected):
    np.testing.assert_array_equal(match_rule(T, rule), expected)


@pytest.mark.parametrize(
    ("table", "rule", "words"),
    [
        (T, "length > 5", "must compare length with a value in px or nm or um"),
        (T, "area > 5 um", "must compare area with a value in px2 or nm2 or um2"),
        (T, "aspect_ratio > 3 nm", "compares aspect_ratio, which has no unit, with a value in nm"),
        (T, "diameter > 3 nm", "names 'diameter'; the measures are micrograph, class, length, wid"),
        (T.drop(columns="class"), "class == 'a'", "names class, but the particles are not classi"),
        (T, "", "cannot be read: write comparisons"),
        (T, "touches_edge = 5", "has =, which is no comparison: write =="),
        (T, "length => 5 um", "has =>, which is no comparison: write >="),
        (T, "length =< 5 um or class == '=>'", "has =<, which is no comparison: write <="),
        (T, "5 um ≥ length", "has ≥, which is no comparison: write >="),
        (T, "aspect_ratio > 5 mm", "names 'mm'"),
        (T, "aspect_ratio", "'aspect_ratio' where a comparison was expected"),
        (T, "class > 'cube'", "must compare class by == or != and a text"),
        (T, "aspect_ratio == 'cube'", "must compare aspect_ratio by a number"),
        (T, "__import__('os').system('true')", "cannot be read at \"__import__('os')"),
        (T, "(" * 400 + "touches_edge" + ")" * 400, "cannot be read"),
        (T, "touches_edge and " * 100, "has 1700 characters, at most 1000"),
        (SCALELESS, "length > 5 um", r"20 particles lack (b.tif): give pixel_size, or compare in"),
        (SCALELESS, "length_nm > 5000", "needs the pixel size, which 20 particles lack (b.tif)"),
        (None, "who-fibre", "table must be a t"),
        (T, LONG, "rule must be a t"),
    ],
)
def test_what_is_no_rule_is_refused(table, rule, words):
    with pytest.raises(ValueError, match=r"^(the rule |table|rule)") as raised:
        match_rule(table, rule)
    assert words in str(raised.value)


def test_a_missing_pixel_size_or_measure_is_no_error_where_it_is_not_needed():
    np.testing.assert_array_equal(match_rule(SCALELESS, "length > 2500 px"), LONG)
    np.testing.assert_array_equal(match_rule(CURVED[LONG], "persistence_length > 5 um"), True)
    n = f"without {(~LONG).sum()} of 40 particles whose persistence_length is unknown"
    with pytest.warns(UserWarning, match=n):
        found = match_rule(CURVED, "not persistence_length > 9 um")
    np.testing.assert_array_equal(found, LONG & (CURVED["persistence_length_nm"] <= 9e3))


@given(st.text(alphabet="lengthwidasp_o <>=!()'0123456789.um+-*", max_size=40))
@settings(max_examples=100, deadline=None)
def test_any_text_is_a_mask_or_a_value_error(rule):
    try:
        found = match_rule(T, rule)
    except ValueError as error:
        assert repr(rule) in str(error)  # noqa: PT017
    else:
        assert (found.shape, found.dtype) == ((len(T),), bool)
