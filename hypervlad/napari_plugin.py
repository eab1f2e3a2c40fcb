"""hypervlad in napari: found particles as layers, Labels layers as outlines, and a dock widget."""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_type_hints

import numpy as np
from joblib.externals.loky import ProcessPoolExecutor
from numpy.typing import NDArray

from hypervlad.common.files import file_digest
from hypervlad.common.progress import announced
from hypervlad.common.wording import counted, warn_user
from hypervlad.fibres.diameter_tables import IMAGES_TABLE, PLACES_TABLE
from hypervlad.fibres.singles import find_fibres
from hypervlad.images import ImageReadError, ReadOptions
from hypervlad.images.metadata import length_in_nm, square_pixel_size
from hypervlad.images.options import check_read_options
from hypervlad.images.reading import read_named
from hypervlad.images.sample import errors_of, note_found
from hypervlad.loading import load
from hypervlad.objects.found_files import RUN
from hypervlad.objects.found_folder import FoundFolder
from hypervlad.objects.measures import MEASURES, measure
from hypervlad.objects.outlines import write_outlines
from hypervlad.objects.particle import Outlines, check_same_size
from hypervlad.objects.results_folder import made_with, read_rows
from hypervlad.particles.finding import find_particles

if TYPE_CHECKING:
    import pandas as pd

Layer: TypeAlias = tuple[Any, Mapping[str, Any]]  # data and attributes, as for plugins
ReadLayers: TypeAlias = list[tuple[Any, dict[str, Any], str]]
Polarity: TypeAlias = Literal["auto", "bright", "dark"]

KEY = "hypervlad"  # of what is known of a layer, in its metadata
_MAX_FIELDS = 20  # of a folder, which are opened together
_SHOWN = (  # columns that say what napari shows
    *("micrograph", "top", "left", "bottom", "right", "centroid_row", "centroid_column"),
    *("field_height", "field_width", "pixel_size_nm"),
)
_PLACE = ("scale", "translate", "rotate", "shear", "affine", "units")  # of a layer in the window
_at_work = list[str]()


def get_reader(path: Any) -> Callable[[str], ReadLayers] | None:
    """Return what reads a folder of particles, outlines in it, or fibre diameters; else None."""
    if isinstance(path, str) and Path(path, PLACES_TABLE).is_file():
        return read_diameters
    return read_found if isinstance(path, str) and _folder_of(path) else None


def _folder_of(path: str) -> Path | None:
    own = Path(os.path.abspath(path))
    folders = own.parents if own.suffix in (".tif", ".geojson") else [own]
    return next((f for f in folders if (f / RUN).is_file() and (f / "outlines").is_dir()), None)


def read_found(path: str) -> ReadLayers:
    """Read an image and, above it, its outlines with their measures, of each field of a folder."""
    found, own = FoundFolder(_folder_of(path) or path), Path(os.path.abspath(path))
    fields = [f for f in found.fields if own in (found.path, found.outlines_file(f.micrograph))]
    if not fields:
        raise ValueError(f"{path}: not the outlines of an image in {found.path}")
    layers: ReadLayers = []
    digests = found.field_table.set_index("micrograph")["outlines_digest"]
    for field in _first(fields, path):
        name, size, outlines = field.micrograph, field.pixel_size, found.outlines(field.micrograph)
        source = {"folder": str(found.path), "micrograph": name}
        shown = _shown(name, size, layers) | {"metadata": {KEY: source}}
        layers.append(_image(found.image(name), found.read_options, shown))
        check_same_size(outlines, layers[-1][0], name)
        if outlines.do_overlap:
            warn_user(f"{name}: outlines overlap; a Labels layer has the last, and saving cuts")
        table = found.table[found.table["micrograph"] == name]
        if digests[name] != file_digest(found.outlines_file(name)):
            table = measure(replace(outlines, pixel_size=size).as_particles())  # changed since
        of_labels = {"name": f"{name} outlines", "features": _features(table)}
        layers.append((outlines.label_image(), shown | of_labels, "labels"))
    return layers


