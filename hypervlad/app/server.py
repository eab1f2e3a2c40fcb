"""The server of the page: for this computer only, behind a link with a secret.

The script of the page is our own: no library that the site loads handles keys for labels, or sends
a click again until the server has saved it.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import (
    Flask,
    Response,
    abort,
    get_template_attribute,
    jsonify,
    render_template,
    request,
    send_file,
)
from flask.json.provider import DefaultJSONProvider
from waitress import create_server
from waitress.channel import HTTPChannel
from werkzeug.routing import IntegerConverter

from hypervlad.app.database import QUEUE, Database, StaleError
from hypervlad.app.labels import Labels
from hypervlad.app.previews import SIDES, THUMBNAIL, Previews
from hypervlad.app.requests import body_of, check_request, error_response, items_of, with_headers
from hypervlad.app.scales import SIZES
from hypervlad.app.store import Queue
from hypervlad.app.tasks import TASKS
from hypervlad.common import limits
from hypervlad.common.wording import counted
from hypervlad.objects.particle import NOT_A_PARTICLE
from hypervlad.pages.parts import ParticleWords, asset, plain

if TYPE_CHECKING:
    from hypervlad.app.project import Project

HOST = "127.0.0.1"
_PAGE = Path(__file__).parent / "page"
# Declared here: the type that Windows gives ".js" depends on installed software.
_CONTENT_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_SHARED = "base.css", "common.js"  # with all pages
_FILES = {each.name for each in _PAGE.iterdir() if each.suffix in _CONTENT_TYPES}.union(_SHARED)
_N_THREADS = 8

# Pages of results have scripts of their own, which must not use the server: they have no origin.
_RESULT_POLICY = (
    "sandbox allow-scripts allow-downloads allow-modals allow-popups; default-src 'none'; "
    "img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_RESULT_TYPES = {".html": "text/html", ".svg": "image/svg+xml", ".png": "image/png"}
_RESULT_TYPES |= {".txt": "text/plain", ".csv": "text/csv", ".pdf": "application/pdf"}
_RESULT_TYPES |= {".zip": "application/zip", ".hvlad": "application/octet-stream"}
_RESULT_TYPES |= {".json": "application/json"}
_RESULT_TYPES |= {".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"}
_SAVED = ".csv", ".pdf", ".zip", ".hvlad", ".xlsx", ".json"
_PAGES = [("./", "Particles"), *((f"{kind}.html", each.title) for kind, each in TASKS.items())]
_PAGES += [("sizes.html", "Pixel sizes")]
_COMMON = {"wrong": "", "pages": _PAGES}
_KIND = f"<any({', '.join(TASKS)}):kind>"


def make_app(kept: Queue | Project, token: str, port: int) -> Flask:
    """Return the application that serves a queue, or a project, under ``/token/``."""
    app = Flask(__name__, static_folder=None, template_folder="page")
    app.json = _PrintableJSON(app)
    app.config["MAX_CONTENT_LENGTH"] = limits.MAX_SAVED_BODY
    app.url_map.merge_slashes = False
    app.url_map.converters["number"] = _NumberConverter
    max_body = limits.MAX_REQUEST_BODY if kept.kind is QUEUE else limits.MAX_EDIT_BODY
    app.before_request(lambda: check_request(request, token, port, max_body))
    app.after_request(with_headers)
    app.register_error_handler(Exception, error_response)
    previews = Previews()
    _add_files(app, kept, previews)
    if isinstance(kept, Queue):
        _add_review(app, kept, previews)
        _add_clicks(app, kept)
        _add_labels(app, Labels(kept))
    else:
        _add_project(app, kept, previews)
        app.wsgi_app = _WithQueue(app.wsgi_app, kept, token, port)  # type: ignore[method-assign]  # as Flask says
    return app


class _WithQueue:
    """The application of a project, with that of its queue, if it has one, below ``review/KEY/``.

    The key is of the queue: a window that shows one of before must not label images of another.
    """

    def __init__(self, outer: Any, project: Project, token: str, port: int) -> None:
        self._outer, self._project, self._link = outer, project, (token, port)
        self._inner: tuple[Queue, Flask] | None = None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        _, token, name, key, *rest = [*environ["PATH_INFO"].split("/", 4), "", "", ""][:5]
        queue = self._project.queue() if name == "review" and key else None
        if queue is None or key != queue.key:
            return self._outer(environ, start_response)
        if self._inner is None or self._inner[0] is not queue:
            self._inner = queue, make_app(queue, *self._link)
        # The inner application looks whether a request may be made.
        own = {"PATH_INFO": f"/{token}/{rest[0]}", "SCRIPT_NAME": "/review"}
        return self._inner[1](environ | own, start_response)


def serve(
    kept: Queue | Project, *, port: int | None = None, ready: Callable[[str], Any] = lambda _: None
) -> None:
    """Serve a queue, or corrections, until Ctrl-C.

    The default port is the last one of the folder, so that open windows continue, or a free one.
    `ready` is called with the link when the server listens.
    """
    listening = _listen(kept, port)
    try:
        own_port: int = listening.getsockname()[1]
        token = kept.secret()
        if port is not None or kept.fact("port") is None:
            kept.set_facts(port=str(own_port))
        server = create_server(
            make_app(kept, token, own_port),
            sockets=[listening],
            threads=_N_THREADS,
            ident="",
            max_request_body_size=limits.MAX_SAVED_BODY,
            max_request_header_size=limits.MAX_REQUEST_HEADER,
            channel_timeout=limits.MAX_REQUEST_SECONDS,
            cleanup_interval=1,
        )
        server.channel_class = _Connection
        ready(f"http://{HOST}:{own_port}/{token}/")
        server.run()
    finally:
        listening.close()


def _listen(kept: Database, port: int | None) -> socket.socket:
    if port is None:
        with contextlib.suppress(OSError):  # the remembered port may be in use by now
            return _bound(int(kept.fact("port", "0") or 0))
    return _bound(port or 0)


def _bound(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows, where REUSEADDR would share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise OSError(
            f"port {port} of this computer cannot be used ({error.strerror}): is the page served "
            "already? Give another one with --port, or none"
        ) from error
    return listening


class _Connection(HTTPChannel):
    """A connection that is closed unless it sends a request in time."""

    last_activity: float

    def __init__(self, server: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(server, *arguments, **options)
        waiting = [each for each in server.active_channels.values() if not each.requests]
        if len(waiting) > limits.MAX_WAITING_CONNECTIONS:
            min(waiting, key=lambda each: each.last_activity).will_close = True

    def handle_read(self) -> None:
        """Read what has arrived; more of an unfinished request does not count as activity."""
        unfinished, since = self.request, self.last_activity
        super().handle_read()
        if unfinished is not None and self.request is unfinished:
            self.last_activity = since


class _NumberConverter(IntegerConverter):
    """Numbers in paths: those with more digits than any item are no page of ours."""

    regex = r"\d{1,15}"


def _add_review(app: Flask, queue: Queue, previews: Previews) -> None:
    of_particles = queue.unit == "particle"
    if of_particles:
        app.jinja_env.add_extension(ParticleWords)
    words = {"unit": queue.unit, "wrong": NOT_A_PARTICLE if of_particles else ""}

    @app.get("/<token>/")
    def page(token: str) -> str:
        return render_template("index.html", **words)

    @app.get("/<token>/labels.html")
    def label_page(token: str) -> str:
        return render_template("labels.html", **words)

    @app.get("/<token>/training/<number:row>")
    def training(token: str, row: int) -> Response:
        return _picture(previews.get(queue.image_of_training(row), THUMBNAIL, queue.read_options()))


def _picture(jpeg: bytes) -> Response:
    return Response(jpeg, mimetype="image/jpeg")


def _add_files(app: Flask, kept: Queue | Project, previews: Previews) -> None:
    @app.get("/<token>/<any(image, small, whole):size>/<number:item>")
    def image(token: str, size: str, item: int) -> Response:
        return _picture(previews.get(kept.image_of(item), SIDES[size], kept.read_options()))

    @app.get("/<token>/<name>")
    def file(token: str, name: str) -> Response:
        if name not in _FILES:
            abort(404)
        text = asset(name) if name in _SHARED else (_PAGE / name).read_text(encoding="utf-8")
        kind = _CONTENT_TYPES[Path(name).suffix]
        return Response(text, content_type=f"{kind}; charset=utf-8")


class _PrintableJSON(DefaultJSONProvider):
    """JSON without characters that would hide or reverse the names on the page."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return super().dumps(plain(obj), **kwargs)


