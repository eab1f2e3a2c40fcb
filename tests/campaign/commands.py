"""Command lines with options that do not fit together, and values that are none."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from support.commands import RUNNER, TINY, all_commands, app, run
from support.feature_folders import write_image
from support.tiny import register_tiny

from tests.campaign.case import Case

_N_PER_SEED = 40
# What would wait for a person, take a long time, or write elsewhere.
_LEFT_OUT = {"app", "demo"}
_VALUES = (
    *("", "0", "1", "-1", "0.5", "nan", "inf", "1e999", "99999999999999999999", "a", "é\x1b[31m"),
    *(".", "images", "images/a", "model.hvlad", "missing", "groups.csv", "out", "out/deeper/x.csv"),
    *("\n", "=cmd", "--help", "a" * 300, "\udcff", "tiny", "auto", "cpu", "cuda:7"),
)


def cases(seed: int, folder: Path) -> Iterator[Case]:
    register_tiny()
    rng = np.random.default_rng(seed)
    for number in range(12):
        write_image(folder / "images" / "ab"[number % 2] / f"{number}.png", rng)
    (folder / "groups.csv").write_text("path,group\na/0.png,1\n", encoding="utf-8")
    os.chdir(folder)  # all paths are relative, so that nothing is written elsewhere
    run("train", "images", "-o", "model.hvlad", *TINY, "-q")
    model = Path("model.hvlad").read_bytes()
    commands = [
        (name.split(), command) for name, command in all_commands().items() if name not in _LEFT_OUT
    ]
    for _ in range(_N_PER_SEED):
        words, command = commands[int(rng.integers(len(commands)))]
        line = [*words, *_arguments(command, rng)]
        Path("model.hvlad").write_bytes(model)  # it may be an output, too
        yield Case(" ".join(line)[:200], partial(_invoke, line))


def _arguments(command: Any, rng: np.random.Generator) -> list[str]:
    found: list[str] = []
    for parameter in command.params:
        value = _VALUES[int(rng.integers(len(_VALUES)))]
        if parameter.param_type_name == "option":
            if rng.random() < 0.2 and "--watch" not in parameter.opts:  # which waits for ever
                found += [parameter.opts[0]] if parameter.is_flag else [parameter.opts[0], value]
        elif rng.random() < 0.9:
            usual = "model.hvlad" if "model" in (parameter.name or "") else "images"
            found.append(usual if rng.random() < 0.6 else value)
    # Last, so that they count: no command may fetch weights, build a large network, or start any
    # number of processes.
    known = {option for parameter in command.params for option in parameter.opts}
    last = [*zip(TINY[:4:2], TINY[1:4:2], strict=True), ("--jobs", "1")]
    return found + [word for option, value in last if option in known for word in (option, value)]


def _invoke(line: list[str]) -> None:
    """The command does its work, or ends with one sentence and exit code 1 or 2."""
    result = RUNNER.invoke(app, line)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in (0, 1, 2), result.exit_code
    assert "Traceback" not in result.output