def read_diameters(path: str) -> ReadLayers:
    """Read an image, found by name in a folder beside it, and points as large as its fibres."""
    folder, layers = Path(os.path.abspath(path)), ReadLayers()
    with errors_of(str(folder / "diameters.json")):
        made = made_with(folder / IMAGES_TABLE, "read_options")
        options = check_read_options(made["read_options"])
    every = defaultdict[str, list[dict[str, float]]](list)
    for row in read_rows(folder / PLACES_TABLE):
        every[row.pop("path")].append({key: float(cell or "nan") for key, cell in row.items()})
    for row in _first([*read_rows(folder / IMAGES_TABLE)], path):
        shown = _shown(row["path"], float(row["pixel_size_nm"] or 0), layers)
        roots = folder.parent, *folder.parent.iterdir()
        if len(files := [own for root in roots if (own := root / row["path"]).is_file()]) == 1:
            layers.append(_image(files[0], options, shown))
        else:
            warn_user(f"{path}: open {row['path']} yourself; it was not found beside the folder")
        if places := every[row["path"]]:
            own = {key: np.array([each[key] for each in places]) for key in places[0]}
            shown |= {"name": f"{row['path']} diameters", "features": own, "border_color": "yellow"}
            shown |= {"size": own["diameter_px"], "face_color": "transparent"}
            shown |= {"shown": own["left_out"] == 0}
            layers.append((np.stack([own["y_px"], own["x_px"]], axis=1), shown, "points"))
    return layers


def _first(fields: Sequence[Any], path: str) -> Sequence[Any]:
    if (n := len(fields)) > _MAX_FIELDS:
        warn_user(f"{path}: {_MAX_FIELDS} of {n:,} images opened; open others by their outlines")
    return fields[:_MAX_FIELDS]


def _shown(name: str, size: float | None, layers: ReadLayers) -> dict[str, Any]:
    units = {"scale": (size, size), "units": ("nanometer", "nanometer")} if size else {}
    return {"name": name, "visible": not layers, **units}


def _image(file: Path, options: ReadOptions, shown: dict[str, Any]) -> Any:
    pixels = read_named(file, options, shown["name"], with_digest=False).pixels
    return pixels, shown | {"rgb": pixels.ndim == 3}, "image"


def _features(table: pd.DataFrame) -> pd.DataFrame:
    """Return measures in one unit; napari finds those of a label by the column `index`."""
    other = ("_px", "_px2") if table["pixel_size_nm"].notna().any() else ("_nm", "_nm2")
    dropped = [n for n in table if n in _SHOWN or (n in MEASURES and n.endswith(other))]
    return table.drop(columns=dropped).rename(columns={"particle": "index"}).reset_index(drop=True)


def write_labels(path: str, *layer: Any) -> list[str]:
    """Write a Labels layer, its data and attributes, by `write_outlines`."""
    write_outlines(path, _outlines_in(layer), pixel_size=_pixel_size_of(layer))
    return [path]


def _saved(layer: Layer) -> tuple[Path, pd.DataFrame]:
    """Write a Labels layer into the results folder that it is of; return where, and features."""
    outlines, source = _outlines_in(layer), _source_of(layer)
    if "folder" not in source:
        raise ValueError(f"{layer[1]['name']}: of no results folder; choose File > Save Selected")
    found, name = FoundFolder(source["folder"]), source["micrograph"]
    found.replace_outlines(name, outlines)
    return found.outlines_file(name), _features(found.table[found.table["micrograph"] == name])


def _source_of(layer: Layer) -> dict[str, Any]:
    """Return what is known of a layer: its results folder and image there, and its pixel size."""
    return dict(layer[1].get("metadata", {}).get(KEY, {}))


def _pixels_of(layer: Layer | None) -> NDArray[Any]:
    """Return the image of a layer, at full size; an ImageReadError for a stack."""
    if layer is None:
        raise ValueError("open an image; outlines belong right above theirs in the list of layers")
    data, attributes = layer
    full = data[0] if attributes.get("multiscale") else data
    if len(full.shape) != 2 + bool(attributes.get("rgb")):
        raise ImageReadError(
            f"{attributes['name']}: a stack of shape {tuple(full.shape)}, not one image; choose "
            "Split Stack in the menu of the layer, and one of its images"
        )
    return np.asarray(full)


