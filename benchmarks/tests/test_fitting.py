from pathlib import Path

import pytest

from benchmarks.common.results import load_result
from benchmarks.speed import fitting
from benchmarks.speed.tables import fitting_table


@pytest.mark.long
def test_a_small_fit(tmp_path: Path) -> None:
    out = tmp_path / "fitting.json"
    fitting.main(["--sizes", "24", "--image-size", "64", "--out", str(out)])
    (row,) = load_result(out)["rows"]
    assert row["n"] == 24
    assert list(row["stages"]) == ["codebook", "encoding", "learner", "cross-fitted learners"]
    assert 0 < sum(row["stages"].values()) < row["seconds"]
    assert row["peak_mb"] > 100


@pytest.mark.long
def test_kept_images_are_used_again(tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "fitting.json"
    arguments = ["--sizes", "24", "--image-size", "64", "--out", str(out), "--images", str(images)]
    fitting.main(arguments)
    first = {path: path.stat().st_mtime_ns for path in images.glob("*/*.png")}
    fitting.main(arguments)
    assert first == {path: path.stat().st_mtime_ns for path in images.glob("*/*.png")}
    assert len(first) == 24


def test_table() -> None:
    rows = [
        {
            "n": n,
            "stages": {"codebook": 1.0, "learner": n / 10},
            "seconds": n / 5,
            "peak_mb": 500 + n,
        }
        for n in (10, 1000)
    ]
    lines = fitting_table({"rows": rows}).splitlines()
    assert lines[3] == "| 1,000 | 1.0 s | 100.0 s | 200.0 s | 200 ms | 1.5 GB |"
    assert lines[-1] == (
        "The time of a fit grows with the power 1.00 of the number of images; each image adds "
        "1000 kB to the peak of memory."
    )
