"""What can be done with a folder of images besides particles: a description of each task."""

from __future__ import annotations

from typing import NamedTuple

from hypervlad.objects.found_outlines import COCO


class Choice(NamedTuple):
    """What a person can choose: a field of the form, and an option of a command.

    `option` has {} where the value belongs; without, what is ticked is given. `values` of a menu
    begin with the usual one. `kind` is "text", "number", "path", of a file or folder, "tick", or
    "groups", the table of groups of the project, for which there is no field.
    A part of the form that opens has what `is_rare`; what `is_late` changes no model, and nothing
    that was measured. `span` is that of a slider beside the field: its ends, step, usual place.
    """

    name: str
    label: str
    option: str = ""
    about: str = ""
    example: str = ""
    kind: str = "text"
    values: tuple[tuple[str, str], ...] = ()
    is_rare: bool = False
    is_late: bool = False
    span: tuple[float, ...] = ()


class Step(NamedTuple):
    """A command, of which words in capitals are filled in, and the choices it takes.

    These are IMAGES, FOLDER, MODEL, GIVEN, TRAINING, the option with GIVEN if there is any, GROUPS,
    that with the groups of GIVEN if people named any, and SETS, the option for prediction sets if
    the model can predict any. A step is left out if it
    `makes` a file that is there, or that a person has given. If one fails that `may_fail`, the
    others count, and its last lines are shown.
    """

    words: str
    command: str
    takes: str = ""
    makes: str = ""
    may_fail: bool = False


class Task(NamedTuple):
    """A task: its form, its commands, and its results.

    What images are marked with in the list, `mark` (the word, or "" for any), or what is given as
    the choice `given`, is what the task learns from; `needs` says so if there is neither.
    `page` is shown of all images, `preview`, a pattern, of one that is looked at alone: with
    `looks`, whose model was learnt before, or else with the first command: all of it or, if it is
    large, the part in view, unless the task `needs_all`. Of a table, the image itself is shown.
    `picture` is that of one image in the results of all, with {} where its name belongs; of
    diameters, the page draws it.
    `files` are results: their names, titles, and what is in them. `saved` are a choice, and the
    file that is its value when a person saves something on the page of results.
    """

    kind: str
    title: str
    about: str
    button: str
    done: str
    choices: tuple[Choice, ...]
    steps: tuple[Step, ...]
    files: tuple[tuple[str, ...], ...]
    page: str
    preview: str
    looks: tuple[Step, ...] = ()
    given: str = ""
    mark: str | None = None
    needs: str = ""
    saved: tuple[str, str] = ("", "")
    needs_all: bool = False
    picture: str = ""