def _answer(app: Flask, path: str, fields: Mapping[str, type], answer: Callable[..., Any]) -> None:
    """Let a function answer what is posted to a path: JSON with these fields, in JSON."""

    def answered(token: str, **parts: str) -> Response:
        found = answer(**parts, **body_of(fields))
        return jsonify({} if found is None else found)

    app.add_url_rule(f"/<token>/{path}", path, answered, methods=["POST"])


def _add_clicks(app: Flask, queue: Queue) -> None:
    click = {"client": str, "click": str, "want": int}
    fields_of = {"next": {"client": str, "want": int}, "undo": click, "again": click}
    fields_of |= {"label": click | {"item": int, "category": int}, "skip": click | {"item": int}}

    def clicked(action: str, **body: Any) -> dict[str, Any]:
        answer = getattr(queue, action)(**body)
        categories = list(map(asdict, queue.categories()))
        return asdict(answer) | {"categories": categories, "lease": queue.lease}

    for action, fields in fields_of.items():
        _answer(app, action, fields, partial(clicked, action))
    _answer(app, "category", {"name": str}, lambda name: asdict(queue.add_category(name)))
    _answer(app, "release", {"client": str}, queue.release)


def _add_labels(app: Flask, labels: Labels) -> None:
    def shown(**body: Any) -> dict[str, Any]:
        found = labels.page(**body)
        return asdict(found) | {"categories": list(map(asdict, labels.queue.categories()))}

    def correct(items: list[Any], **body: Any) -> dict[str, Any]:
        return labels.correct(items=items_of(items), **body)._asdict()

    fields = {"category": int, "source": str, "order": str, "start": int, "n": int}
    _answer(app, "labels", fields, shown)
    click = {"client": str, "click": str}
    _answer(app, "correct", click | {"items": list, "category": int}, correct)
    _answer(app, "restore", click, lambda **body: labels.undo(**body)._asdict())


