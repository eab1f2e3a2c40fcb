"""Model files written by hand, with a checksum that fits: see docs/reference/model_file.md."""

import hashlib
import json

import numpy as np
import safetensors.numpy


def read_entry(path):
    """Return the JSON that a model file holds beside its arrays."""
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(header["__metadata__"]["hypervlad"])


def write_file(path, entry, arrays=None):
    """Write a model file; the entry may be text that is no JSON."""
    if not isinstance(entry, str):
        entry = json.dumps({"sha256": ""} | entry | {"sha256": "0" * 64}, separators=(",", ":"))
    data = safetensors.numpy.save(arrays or {}, metadata={"hypervlad": entry})
    start = data.index(b"0" * 64)
    digest = hashlib.sha256(data[:start] + data[start + 64 :]).hexdigest()
    path.write_bytes(data[:start] + digest.encode() + data[start + 64 :])
    return path


def forged(model, path, change):
    """Save a model with its network, change its header and arrays, and renew the checksum."""
    model.save(path, include_backbone=True)
    entry, arrays = read_entry(path), safetensors.numpy.load(path.read_bytes())
    change(entry["header"], arrays)
    return write_file(path, entry, {name: np.ascontiguousarray(a) for name, a in arrays.items()})
