"""OME-Zarr folders, whose arrays zarr writes."""

import json

import zarr

UNITS = {"z": "nanometer", "y": "nanometer", "x": "nanometer"}


def write_ome_zarr(
    path,
    levels,
    axes="yx",
    *,
    version="0.5",
    scale=0.5,
    units=UNITS,
    group="",
    omero=None,
    **options,
):
    """Write the levels of an image, each half as large as the one before, by OME-NGFF.

    `options` are those of `zarr.create_array`.
    """
    zarr_format = 3 if version == "0.5" else 2
    root, datasets = zarr.open_group(path, mode="a", zarr_format=zarr_format), []
    for number, pixels in enumerate(levels):
        root.create_array(f"{group}/{number}".strip("/"), data=pixels, **options)
        sides = [scale * 2**number if axis in "yx" else 1 for axis in axes]
        transformation = {"type": "scale", "scale": sides}
        datasets.append({"path": str(number), "coordinateTransformations": [transformation]})
    described = [
        {"name": axis, **({"unit": units[axis]} if axis in units else {})} for axis in axes
    ]
    attributes = {"multiscales": [{"axes": described, "datasets": datasets, "version": version}]}
    if omero is not None:
        attributes["omero"] = {"channels": [{"color": colour} for colour in omero]}
    set_attributes(path / group, attributes, version)
    return path


def set_attributes(path, attributes, version="0.5"):
    """Write the attributes of a group, as OME-NGFF wants them."""
    path.mkdir(exist_ok=True, parents=True)
    if version == "0.5":
        stored = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": attributes}}
        (path / "zarr.json").write_text(json.dumps(stored))
    else:
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps(attributes))