_KEEP = Choice(
    *("keep", "Also measure margins, scale bars and letters", "--keep-annotations"),
    *("do not leave out what is not sample", "", "tick"),
    is_rare=True,
)
_REPORT = Step("Writing the report", "report FOLDER -o FOLDER/report", may_fail=True)
#: The table of classes, and the coverage in per cent of prediction sets.
PREDICTIONS, COVERAGE = "predictions.csv", 90
_ALONE = f"predict MODEL IMAGES -o FOLDER/{PREDICTIONS} SETS"
_CLASSIFY = Step("Classifying", f"{_ALONE} --page FOLDER/classified.html", "groups")
_FIGURES = "report/figure.pdf", "PDF", "report/figure.png", "PNG"
_PAPER = (
    ("report/report.html", "Report", "figures, values with intervals, methods"),
    ("report/figure.svg", "Figure, SVG", "also as:", *_FIGURES),
    ("report/results.csv", "Values of the report, CSV", "with sources"),
    ("report/methods.txt", "Methods, text", "sentences for a paper"),
)
_WORKBOOK = Step("Writing a workbook", "workbook FOLDER -o FOLDER/tables.xlsx", may_fail=True)
#: With the labels of the queue that classifying has made.
LEARN_AGAIN = (
    Step(
        "Learning from the labels",
        "review retrain FOLDER/queue --training GIVEN -o MODEL GROUPS",
    ),
    _CLASSIFY,
    _REPORT,
    _WORKBOOK,
)
_TABLES = ("tables.xlsx", "All tables, XLSX", "one sheet each")
_ALL = (_TABLES, ("all.zip", "All of these, ZIP", ""))
#: Folders of outlines, as archives of the results.
ARCHIVES = {"outlines": "outlines.zip", "roi": "fiji.zip", "geojson": "qupath.zip"}
_OTHERS = ARCHIVES["roi"], "Fiji", ARCHIVES["geojson"], "QuPath", COCO, "COCO"
PARTICLE_FILES = (
    _PAPER[0],
    ("particles.html", "Page", "counts, sizes, and images with their outlines"),
    _PAPER[1],
    ("counts.csv", "Counts, CSV", "one line per class"),
    _PAPER[2],
    ("particles.csv", "Particles, CSV", "one line per particle, with its measures"),
    ("fields.csv", "Images, CSV", "one line per image"),
    _TABLES,
    (ARCHIVES["outlines"], "Outlines, ZIP", "a label image for each image; also for:", *_OTHERS),
    _PAPER[3],
)
_POLARITIES = ("auto", "bright or dark"), ("bright", "bright"), ("dark", "dark")
# What results are compared by, which people name beside the list; classes are learnt with it.
_GROUPS = Choice("groups", "Groups", "--groups={}", kind="groups", is_late=True)
_LEFT_OUT = "places of fibres that do not count: as saved on the page of results, or others", "none"
_DIAMETERS = Task(
    *("diameters", "Fibre diameters"),
    "Measures how thick fibres, wires or tubes are, and draws a histogram. On the page of results, "
    "a click leaves out a wrong place: save what is left out there, and measure again.",
    *("Measure all images", "All diameters are measured."),
    (
        Choice("polarity", "Fibres are", "--polarity={}", values=_POLARITIES),
        _GROUPS,
        Choice("leave_out", "Left out", "--leave-out={}", *_LEFT_OUT, "path", (), True, True),
        _KEEP,
    ),
    (
        Step(
            *("Measuring diameters", "diameters IMAGES -o FOLDER --resume --leave-out=none"),
            takes="polarity groups leave_out keep",
        ),
        _REPORT,
        _WORKBOOK,
    ),
    (
        ("diameters.html", "Page", "histograms, and images with the measured places"),
        *_PAPER,
        ("groups.csv", "Groups, CSV", "median with its interval"),
        ("ratios.csv", "Ratios of groups, CSV", "with intervals"),
        ("diameters.csv", "Images, CSV", "one line per image"),
        ("places.csv", "Places, CSV", "one line per measured place"),
        *_ALL,
    ),
    page="diameters.html",
    preview="diameters.html#f0",
    picture="places/{}.png",
    saved=("leave_out", "left_out.csv"),
)
_WINDOW = "pixels, or with a unit: at least as long as fibres are straight"
_TOLERANCE = "degrees: a window is aligned if its directions spread less", "20", "number"
_ALIGNMENT = Task(
    *("alignment", "Alignment"),
    "Measures the directions of fibres, wires or tubes, and which share of them is aligned. All "
    "places count: none can be left out.",
    *("Measure all images", "All directions are measured."),
    (
        Choice("window", "Window", "--window={}", _WINDOW, "32, or 500nm", span=(8, 256, 4, 32)),
        Choice("tolerance", "Tolerance", "--tolerance={}", *_TOLERANCE, span=(2, 45, 1, 20)),
        _GROUPS,
        _KEEP,
    ),
    (
        Step("Measuring directions", "align IMAGES -o FOLDER", "window tolerance groups keep"),
        _REPORT,
        _WORKBOOK,
    ),
    (
        *_PAPER,
        ("alignment.csv", "Images, CSV", "one line per image"),
        ("regions.csv", "Regions, CSV", "one line per aligned region"),
        ("figures/**/*.png", "", ""),
        *_ALL,
    ),
    page="report/report.html",
    preview="figures/**/*.png",
    picture="figures/{}.png",
)
USUAL_FPR = "0.05"
_FPR = "share of normal images that may be called anomalous", USUAL_FPR, "number"
_LEAST = "score from which on an image is called anomalous", "learnt"
_MASKS = "masks that are learnt: as saved on the page of results, or others. Kinds of defects that "
_MASKS += "they do not show are found less well then"
_LOOK = Step("Looking for defects", "defects score MODEL IMAGES -o FOLDER", "keep threshold groups")
_DEFECTS = Task(
    *("defects", "Defects"),
    "Learns from images without defects what is normal, and finds what differs in all images. Tick "
    "in the list which images have no defect (with Shift, all from the last tick): 19 or more, or "
    "the threshold is a guess. Corrections that you save on the page of results change no number "
    "at once: they are learnt when you find defects again.",
    *("Find defects in all images", "All images are searched for defects."),
    (
        Choice("normal", "Normal images", "", "folder, instead of ticks", "as ticked", "path"),
        Choice("masks", "Corrections", "--masks={}", _MASKS, "none", "path", is_rare=True),
        Choice("threshold", "Threshold", "--threshold={}", *_LEAST, "number", (), True, True),
        Choice("fpr", "False alarms", "--set=fpr={}", *_FPR, span=(0.01, 0.3, 0.01, 0.05)),
        _GROUPS,
        _KEEP,
    ),
    (
        Step(
            *("Learning what is normal", "defects fit GIVEN -o MODEL"),
            *("fpr keep masks", "model.hvlad"),
        ),
        _LOOK,
        _REPORT,
        _WORKBOOK,
    ),
    (
        ("report.html", "Page", "images with their defects, the highest scores first"),
        *_PAPER,
        ("scores.csv", "Images, CSV", "one line per image"),
        ("regions.csv", "Defects, CSV", "one line per defective region"),
        ("model.hvlad", "Model", "of what is normal"),
        *_ALL,
    ),
    page="report.html",
    preview="overlays/**/*.png",
    picture="overlays/{}.png",
    looks=(_LOOK,),
    given="normal",
    mark="normal",
    saved=("masks", "masks.json"),
    needs="tick images without defects in the list, or give a folder of such images",
)
_SOURCE = "folder with a sub-folder for each class, or a table with path and label"
_MODEL = "file that was trained before, instead"
_CLASSES = Task(
    *("classes", "Classes"),
    "Sorts whole images into classes. Write the class of some images in the list, three or more of "
    "each class, or give images that are sorted already, or a model. To correct, write other "
    "classes and classify again, or label the uncertain images and learn from these labels.",
    *("Classify all images", "All images are classified."),
    (
        Choice("source", "Sorted images", "", _SOURCE, "as written", "path"),
        Choice("model", "Model", "", _MODEL, "to be trained", "path"),
        _GROUPS._replace(is_late=False),
    ),
    (
        Step(
            *("Learning the classes", "train GIVEN -o MODEL --report FOLDER/training GROUPS"),
            makes="model.hvlad",
        ),
        _CLASSIFY,
        Step(
            *("Queueing uncertain images", "review start MODEL IMAGES -o FOLDER/queue TRAINING"),
            makes="queue/queue.sqlite",
            may_fail=True,
        ),
        _REPORT,
        _WORKBOOK,
    ),
    (
        ("classified.html", "Page", "images with their classes, the least certain first"),
        ("training/index.html", "Training", "how well held-out images are classified"),
        *_PAPER,
        (PREDICTIONS, "Classes, CSV", "one line per image: probabilities and possible classes"),
        ("model.hvlad", "Model", "for further images"),
        *_ALL,
    ),
    page="classified.html",
    preview=PREDICTIONS,
    looks=(Step("Classifying", _ALONE),),
    given="source",
    mark="",
    needs="write the classes of some images in the list, or give sorted images, or a model",
    needs_all=True,
)
TASKS = {task.kind: task for task in (_DIAMETERS, _ALIGNMENT, _DEFECTS, _CLASSES)}
