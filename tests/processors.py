"""The tests as other processors run them: ``python -m tests.processors [pytest's arguments]``.

Libraries choose their kernels by the processor, and kernels differ in the last digits. Environment
variables restrict the choice. Those of a library without such a choice, as on ARM, have no effect.
"""

import os
import subprocess
import sys

import numpy as np

_OLDEST = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Nehalem",
}
_AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
}


def _numpy_without(kept: str) -> dict[str, str]:
    """Switch off what NumPy would choose at run time, other than features with this name."""
    umath = getattr(np, "_core", np).__dict__.get("_multiarray_umath")
    chosen = getattr(umath, "__cpu_dispatch__", [])
    present = getattr(umath, "__cpu_features__", {})
    off = [name for name in chosen if present.get(name) and name != kept]
    return {"NPY_DISABLE_CPU_FEATURES": " ".join(off)} if off else {}


SETTINGS = {
    "oldest": _OLDEST | _numpy_without("") | {"OMP_NUM_THREADS": "1"},
    "avx2": _AVX2 | _numpy_without("X86_V3") | {"OMP_NUM_THREADS": "1"},
    "oldest, 4 threads": _OLDEST | _numpy_without("") | {"OMP_NUM_THREADS": "4"},
    "this, 4 threads": {"OMP_NUM_THREADS": "4"},
}


def main(arguments: list[str]) -> int:
    """Run pytest with each setting, or the one named first, and print which failed."""
    chosen = SETTINGS
    if arguments and arguments[0] in SETTINGS:
        chosen = {arguments[0]: SETTINGS[arguments[0]]}
        arguments = arguments[1:]
    results = {}
    for name, variables in chosen.items():
        print(f"--- {name}: {' '.join(f'{k}={v!r}' for k, v in variables.items())}", flush=True)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *arguments], env=environment | variables
        )
        results[name] = done.returncode
    for name, code in results.items():
        print(f"{name}: {f'failed ({code})' if code else 'passed'}")
    return int(any(results.values()))  # negative if a signal ended it


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
