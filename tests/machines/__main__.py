"""make test-machines: the default and the embedded tier under the rounding of other machines.

    python -m tests.machines [--settings "avx2-1-onednn own-2-mkl"] [-- PYTEST ARGUMENTS]

With pytest arguments it runs these in the default tier alone. Ends with 1 where a test failed in
any setting, and names the settings; those that this machine lacks are skipped with a sentence.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.machines.matrix import ROOT, Setting, chosen, install_plugin, lacking, measured

TIERS = {
    "default": ["-m", "not slow and not simulation and not network"],
    "embedded": ["-m", "slow", "tests/data", "tests/embedded", "tests/export", "tests/experiments"],
}


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


def failures(setting: Setting, arguments: list[str], plugin: Path) -> list[str]:
    """The tiers that failed in this setting, with pytest's exit code (below 0: the signal)."""
    environment = setting.environment(os.environ, plugin)
    tiers = {"default": [*TIERS["default"], *arguments]} if arguments else TIERS
    wrong = []
    for tier, words in tiers.items():
        say(f"== {setting.name}, {tier} tier")
        call = [sys.executable, "-m", "pytest", "-n", str(setting.workers()), *words]
        code = subprocess.run(call, cwd=ROOT, env=environment, check=False).returncode
        if code:
            wrong.append(f"{tier} tier (exit code {code})")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.machines", description=__doc__)
    parser.add_argument("--settings", default="", help="names, with spaces or commas between")
    parser.add_argument("arguments", nargs="*", help="pytest's")
    given = parser.parse_args()
    try:
        settings = chosen(given.settings.replace(",", " ").split())
    except ValueError as error:
        parser.error(str(error))
    outcome: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        plugin = install_plugin(Path(folder))
        own = measured(os.environ)
        for setting in settings:
            reason = lacking(setting, own, plugin)
            if reason is not None:
                outcome[setting.name] = f"skipped. {reason}"
                say(f"== {setting.name} {outcome[setting.name]}")
                continue
            wrong = failures(setting, given.arguments, plugin)
            outcome[setting.name] = f"FAILED: {' and '.join(wrong)}" if wrong else "passed"
    say("== settings")
    for name, words in outcome.items():
        say(f"{name}: {words}")
    return int(any(words.startswith("FAILED") for words in outcome.values()))


if __name__ == "__main__":
    sys.exit(main())
