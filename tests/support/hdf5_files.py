"""EMD files of Velox and DM5 files, with the groups that an image needs."""

import json
from urllib.parse import quote

import h5py
import numpy as np


def velox_metadata(detector="HAADF", pixel=(0.5e-9, 0.5e-9), unit="m"):
    """What Velox says of a frame; its numbers are texts."""
    sides = dict(zip(("width", "height"), map(str, pixel), strict=True))
    result = {"Detector": detector, "DetectorIndex": "3", "PixelSize": sides}
    result |= {"PixelUnitX": unit, "PixelUnitY": unit}
    return {
        "Core": {"MetadataDefinitionVersion": "7.9"},
        "Acquisition": {"AcquisitionStartDatetime": {"DateTime": "1528984424"}},
        "Stage": {"AlphaTilt": "0"},
        "Instrument": {"InstrumentClass": "Titan"},
        "Detectors": {"Detector-3": {"DetectorName": "Ceta", "DetectorType": "ImagingDetector"}},
        "BinaryResult": result,
    }


def write_velox(path, images, others=(), titles=(), version=13, **options):
    """Write stacks of frames, (n, H, W), with their metadata: a dict, or one for each frame."""
    with h5py.File(path, "w") as file:
        file["Version"] = [json.dumps({"format": "Velox", "version": str(version)})]
        for number, title in enumerate(titles):
            data, reference = f"/Data/Image/{number:032x}", f"/SharedProperties/Reference/{number}"
            old = {"display": {"label": quote(title)}, "dataPath": data}
            new = {"title": title, "data": reference}
            file[reference] = [json.dumps({"dataPath": data})]
            place = "Displays" if version >= 11 else "Presentation/Displays"
            display = json.dumps(new if version >= 11 else old)
            file[f"{place}/ImageDisplay/{'d' * 31}{number}"] = [display]
        for other in others:
            file.create_group(f"Data/{other}/{'e' * 32}")
        for number, (stack, metadata) in enumerate(images):
            group = file.create_group(f"Data/Image/{number:032x}")
            each = metadata if isinstance(metadata, list) else [metadata] * len(stack)
            shape = (*stack.shape[1:], 1)
            data = np.moveaxis(stack, 0, 2)
            group.create_dataset("Data", data=data, chunks=shape, maxshape=None, **options)
            texts = np.zeros((60000, len(each)), np.uint8)
            for column, facts in enumerate(each):
                text = json.dumps(facts).encode() + b"\n"
                texts[: len(text), column] = list(text)
            group.create_dataset("Metadata", data=texts, chunks=(60000, 1))
    return path


def write_dm5(path, images, thumbnail=True, scale=(0.5, 0.5), units=b"nm", **options):
    """Write arrays (..., H, W) to a DM5 file, after a thumbnail; of uint32, packed colours."""
    grey = {"uint8": 6, "int16": 1, "uint16": 10, "float32": 2, "uint32": 23}
    with h5py.File(path, "w") as file:
        if thumbnail:
            file.create_group("Thumbnails/[0]").attrs["ImageIndex"] = np.uint32(0)
            images = [np.zeros((4, 5, 3), np.uint8), *images]
        for number, data in enumerate(images):
            is_colour = data.ndim == 3 and data.dtype == np.uint8
            group = file.create_group(f"ImageList/[{number}]/ImageData")
            group.create_dataset("Data", data=data, **options)
            group.attrs["DataType"] = np.uint32(23 if is_colour else grey[data.dtype.name])
            for axis in range(data.ndim - is_colour):
                own = group.create_group(f"Calibrations/Dimension/[{axis}]")
                own.attrs["Origin"] = np.float32(0)
                own.attrs["Scale"] = np.float32(scale[axis] if axis < 2 else 1)
                own.attrs["Units"] = np.bytes_(units if axis < 2 else b"")
            tags = file.create_group(f"ImageList/[{number}]/ImageTags/Microscope Info")
            tags.attrs["Voltage"] = np.float64(200000)
            tags.attrs["Name"] = np.bytes_(b"Titan")
    return path
