"""The rounding of other machines, on this one: settings, and what a process needs to run in one.

What changes the last bits of float32 on a CPU, as far as one machine can show it:

* the instructions of torch's own kernels (`ATEN_CPU_CAPABILITY`): sums, softmax, fused attention.
  `default` also puts MKL into its compatible mode, which changes every matrix product;
* the number of threads: how large sums are cut;
* the library of matrix products: MKL or oneDNN.

`MKL_CBWR` (but for COMPATIBLE), `MKL_ENABLE_INSTRUCTIONS` and `ONEDNN_MAX_CPU_ISA` change no
product of MKL's on an AMD CPU, so they are no factors. The six settings hold every value of every
factor, and every pair of values of two factors.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CAPABILITIES = ("own", "avx2", "default")
THREADS = (1, 2)
MATMULS = ("mkl", "onednn")
FLOAT32 = 1e-5
"""Largest relative error of a product computed in float32; bfloat16 is 1000 times worse."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One machine to be imitated."""

    capability: str
    threads: int
    matmul: str

    @property
    def name(self) -> str:
        """As `SETTINGS` has it: avx2-1-onednn."""
        return f"{self.capability}-{self.threads}-{self.matmul}"

    def environment(self, given: Mapping[str, str], plugin: Path) -> dict[str, str]:
        """`given` with what a process needs to run in this setting.

        Args:
            plugin: the folder of `install_plugin`.
        """
        set_here = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_NUM_THREADS")
        found = {key: value for key, value in given.items() if key not in set_here}
        found["OMP_NUM_THREADS"] = str(self.threads)
        found["OMP_WAIT_POLICY"] = "passive"  # waiting threads leave the cores to who works
        # Whether torch loads the plugin; also where the tests of this folder run in a setting.
        found["TORCH_DEVICE_BACKEND_AUTOLOAD"] = str(int(self.matmul == "onednn"))
        if self.capability != "own":
            found["ATEN_CPU_CAPABILITY"] = self.capability
        if self.matmul == "onednn":
            found["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE"
            paths = (str(plugin), given.get("PYTHONPATH", ""))
            found["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        return found

    def workers(self) -> int:
        """Test processes (`pytest -n`) that fill the cores; 0: no other process, one at a time."""
        found = len(os.sched_getaffinity(0)) // self.threads
        return found if found > 1 else 0


SETTINGS = (
    Setting("own", 1, "mkl"),
    Setting("own", 2, "onednn"),
    Setting("avx2", 1, "onednn"),
    Setting("avx2", 2, "mkl"),
    Setting("default", 1, "mkl"),
    Setting("default", 2, "onednn"),
)


def chosen(names: Sequence[str]) -> list[Setting]:
    """The settings of these names, any of the twelve there are; without names, the matrix.

    Raises:
        ValueError: a name that is none, with those that are.
    """
    every = {
        setting.name: setting
        for setting in (
            Setting(capability, threads, matmul)
            for capability in CAPABILITIES
            for threads in THREADS
            for matmul in MATMULS
        )
    }
    unknown = [name for name in names if name not in every]
    if unknown:
        raise ValueError(f"no settings: {', '.join(unknown)}; there are {', '.join(every)}")
    return [every[name] for name in names] or list(SETTINGS)


def install_plugin(folder: Path) -> Path:
    """Make `folder` one that, on PYTHONPATH, gives torch's products to oneDNN."""
    shutil.copy(Path(__file__).with_name("onednn_matmuls.py"), folder)
    info = folder / "levelhead_onednn_matmuls-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: levelhead-onednn-matmuls\nVersion: 0\n"
    )
    (info / "entry_points.txt").write_text(
        "[torch.backends]\nlevelhead_onednn_matmuls = onednn_matmuls:enable\n"
    )
    return folder


def measured(environment: Mapping[str, str]) -> dict[str, Any]:
    """The answer of `tests.machines.probe` in a process of this environment."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.machines.probe"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the probe failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def lacking(setting: Setting, own: Mapping[str, Any], plugin: Path) -> str | None:
    """Why this machine cannot run in this setting, as a sentence; None: it can, as was measured.

    Args:
        own: what `measured` says without any setting.
    """
    cores = len(os.sched_getaffinity(0))
    if cores < setting.threads:
        return f"This machine has {cores} core, the setting needs {setting.threads}."
    if setting.capability == "avx2" and not str(own["capability"]).startswith("avx"):
        return f"This CPU has no AVX2: torch's own capability here is {own['capability']}."
    found = measured(setting.environment(os.environ, plugin))
    wanted = own["capability"] if setting.capability == "own" else setting.capability
    if found["capability"] != wanted:
        return f"torch computes with {found['capability']} here, whatever it is told."
    if setting.matmul == "onednn":
        mkl = Setting(setting.capability, setting.threads, "mkl")
        plain = measured(mkl.environment(os.environ, plugin))
        if found["products"] == plain["products"]:
            return "torch gives float32 products to oneDNN only on x86 with AVX512."
        if found["error"] > FLOAT32:
            return f"oneDNN does not compute in float32 here: an error of {found['error']:.0e}."
    return None
