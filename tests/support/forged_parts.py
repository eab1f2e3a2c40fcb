"""Finished tasks of an extraction, taken apart and put together with a digest that fits."""

import hashlib
import json

_DIGEST_BYTES, _LENGTH_BYTES = 32, 8


def read_part(path):
    """Return the facts of a finished task, and the bytes of its vectors."""
    content = path.read_bytes()[_DIGEST_BYTES:]
    end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    return json.loads(content[_LENGTH_BYTES:end]), content[end:]


def write_part(path, facts, vectors):
    """Write a finished task; the facts may be text that is no JSON."""
    text = facts if isinstance(facts, bytes) else json.dumps(facts).encode()
    write_with_digest(path, len(text).to_bytes(_LENGTH_BYTES, "little") + text + vectors)


def write_with_digest(path, content):
    """Write bytes after their SHA-256."""
    path.write_bytes(hashlib.sha256(content).digest() + content)
