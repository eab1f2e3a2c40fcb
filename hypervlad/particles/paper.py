"""What a folder of found particles says, for a paper."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from hypervlad._version import __version__
from hypervlad.common.wording import capitalised, counted
from hypervlad.common.workbooks import name_and_unit
from hypervlad.objects.counts import ALL, count_particles, particle_sizes
from hypervlad.objects.fields import count_weights, field_numbers, independent
from hypervlad.objects.found_counts import FoundCounts
from hypervlad.objects.found_folder import FoundFolder
from hypervlad.objects.found_tables import is_left_out
from hypervlad.objects.measures import pixel_size_power
from hypervlad.objects.rules import match_rule
from hypervlad.pages import paper
from hypervlad.pages.paper import Result
from hypervlad.statistics.classification import wilson_interval
from hypervlad.statistics.groups import Values, share_intervals

_ISO = "Asked for by ISO 19749:2021 (SEM) and ISO 21363:2020 (TEM)"
_NO_SAMPLES = "The sample of each image is given to particles find with --samples"
_NO_SIZE = "The images state no pixel size; give it to particles find with --resume --pixel-size"
_EU = (
    "Minimum Feret diameter from 1 to 100 nm, by number: Commission Recommendation 2022/C 229/01 "
    "on the definition of nanomaterial, which asks for the constituent particles of aggregates"
)
_NIOSH = "NIOSH 7402 (1994): longer than 5 µm, wider than 0.25 µm, aspect ratio of 3 or more"
_SHAPES = {
    "feret_min": ("minimum Feret diameter, median", "ISO 9276-6:2008"),
    "feret_max": ("maximum Feret diameter, median", "ISO 9276-6:2008"),
    "aspect_ratio": ("aspect ratio, median", "Length along the particle over its mean width"),
}
_NAMES = {"feret_min": "minimum Feret diameter", "feret_max": "maximum Feret diameter"}
_ENDS = "", "_low", "_high"
_EDGES = {
    "weight": "The others count for the inverse of the share of places where a particle of their "
    "size touches none (ISO 13322-1:2014).",
    "leave_out": "The others count as one each.",
}


def particles_report(folder: Path, weight: str | None, **options: Any) -> paper.Report:
    """Describe particles; `options` are those of `FoundFolder.count`."""
    by, own = paper.check_weight(weight, "number", "area"), FoundFolder(folder)
    found, edges = own.count(**options), options.get("edges", "weight")
    fields = [each for each in own.fields if each.micrograph not in own.unreadable]
    table, scale = own.table[found.is_counted], paper.pixel_sizes_text(f.pixel_size for f in fields)
    given: Any = {"detection": found.detection, "edges": edges}
    number, others = count_weights(table, fields, **given)
    given["pixel_size_error"] = error = found.pixel_size_error
    area = np.asarray(table["area_nm2" if scale else "area_px2"]) if by == "area" else 1.0
    unit_of = independent(fields)[field_numbers(table, fields)]
    samples = {each.sample for each in fields} - {None}
    of = "sample" if len(samples) > 1 else "field"
    known = found.detection
    below = {known.unit: known.mostly_missed_below() or 0.0} if known else {}
    # All, and each group or else each class.
    chosen: dict[str, Any] = {"": (found.sizes, ALL, np.ones(len(table), bool))}
    names = table["micrograph"].map({each.micrograph: each.group for each in fields})
    for name, (_, sizes) in found.groups.items():
        chosen[name] = sizes, ALL, np.asarray(names == name)
    for name in [] if found.groups else found.sizes["class"].unique()[:-1]:
        chosen[name] = found.sizes, name, np.asarray(table["class"] == name)
    histograms, results = list[paper.Histogram](), list[Result]()
    label, unit = name_and_unit(found.measure)
    size = _NAMES.get(label, label.replace("_", " "))
    power = pixel_size_power(found.measure)
    measured = table[found.measure].to_numpy(float)
    is_known = np.isfinite(measured)  # short particles have no persistence length
    for name, (sizes, of_class, is_outlined) in chosen.items():
        row = sizes[(sizes["class"] == of_class) & (sizes["by"] == by)].iloc[0]
        ends: Any = [[row[f"d{share}{end}"] for share in (10, 50, 90)] for end in _ENDS]
        n_fields = sum(each.group == name for each in fields) or found.n_fields
        is_own = is_outlined & (number > 0)
        results.append(Result("particles that count", int(is_own.sum()), group=name))
        is_own = is_own & is_known
        whole = f"{counted(int(is_own.sum()), 'whole particle')} ({is_outlined.sum():,} outlined)"
        counts, at_least = f"{whole}, {counted(n_fields, 'field')}", below.get(unit, 0.0)
        arrays = ends, unit_of[is_own], of, (others * area)[:, is_own], power * error, at_least
        own_weights = (number * area)[is_own]
        histograms.append(paper.Histogram(name, measured[is_own], own_weights, counts, *arrays))
        results += histograms[-1].results(size, unit)
    plain = table.drop(columns="class", errors="ignore")
    for shape, (text, source) in _SHAPES.items():
        measure = shape + ("" if shape == "aspect_ratio" else "_nm" if scale else "_px")
        row = particle_sizes(plain, fields, measure=measure, **given).iloc[int(by == "area")]
        own_ends = (float(row[f"d50{end}"]) for end in _ENDS)
        of_shape = paper.known_ends(own_ends, below.get(measure[-2:], 0.0))
        results.append(Result.of(text, of_shape, name_and_unit(measure)[1], source))
    if scale:
        share, source = _nano(table, number, others, unit_of, error), _EU
        if (missed := below.get("nm", 0.0)) > 100:
            share = [math.nan] * 3
            source = f"Not known, as below {missed:.3g} nm most are missed. {_EU}"
        density = (found.counts.iloc[-1][f"per_um2{end}"] for end in _ENDS)
        fibres = count_particles(plain[match_rule(plain, "niosh-7402")], fields, **given).iloc[-1]
        ends = (fibres[end] for end in ("count", "low", "high"))
        results += [
            Result.of("particles per area", density, "1/µm²", "ISO 13322-1:2014"),
            Result.of("share below 100 nm", share, "%", source),
            Result.of("fibres by NIOSH 7402", ends, "", _NIOSH),
        ]
    else:
        absent = "particles per area", "share below 100 nm", "fibres by NIOSH 7402"
        results += [Result(each, None, source=_NO_SIZE) for each in absent]
    reference = f"{_ISO}; images do not name the reference material and its date"
    results += [
        Result("fields of view", found.n_fields, source=_ISO),
        Result("samples", len(samples) or None, source=_ISO if samples else _NO_SAMPLES),
        Result("particles outlined, also at edges", len(own.table), source=_ISO),
        Result("pixel size", scale, source=_ISO if scale else _NO_SIZE),
        Result("calibration of the pixel size", None, source=reference),
    ]
    what = "particles" if by == "number" else "area of particles"
    caption = f"{capitalised(size)} of {histograms[0].counts}, weighted by {by}."
    methods = _methods(own, found, options, scale, of)
    shown = paper.Figure(size, unit, what, histograms[1:] or histograms, caption)
    return paper.Report("Particles", [shown], results, methods, found.budget, found.notes)


def _nano(table: Any, weights: Values, others: Values, units: Any, error: float) -> Any:
    """Return the share below 100 nm, and its interval, no narrower than Wilson's, in per cent."""
    size = table["feret_min_nm"].to_numpy(np.float64)
    if not weights.sum() > 0:
        return [math.nan] * 3
    is_part = [(size >= 1) & (size <= 100 * by) for by in (1, 1 / (1 + error), 1 + error)]
    share, *moved = (float(np.average(each, weights=weights)) for each in is_part)
    units = np.unique(units, return_inverse=True)[1]
    low, high, _ = share_intervals(is_part[0][None], weights, units, [share], others)
    few = wilson_interval(share, weights.sum() ** 2 / (weights @ weights))
    low, high = min(low[0], few[0]) - share + moved[0], max(high[0], few[1]) + moved[1] - share
    return [100 * share, 100 * low, 100 * high]  # whose line ends at 0 and 100 %