def _pixel_size_of(layer: Layer) -> float | None:
    """Return the nanometres per pixel of a layer, if its units are lengths."""
    if given := _source_of(layer).get("pixel_size"):
        return float(given)
    pairs = zip(layer[1].get("scale", ()), layer[1].get("units") or (), strict=False)
    sides = [length_in_nm(*pair) for pair in pairs][-2:]
    size = square_pixel_size((sides[0], sides[1])) if len(sides) == 2 else None
    if size is None and any(sides):
        warn_user(f"{layer[1]['name']}: pixels are not square, so lengths are in pixels")
    return size


def _outlines_in(layer: Layer) -> Outlines:
    return Outlines.of(_pixels_of(layer), layer[1]["name"])


def _found(
    image: Layer, what: str, polarity: Polarity, area: int, length: float, nm: float, model: Any
) -> tuple[Outlines, pd.DataFrame, dict[str, Any]]:
    """Return what was found in an image, its features, and what is known of its layer."""
    pixels, name, size = _pixels_of(image), image[1]["name"], nm or _pixel_size_of(image)
    options = ReadOptions(pixel_size=size)
    with announced(), errors_of(name):
        if what == "fibres":
            found = find_fibres(pixels, polarity=polarity, min_length=length, read_options=options)
            if found.do_overlap:
                warn_user(f"{name}: fibres cross; the layer has the upper one, and saving cuts")
        elif what == "particles":
            found = find_particles(pixels, polarity=polarity, min_area=area, read_options=options)
        else:
            segmenter: Any = None if model is None else load(model)
            if not hasattr(segmenter, "find_particles"):
                raise ValueError("give the file of a model that outlines particles, or learn one")
            options = replace(check_read_options(segmenter.read_options), pixel_size=size)
            found = segmenter.find_particles(pixels, read_options=options)
        note_found(name, found)
    table = measure(replace(found, pixel_size=size).as_particles())
    return found, _features(table), _source_of(image) | {"pixel_size": size}


def _learnt(fields: list[tuple[Layer, Layer]], model: Path | None, passes: int) -> str:
    """Learn from images and their Labels layers, save the model, and say what it is."""
    if model is None or not fields:
        raise ValueError("choose Labels layers that are right and complete, and a file to save in")
    images, outlines = [_pixels_of(i) for i, _ in fields], [_outlines_in(o) for _, o in fields]
    for pixels, found, (image, own) in zip(images, outlines, fields, strict=True):
        check_same_size(found, pixels, f"{own[1]['name']}, above {image[1]['name']}")
    sizes = {_pixel_size_of(own) for _, own in fields}
    if len(sizes) > 1 or len({image[1]["name"] for image, _ in fields}) < len(fields):
        raise ValueError("choose one Labels layer of each image, and images of one pixel size")
    # In a process of its own, as triton, which training imports, crashes beside Mesa's OpenGL.
    with ProcessPoolExecutor(max_workers=1) as executor:
        options = outlines, sizes.pop(), passes, model
        text, notes = executor.submit(_trained, images, *options).result()
    for note in notes:
        warn_user(note)
    return f"{text}; model: {model}"


def _trained(
    images: list[Any], outlines: list[Outlines], size: float | None, passes: int, model: Path
) -> tuple[str, list[str]]:
    """Train and save a model; return what it is, and the warnings."""
    from hypervlad.pages.facts import model_facts
    from hypervlad.particles.segmenter import HypercolumnSegmenter

    options = ReadOptions(pixel_size=size)
    with warnings.catch_warnings(record=True, category=UserWarning) as caught:
        segmenter = HypercolumnSegmenter(n_epochs=passes, read_options=options, random_state=0)
        segmenter.fit(images, outlines)
        # Later images of unknown pixel size do not have that of these.
        segmenter.set_params(read_options=None).save(model)
    facts = model_facts(segmenter)
    known = f"trained on {facts['trained on']}; held out: {facts['when held out']}"
    return known, [str(each.message) for each in caught]


