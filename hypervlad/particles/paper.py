"""What a folder of found particles says, for a paper."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from hypervlad._version import __version__
from hypervlad.common.progress import by_reader
from hypervlad.common.wording import capitalised, counted, name_some
from hypervlad.common.workbooks import name_and_unit
from hypervlad.objects.counts import ALL, counts_of
from hypervlad.objects.fields import WeightedParticles
from hypervlad.objects.found_counts import FoundCounts, give_size, whole_text
from hypervlad.objects.found_folder import FoundFolder
from hypervlad.objects.found_tables import is_left_out
from hypervlad.objects.rules import match_rule
from hypervlad.pages import paper
from hypervlad.pages.paper import Result

_ISO = "Asked for by ISO 19749:2021 (SEM) and ISO 21363:2020 (TEM)"
_EU = (
    "Minimum Feret diameter from 1 to 100 nm, by number: Commission Recommendation 2022/C 229/01 "
    "on the definition of nanomaterial, which asks for the constituent particles of aggregates"
)
_ELONGATED = 3.0  # aspect ratio, from which on particles may be fibres by NIOSH
_NIOSH = "NIOSH 7402 (1994): longer than 5 µm, wider than 0.25 µm, aspect ratio of 3 or more"
_SHAPES = {
    "feret_min": ("minimum Feret diameter, median", "ISO 9276-6:2008"),
    "feret_max": ("maximum Feret diameter, median", "ISO 9276-6:2008"),
    "aspect_ratio": ("aspect ratio, median", "Length along the particle over its mean width"),
}
_FIBRES = "fibres by NIOSH 7402"
_PER_AREA = "particles per area", "share below 100 nm", _FIBRES
_NAMES = {"feret_min": "minimum Feret diameter", "feret_max": "maximum Feret diameter"}
_ENDS = "", "_low", "_high"
_AT_EDGE = "Particles that touch an edge of their image do not count."
_EDGES = {
    "weight": "The others count for the inverse of the share of places where a particle of their "
    "size touches none (ISO 13322-1:2014).",
    "leave_out": "The others count as one each.",
}


def particles_report(folder: Path, weight: str | None, **options: Any) -> paper.Report:
    """Describe particles; `options` are those of `FoundFolder.count`."""
    by, own = paper.check_weight(weight, "number", "area"), FoundFolder(folder)
    found = own.count(**options)
    fields = found.particles[""].fields
    scale = paper.pixel_sizes_text(each.pixel_size for each in fields)
    n_samples = len({each.sample for each in fields} - {None})
    names = [each.micrograph for each in fields]  # of those that count
    n_outlined = int(own.table["micrograph"].isin(names).sum())
    label, unit = name_and_unit(found.measure)
    size = _NAMES.get(label, label.replace("_", " "))
    histograms = [_histogram(*each, found.measure, by) for each in _parts_of(found)]
    results, edges = list[Result](), f"{_AT_EDGE} {_EDGES[options.get('edges', 'weight')]}"
    for (name, particles), drawn in zip(_parts_of(found), histograms, strict=True):
        n_whole = int((particles.weights > 0).sum())
        results.append(Result("particles that count", n_whole, source=edges, group=name))
        results += drawn.results(size, unit)
    results += _shares_of_classes(found)
    results += Result.ratios(found.ratios()) + _shapes(found, by, scale)
    no_size = f"The images state no pixel size; {give_size()}"
    no_samples = by_reader(
        "The sample of each image is given to particles find with --samples",
        "It is not known which images are of one sample",
    )
    not_per_area = [Result(each, None, source=no_size) for each in _PER_AREA]
    per_area = _per_area(found) if scale else not_per_area
    has_fibres = bool((found.particles[""].table["aspect_ratio"] >= _ELONGATED).any())
    results += [each for each in per_area if has_fibres or each.quantity != _FIBRES]
    reference = f"{_ISO}; images do not name the reference material and its date"
    results += [
        Result("counts and sizes", found.correction or "of outlines that people drew or corrected"),
        Result("fields of view", len(found.particles[""].fields), source=_ISO),
        Result("samples", n_samples or None, source=_ISO if n_samples else no_samples),
        Result("particles outlined, also at edges", n_outlined, source=_ISO),
        Result("pixel size", scale, source=_ISO if scale else no_size),
        Result("calibration of the pixel size", None, source=reference),
    ]
    what = "particles" if by == "number" else "area of particles"
    how = f", {found.correction}" if found.correction else ""
    what += how.removesuffix(" for what finding misses")
    caption = f"{capitalised(size)} of {histograms[0].counts}, weighted by {by}{how}."
    methods = _methods(own, found, options, scale)
    shown = paper.Figure(size, unit, what, histograms[1:] or histograms, caption)
    return paper.Report("Particles", [shown], results, methods, found.budget, found.notes)


def _parts_of(found: FoundCounts) -> list[tuple[str, WeightedParticles]]:
    """Return all particles, and those of each group or else of each class, by name."""
    every, parts = found.particles[""], list(found.particles.items())
    for name in [] if found.groups else found.sizes["class"].unique()[:-1]:
        parts.append((name, every.where(np.asarray(every.table["class"] == name))))
    return parts


def _histogram(name: str, particles: WeightedParticles, measure: str, by: str) -> paper.Histogram:
    sample, n = particles.sample(measure, by), len(particles.fields)
    counts = f"{whole_text(len(sample.values), len(particles.table))}, {counted(n, 'field')}"
    error, below = particles.error_of(measure), particles.missed_below(measure)
    return paper.Histogram(name, sample, counts, particles.unit, error, below)


def _shares_of_classes(found: FoundCounts) -> list[Result]:
    results = []
    for name, (counts, _) in ({"": (found.counts, None)} | found.groups).items():
        for row in counts[counts["class"] != ALL].to_dict("records"):
            ends = (100 * row[f"share{end}"] for end in _ENDS)
            words = f"share of {row['class']} by number"
            results.append(Result.of(words, ends, "%", paper.OF_SHARE, name))
    return results


def _shapes(found: FoundCounts, by: str, scale: str | None) -> list[Result]:
    results = list[Result]()
    for shape, (text, source) in _SHAPES.items():
        measure = shape + ("" if shape == "aspect_ratio" else "_nm" if scale else "_px")
        own = _histogram("", found.particles[""], measure, by)
        ends, unit = own.quantiles[:, 1], name_and_unit(measure)[1]
        results.append(Result.of(text, ends, unit, source, why=own.why_no_interval))
    return results


def _per_area(found: FoundCounts) -> list[Result]:
    every, source = found.particles[""], _EU
    share = paper.share_below(every.sample("feret_min_nm"), 100, every.error_of("feret_min_nm"))
    if (missed := every.missed_below("feret_min_nm")) > 100:
        share *= math.nan
        source = f"Not known, as below {missed:.3g} nm most may be missed. {_EU}"
    density = (found.counts.iloc[-1][f"per_um2{end}"] for end in _ENDS)
    fibres = counts_of(every.where(match_rule(every.table, "niosh-7402"))).iloc[-1]
    ends = (fibres[end] for end in ("count", "low", "high"))
    return [
        Result.of("particles per area", density, "1/µm²", "ISO 13322-1:2014"),
        Result.of("share below 100 nm", share, "%", f"{source}; {paper.OF_SHARE}"),
        Result.of(_FIBRES, ends, "", _NIOSH),
    ]


def _methods(own: FoundFolder, found: FoundCounts, options: Any, scale: str | None) -> list[str]:
    """Return sentences on how particles were found, counted and measured."""
    fields, run, finder = found.particles[""].fields, own.run, dict(own.run["finder"])
    model, held_out, kept = (finder.pop(k, None) for k in ("model", "held_out", "annotations"))
    settings = [f"{name.replace('_', ' ')} {value}" for name, value in finder.items()]
    how = "by a network that was trained on drawn particles"
    if model:
        how = "by a model trained on outlined images"
        settings.insert(0, f"SHA-256 {model[:12]}")
    how += f" ({', '.join(settings)})" * bool(settings)
    shapes = dict.fromkeys(f"{each.shape[1]} x {each.shape[0]}" for each in fields)
    sources = defaultdict[str, list[str]](list)
    for each in fields:
        size = run["pixel_sizes"].get(each.micrograph) or run["pixel_size"] or math.nan
        user = "measured on scale bars" if each.scale_bar_error else "given by the user"
        is_given = math.isclose(each.pixel_size or 0, size, rel_tol=1e-6)
        sources[user if is_given else "from the files"].append(each.micrograph)
    of = {source: f" for {name_some(own)}" * (len(sources) > 1) for source, own in sources.items()}
    given = " and ".join(map("".join, of.items()))
    n_corrected, n_out = sum(each.by_person for each in fields), int(is_left_out(own.table).sum())
    n_open, every = len(own.unfinished), found.particles[""]
    known = every.detection
    corrected = "Counts and sizes are not corrected for particles that were missed or invented."
    outlined, doubtful = "", every.finding_text(found.measure)
    if n_corrected == len(fields):
        corrected = "No correction was needed, as a person outlined all particles."
    elif known is not None:
        outlined = (
            f"{counted(known.n_fields, 'image')} outlined by hand that the model had not learnt"
            if model
            else f"the {counted(known.n_fields, 'field')} that a person corrected"
        )
        corrected = (
            f"Each{' of the other fields' * bool(n_corrected)} also counts for the ratio of true "
            f"to found particles of its size in {outlined}, which corrects for what was missed, "
            "invented, or outlined too large or small."
        )
    return [
        f"Particles in {counted(len(fields), 'field')} of view ({' or '.join(shapes)} pixels; "
        f"{f'pixel size {scale}, {given}' if scale else 'pixel size not known'}) were outlined "
        f"with hypervlad {run.get('version', __version__)} {how}.",
        f"On held-out images: {held_out}." * bool(held_out),
        paper.annotations_text(bool(kept), any(each.annotated for each in fields)),
        f"A person checked or corrected all outlines of {counted(n_corrected, 'field')}."
        * bool(n_corrected),
        f"Some outlines of {counted(n_open, 'field')} were edited." * bool(n_open),
        f"A person left out {counted(n_out, 'particle')}." * bool(n_out),
        f"Only particles that meet {options.get('rule')!r} count." * bool(options.get("rule")),
        _AT_EDGE,
        _EDGES[options.get("edges", "weight")],
        corrected,
        f"The 95 % intervals are from how much {every.unit}s differ"
        f"{f', and {outlined}' * bool(outlined)} (jackknife; quantiles by R. S. Woodruff, J. Am. "
        "Stat. Assoc. 47, 1952; shares by E. B. Wilson, 22, 1927).",
        f"They also contain what finding without training may miss or invent: {doubtful}, as in "
        "95 % of drawn images." * bool(doubtful),
        paper.scale_text(scale, every.error),
    ]