def _methods(
    own: FoundFolder, found: FoundCounts, options: Any, scale: str | None, of: str
) -> list[str]:
    """Return sentences on how particles were found, counted and measured."""
    fields, run, finder = own.fields, own.run, dict(own.run["finder"])
    model, held_out, kept = (finder.pop(k, None) for k in ("model", "held_out", "annotations"))
    settings = [f"{name.replace('_', ' ')} {value}" for name, value in finder.items()]
    how = "without training, as what is brighter or darker than the background"
    if model:
        how, settings = (
            "by a model trained on outlined images",
            [f"SHA-256 {model[:12]}", *settings],
        )
    how += f" ({', '.join(settings)})" * bool(settings)
    shapes = dict.fromkeys(f"{each.shape[1]} x {each.shape[0]}" for each in fields)
    given = "given by the user" if run["pixel_size"] or run["pixel_sizes"] else "from the files"
    n_corrected, n_out = sum(each.by_person for each in fields), int(is_left_out(own.table).sum())
    known, error = found.detection, found.pixel_size_error
    corrected = "Counts and sizes are not corrected for particles that were missed or invented."
    outlined = ""
    if n_corrected == len(fields):
        corrected = "No correction was needed, as a person outlined all particles."
    elif known is not None:
        outlined = (
            f"{counted(known.n_fields, 'image')} outlined by hand that the model had not learnt"
            if model
            else f"the {counted(known.n_fields, 'field')} that a person corrected"
        )
        corrected = (
            f"Each counts for the ratio of true to found particles of its size in {outlined}, "
            "which corrects for what was missed, invented, or outlined too large or small."
        )
    return [
        f"Particles in {counted(len(fields), 'field')} of view ({' or '.join(shapes)} pixels; "
        f"{f'pixel size {scale}, {given}' if scale else 'pixel size not known'}) were outlined "
        f"with hypervlad {run.get('version', __version__)} {how}.",
        f"On held-out images: {held_out}." * bool(held_out),
        paper.annotations_text(bool(kept), any(each.annotated for each in fields)),
        f"A person corrected the outlines of {counted(n_corrected, 'field')}." * bool(n_corrected),
        f"A person left out {counted(n_out, 'particle')}." * bool(n_out),
        f"Only particles that meet {options.get('rule')!r} count." * bool(options.get("rule")),
        "Particles that touch an edge of their image do not count.",
        _EDGES[options.get("edges", "weight")],
        corrected,
        f"The 95 % intervals are from how much {of}s differ"
        f"{f', and {outlined}' * bool(outlined)} (jackknife; quantiles by R. S. Woodruff, J. Am. "
        "Stat. Assoc. 47, 1952).",
        f"They contain an error of the pixel size of {100 * error:g} %." * bool(error),
    ]
