"""Extract features in other processes, one of which is killed in mid-run.

A separate process for each backend, run by ``test_clusters.py``: it ends with exit code 0 if the
file is the same, to the byte, as that made here.
"""

import contextlib
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import psutil
import torch
from support.waiting import wait_until

from hypervlad import HypercolumnVLAD, extract_features


def on_dask():
    from dask.distributed import Client, LocalCluster

    cluster = LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    Client(cluster)
    return {"backend": "dask"}


def on_ray():
    import ray
    from ray.util.joblib import register_ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, address="local", log_to_driver=False)
    register_ray()
    return {"backend": "ray", "n_jobs": 2}


# How a backend's workers are recognised among this process's descendants.
WORKERS = {
    "loky": (lambda: {"backend": "loky", "n_jobs": 2}, "popen_loky"),
    "dask": (on_dask, "spawn_main"),
    "ray": (on_ray, "ray::PoolActor.run_batch"),
}


def killed_worker(mark):
    """Kill one of the workers, if there is any, and return its number."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if mark in " ".join(process.cmdline()):
                os.kill(process.pid, signal.SIGKILL)
                return process.pid
    return None


def main(kind, folder):
    torch.set_num_threads(1)
    images = list(np.random.default_rng(0).random((64, 40, 48)).astype(np.float32))
    encoder = HypercolumnVLAD(
        weights="random", image_size=64, n_codewords=4, sampling=2000, random_state=0
    )
    here = encoder.fit(images)
    here.batch_size = 4
    extract_features(iter(images), here, out=folder / "here.parquet")
    configure, mark = WORKERS[kind]
    with joblib.parallel_config(**configure()), ThreadPoolExecutor() as pool:
        killed = pool.submit(wait_until, lambda: killed_worker(mark), "a worker")
        extract_features(iter(images), here, out=folder / "there.parquet")
        assert killed.result()
    assert (folder / "here.parquet").read_bytes() == (folder / "there.parquet").read_bytes()
    print(f"the same on {kind}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
