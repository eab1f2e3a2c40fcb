"""``Networks``: what they find, and let grow, in one image: in the process of the page."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from hypervlad.app.packing import shapes_of
from hypervlad.app.previews import MAX_PREVIEWS, BusyError, Part, write_part
from hypervlad.app.strokes import Change, grown
from hypervlad.common.limits import MAX_WAIT, MAX_WAIT_FOR_PREVIEW
from hypervlad.common.progress import announced, joined_notes, note_doubt, noted
from hypervlad.common.wording import counted
from hypervlad.images import ImageReadError, ReadOptions
from hypervlad.images.files import file_stamp
from hypervlad.images.sample import note_found, read_sample
from hypervlad.objects.particle import Outline, Outlines, check_same_size

_FIRST = 1.0  # seconds, which the first picture has for itself
_USUAL = 1024  # pixels, of the sides of an image
_MAX_KEPT = 2**24  # pixels of the last images, of 5 to 15 bytes each; one is always kept
_BY_OTHERS = "“Find in all images” takes what most of the others show"


class _Opened:
    """An image in which particles may grow."""

    def __init__(self) -> None:
        self.grey = np.zeros((0, 0), np.float32)
        self._field: Any = None

    def prepared(self) -> Any:
        """Return the field, with what the first particle would wait for."""
        from hypervlad.particles.growing import GrowingField

        if self._field is None:
            self._field = GrowingField(self.grey)
            self._field.prepare()
        return self._field


class Networks:
    """The networks that find particles, for one image at a time.

    Nothing else in the process of the page imports torch. One thread at a time imports and runs
    it, and others wait for a limited time, then with a `BusyError`: whatever a library waits for,
    all else on the page goes on.
    """

    def __init__(self) -> None:
        self._guard, self._preparing = threading.Lock(), threading.Lock()
        self._opened = OrderedDict[Any, _Opened]()  # images in which particles may grow
        self._keeping, self._reading = threading.Lock(), threading.Lock()
        self._wanted: tuple[Path, ReadOptions] | None = None  # an image to be prepared
        self._found = dict[tuple[Any, ...], dict[str, Any]]()  # the last previews
        self._loading = threading.Timer(_FIRST, self._load)
        self._loading.daemon = True

    def load_soon(self) -> None:
        """Load what takes seconds, so that neither a preview nor a particle waits for it."""
        with contextlib.suppress(RuntimeError):  # it has been started already
            self._loading.start()

    def _load(self) -> None:
        with contextlib.suppress(BusyError), self._alone():
            from hypervlad.particles.growing import GrowingField

            GrowingField(np.zeros((_USUAL, _USUAL), np.float32)).prepare()

    @contextlib.contextmanager
    def _alone(
        self, limit: float = MAX_WAIT, guard: threading.Lock | None = None
    ) -> Iterator[None]:
        guard = guard or self._guard
        if not guard.acquire(timeout=limit):
            raise BusyError("networks are being loaded, or look at another image: try again")
        try:
            yield
        finally:
            guard.release()

    # --- particles that grow ----------------------------------------------------------------------

    def prepare(self, path: Path, options: ReadOptions) -> None:
        """Read an image for `grow`, before a click; of several that wait, the one shown last."""
        self._wanted = path, options
        while self._wanted and self._preparing.acquire(blocking=False):
            try:
                wanted, self._wanted = self._wanted, None
                with contextlib.suppress(BusyError, ImageReadError):
                    if wanted is not None:  # another thread may have taken it
                        opened = self._open(*wanted)
                        if self._wanted is None:  # else another image is shown by now
                            with self._alone():
                                opened.prepared()
            finally:
                self._preparing.release()

    def grow(
        self, path: Path, options: ReadOptions, stroke: list[Any], outlines: Outlines
    ) -> Change:
        """Return what grows where a stroke begins; a ValueError says why nothing does."""
        opened = self._open(path, options)
        check_same_size(outlines, opened.grey, path.name)
        with self._alone():
            return grown(opened.prepared().grown, stroke, outlines)

    def _open(self, path: Path, options: ReadOptions) -> _Opened:
        """Read an image, one at a time, unless it is among the last."""
        key = path, file_stamp(path), options
        with self._keeping:
            own = self._opened.setdefault(key, _Opened())
            self._opened.move_to_end(key)
        with self._alone(guard=self._reading):
            if not own.grey.size:
                with noted(path.name):
                    own.grey = read_sample(path, annotations="keep", read_options=options).grey
        with self._keeping:
            n_kept = np.cumsum([each.grey.size for each in reversed(self._opened.values())])
            for old in [*reversed(self._opened)][max(1, int((n_kept <= _MAX_KEPT).sum())) :]:
                del self._opened[old]
        return own

    # --- previews ---------------------------------------------------------------------------------

    def preview(
        self, path: Path, part: Part | None, finder: Mapping[str, Any], options: ReadOptions
    ) -> dict[str, Any]:
        """Return the particles of an image, or of a part, as `Corrections.shown` does.

        `finder` are parameters of `find_particles`. The last answers are kept, in memory.
        """
        key = path, file_stamp(path), part, *finder.items(), repr(options)
        with self._alone(MAX_WAIT_FOR_PREVIEW):
            kept = self._found.pop(key, None)
            self._found[key] = kept or _preview(path, part, finder, options)
            for old in [*self._found][:-MAX_PREVIEWS]:  # used before the others
                del self._found[old]
            return self._found[key]


def _preview(
    path: Path, part: Part | None, finder: Mapping[str, Any], options: ReadOptions
) -> dict[str, Any]:
    from hypervlad.particles.finding import find_particles
    from hypervlad.particles.polarity import SURE

    with noted(path.name) as notes, announced(), TemporaryDirectory() as folder:
        if part is not None:
            path, options = write_part(path, part, Path(folder), options), ReadOptions(page=0)
        found = find_particles(path, **finder, read_options=options)
        note_found(path.name, found)
        if len(found) and finder["polarity"] == "auto" and found.confidence < SURE:
            note_doubt(path.name, _BY_OTHERS)
    y, x = (part.top, part.left) if part else (0, 0)
    outlines = list[Outline]()
    for each in found:
        top, left, bottom, right = each.box
        outlines.append(replace(each, box=(top + y, left + x, bottom + y, right + x)))
    note = f": {joined_notes(notes)}" if notes else ""
    kind = f"{found.polarity} particle" if len(found) else "particle"
    where = "this image" if part is None else part.words
    note = note if part is None else note.replace("this image", "this part")
    message = f"{counted(len(found), kind)} found in {where}{note}"
    shown = {"is_whole": True, "removed": [], "outlines": shapes_of(outlines)}
    return shown | {"message": message, "part": part and part._asdict()}