def make_widget() -> Any:
    """Return the widget, which works on the layers of the window that it is added to."""
    from magicgui import magicgui
    from magicgui.widgets import Container

    for function in (find, learn, save):  # whose annotations magicgui cannot resolve
        function.__annotations__ = get_type_hints(function)
    images, labels = ({"choices": partial(_layers, kind)} for kind in ("Image", "Labels"))
    one, several = {"widget_type": "ComboBox"}, {"widget_type": "Select"}
    model, new, large = {"filter": "*.hvlad"}, {"filter": "*.hvlad", "mode": "w"}, {"max": 10**9}
    found: dict[str, Any] = {"image": images | one, "nm_per_pixel": large, "model": model}
    found |= {"smallest_area_px": large, "shortest_fibre_px": large}
    finder = magicgui(find, call_button="Find", **found)
    learner = magicgui(learn, call_button="Learn", learn_from=labels | several, model=new)
    saver = magicgui(save, call_button="Save", outlines=labels | one)
    learner.model.changed.connect(partial(setattr, finder.model, "value"))
    return Container(widgets=[finder, learner, saver], labels=False)


def find(
    image: Any,
    what: Literal["particles", "fibres", "particles, by the model"] = "particles",
    polarity: Polarity = "auto",
    smallest_area_px: int = 20,
    shortest_fibre_px: float = 30.0,
    nm_per_pixel: float = 0.0,
    model: Path | None = None,
) -> None:
    """Find objects in an image, and add a Labels layer above it; 0 nm: as the layer says."""
    from napari import current_viewer
    from napari.layers import Labels

    layers = current_viewer().layers

    def add(result: tuple[Outlines, pd.DataFrame, dict[str, Any]]) -> str:
        found, features, source = result
        place = {name: getattr(image, name) for name in _PLACE}
        place |= {"name": f"{image.name} outlines", "metadata": {KEY: source}}
        above = layers.index(image) + 1 if image in layers else len(layers)
        layers.insert(above, Labels(found.label_image(), features=features, **place))
        return f"{image.name}: {counted(len(found), 'outline')}"

    options = polarity, smallest_area_px, shortest_fibre_px, nm_per_pixel, model
    _in_thread(f"finding {what}", partial(_found, _copy_of(image), what, *options), add)


def learn(learn_from: Any, model: Path | None = None, passes: int = 14) -> None:
    """Learn from Labels layers and the images right below them, and save a model to find with."""
    from napari import current_viewer

    place, fields = current_viewer().layers.index, list[Any]()
    for own in learn_from:
        below = [each for each in _layers("Image") if place(each) < place(own)]
        fields.append((_copy_of(below[-1]) if below else None, _copy_of(own)))
    _in_thread("learning", partial(_learnt, fields, model, passes), str)


def save(outlines: Any) -> None:
    """Save a Labels layer in the results folder that it is of."""

    def show(saved: tuple[Path, pd.DataFrame]) -> str:
        outlines.features = saved[1]
        return f"{counted(len(saved[1]), 'outline')}: {saved[0]}"

    _in_thread("saving", partial(_saved, _copy_of(outlines)), show)


def _layers(kind: str, _widget: Any = None) -> list[Any]:
    from napari import current_viewer, layers

    viewer, own = current_viewer(), getattr(layers, kind)
    return [] if viewer is None else [each for each in viewer.layers if isinstance(each, own)]


def _copy_of(layer: Any) -> Any:
    """Return a layer as it is now, as a person may go on drawing."""
    data, attributes, kind = layer.as_layer_data_tuple()
    return (np.array(data) if kind == "labels" else data), attributes


def _in_thread(what: str, work: Callable[[], Any], show: Callable[[Any], str]) -> None:
    """Work in another thread, then show the result in that of the window, and say so there."""
    from napari.qt.threading import create_worker
    from napari.utils.notifications import show_error, show_info, show_warning

    def fail(error: Exception) -> None:
        if not isinstance(error, ValueError | OSError | RuntimeError):
            raise error  # a defect: napari shows where
        show_error(str(error))

    def warn(warning: tuple[Any, ...]) -> None:
        if issubclass(warning[1], UserWarning):
            show_warning(str(warning[0]))

    if _at_work:
        show_error(f"still {_at_work[0]}: wait for its end")
        return
    _at_work.append(what)
    ends: dict[str, Any] = {"errored": fail, "warned": warn, "finished": _at_work.clear}
    ends["returned"] = lambda result: show_info(show(result))
    create_worker(work, _progress={"desc": what}, _connect=ends)