def _add_project(app: Flask, project: Project, previews: Previews) -> None:
    from hypervlad.app.strokes import change_of  # not above: importing it takes long

    of_image = {"client": str, "click": str, "image": int, "version": int}
    fields = {"action": str, "labels": list, "stroke": list, "reach": int, "name": str}

    @app.get("/<token>/")
    def page(token: str) -> str:
        known = {"folder": project.folder, "n_folders": project.n_folders()}
        return render_template("outlines.html", unit="outline", **_COMMON, **known)

    def stated() -> dict[str, Any]:
        state, part = project.state(), partial(get_template_attribute, "parts.html")
        banner = part("banner")(state["task"], project.title())
        sizes = part("sizes")(project.scales, project.proposals(), state, counted)
        return state | {"banner": banner.strip(), "sizes": sizes.strip()}

    _add_tasks(app, project, stated, previews)

    def images() -> dict[str, Any]:
        before = stated()  # first: what is done is listed
        listed = {"images": project.images(), "classes": project.classes(), "note": project.note}
        return before | listed

    def edit(**body: Any) -> dict[str, Any]:
        if not all(type(label) is int for label in body["labels"]):
            abort(400, "expected labels to be whole numbers")
        action, labels, stroke, *others = (body.pop(name) for name in fields)
        if action == "grow":
            return project.grow(**body, stroke=stroke)
        change = partial(change_of, action, labels, stroke, *others)
        return project.edit(**body, change=change)

    def changed(change: Callable[..., dict[str, Any]], client: str, **body: Any) -> dict[str, Any]:
        return change(**body) | {"note": project.note}

    _answer(app, "images", {}, images)
    _answer(app, "outlines", {"image": int}, project.shown)
    _answer(app, "prepare", {"image": int}, project.prepare)
    _answer(app, "category", {"name": str}, project.add_class)
    _answer(app, "doubtful", {"passed": list}, project.doubtful)
    _answer(app, "edit", of_image | fields, partial(changed, edit))
    _answer(app, "mark", of_image | {"is_done": bool}, partial(changed, project.mark))
    for action, is_redo in (("undo", False), ("redo", True)):
        undo = partial(project.undo, is_redo=is_redo)
        _answer(app, action, of_image, partial(changed, undo))

    choices = {"polarity": str, "min_area": int}
    choices_of: dict[str, dict[str, type]] = {
        "find": choices,
        "learn": {"n_epochs": int},
        "results": {},
        "learn_again": {},
    }
    for each in TASKS.values():
        kinds: dict[str, type] = {
            choice.name: bool if choice.kind == "tick" else str
            for choice in each.choices
            if choice.kind != "groups"
        }
        choices_of[each.kind] = kinds | {"image": str, "only": str}

    @app.post("/<token>/start/<kind>")
    def start(token: str, kind: str) -> Response:
        if kind not in choices_of:
            abort(404, f"there is no task {kind}")
        project.start(kind, body_of(choices_of[kind]))
        return jsonify(stated())

    @app.route("/<token>/review/<path:name>", methods=["GET", "POST"])
    def of_other_queue(token: str, name: str) -> Response:
        raise StaleError("there is another queue now: go back to classes, and open it there")

    def take_back(folder: str) -> dict[str, Any]:
        project.take_back(folder)
        words = "the outlines are as they were before; edited images are as you have left them"
        return stated() | {"said": words}

    def size(image: str, share: str, length: str, to: str, is_back: str) -> dict[str, Any]:
        name, scales = project.name_of(image), project.scales
        said = scales.take_back(name, to) if is_back else scales.give(name, share, length, to)
        return stated() | {"said": said}

    def group(images: str, group: str) -> dict[str, Any]:
        said = project.give_group(images, group)
        return stated() | {"said": said}

    def do(action: Callable[[], object]) -> dict[str, Any]:
        action()
        return stated()

    _answer(app, "preview", choices | {"image": int, "middle": str}, project.preview)
    _answer(app, "before", {"image": int}, project.earlier_polygons)
    _answer(app, "left_out", {"image": int}, project.left_out)
    _answer(app, "take_back", {"folder": str}, take_back)
    _answer(app, "size", dict.fromkeys(("image", "share", "length", "to", "is_back"), str), size)
    _answer(app, "group", {"images": str, "group": str}, group)
    _answer(app, "undo_size", {}, lambda: stated() | {"said": project.scales.undo()})
    _answer(app, "stop", {}, partial(do, project.runner.stop))
    _answer(app, "forget", {}, partial(do, project.runner.forget))

    def sheet(name: str) -> dict[str, Any]:
        known: dict[str, Any] = {"name": name, "counted": counted, "folder": project.folder}
        if name == "learn":
            known["n_done"] = sum(each["is_done"] for each in project.images())
        elif name == "changes":
            known["earlier"] = project.earlier_folders()[-1]
        else:
            known |= {"is_current": project.is_current(), "files": project.results.listed(name)}
        html = render_template("sheet.html", **known)
        return {"html": html, "is_current": known.get("is_current")}

    _answer(app, "sheet/<any(learn, changes, results):name>", {}, sheet)


def _add_tasks(
    app: Flask, project: Project, stated: Callable[[], dict[str, Any]], previews: Previews
) -> None:
    @app.get(f"/<token>/{_KIND}.html")
    def task_page(token: str, kind: str) -> str:
        task, values = TASKS[kind], project.values(kind)
        known: dict[str, Any] = {"task": task, "images": project.listed_files(kind)}
        known["n_folders"] = project.n_folders()
        known |= {"rare": [each for each in task.choices if each.is_rare]}
        known |= {"values": values, "words": sorted({*project.marks(kind).values()})}
        return render_template("task.html", unit="image", **_COMMON, **known)

    @app.get("/<token>/sizes.html")
    def size_page(token: str) -> str:
        known = {"images": project.listed_files("sizes"), "table": project.folder / SIZES}
        return render_template("sizes.html", unit="image", **_COMMON, **known)

    def task_state(kind: str) -> dict[str, Any]:
        state = stated() | {"abouts": project.abouts()}
        where, page, caption = project.results.place_of(kind), "", list[str]()
        if state["task"].get("state") != "running":
            project.runner.make_ready()
            page, caption = project.results.page(where), project.results.caption(where)
        known: dict[str, Any] = {"where": where, "page": page, "folder": project.folder / kind}
        known |= {"files": project.results.listed(where), "is_preview": where != kind}
        known["queue"] = project.queue() if kind == "classes" else None
        state |= {"page": page, "caption": "\n".join(caption), "is_preview": where != kind}
        pictures = TASKS[kind].picture if page and where == kind else ""
        state["picture"] = pictures and f"{kind}/{pictures}"
        return state | {"files": render_template("files.html", **known)}

    _answer(app, "state/sizes", {}, lambda: stated() | {"abouts": project.abouts()})
    _answer(app, f"state/{_KIND}", {}, task_state)

    @app.get("/<token>/files/<any(image, small, whole):size>/<number:item>")
    def file_picture(token: str, size: str, item: int) -> Response:
        return _picture(previews.get(project.file(item), SIDES[size], project.read_options()))

    @app.get("/<token>/diameters/places/<path:name>.png")
    def places(token: str, name: str) -> Response:
        lines = project.results.measured_lines(name)
        return _picture(previews.drawn(project.file_named(name), project.read_options(), lines))

    def keep(kind: str, text: str, page: str) -> dict[str, Any]:
        path, damage = project.results.keep(kind, text, page)
        said = f"{path.name} is kept: “{TASKS[kind].button}” uses it"
        known = {"choice": TASKS[kind].saved[0], "path": str(path), "said": said}
        return known | {"damage": damage}

    _answer(app, f"mark_file/{_KIND}", {"image": str, "word": str}, project.mark_file)
    _answer(app, f"keep/{_KIND}", {"text": str, "page": str}, keep)

    @app.get(f"/<token>/<any(results, {', '.join(TASKS)}):kind>/<path:name>")
    @app.get(f"/<token>/preview/{_KIND}/<path:name>", defaults={"above": "preview/"})
    def result(token: str, kind: str, name: str, above: str = "") -> Response:
        path = project.results.file(f"{above}{kind}", name)
        if path is None or path.suffix not in _RESULT_TYPES:
            abort(404, f"there is no result {name}")
        response = send_file(path, _RESULT_TYPES[path.suffix], path.suffix in _SAVED)
        response.headers["Content-Security-Policy"] = _RESULT_POLICY
        response.headers["X-Frame-Options"] = "SAMEORIGIN"
        return response
