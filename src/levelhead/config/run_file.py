"""run.toml: the options of a run in a file, to repeat it or to start another one from.

    model = "gpt2"
    max_ppl_increase = 0.05
    axis = ["race_ethnicity"]

Keys are the flags without dashes in front, and with `_` for `-`. Every run writes such a file of
all its options, so that it is repeated also where a later levelhead has other defaults.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from levelhead.config.checks import POINT, check_type, check_value
from levelhead.config.choices import AVERAGE
from levelhead.config.fields import PANELS, flag_of, key_of
from levelhead.config.options import RunConfig
from levelhead.config.toml_files import read_toml
from levelhead.errors import ConfigError

EMBEDDED = "embedded"
"""`model` in a file whose run is `levelhead demo`; TOML has no null."""
HEAD = """\
# The options of this run. To repeat it, or to change some of them in a copy:
#   levelhead run --config run.toml --out OTHER
# Flags win over the file. What is not here has its default.
"""


def run_file(config: RunConfig) -> str:
    """The options of a run as TOML, in the order of `--help`.

    Where a search chose the set, its limit stands there and no single set; as `budget` where the
    other options alone would not search.
    """
    import tomli_w

    left_out = {"model", "budget"}
    values = config.to_json()
    if config.budget is not None:
        values["max_ppl_increase"] = config.budget
        point = {"alpha"} if config.method == AVERAGE else {*POINT}
        left_out = {"model", *point, "budget" if config.searches else "max_ppl_increase"}
    parts = [HEAD + tomli_w.dumps({"model": config.model or EMBEDDED})]
    for panel in PANELS:
        rows = {
            key_of(spec.name, spec.metadata): values[spec.name]
            for spec in fields(RunConfig)
            if spec.name not in left_out
            and spec.metadata["panel"] == panel
            and values[spec.name] not in (None, [])
        }
        parts.append(f"# {panel}\n{tomli_w.dumps(rows)}")
    return "\n".join(parts)


def read_run_file(path: Path) -> dict[str, Any]:
    """Options from such a file, by the names of the fields of `RunConfig`.

    Raises:
        ConfigError: a file that cannot be read, an unknown key (the nearest one is named), or a
            value of the wrong kind or out of its limits.
    """
    data = read_toml(path, "the options in")
    known = {key_of(spec.name, spec.metadata): spec for spec in fields(RunConfig)}
    for key in data:
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r:.80}; {_instead(key, list(known))}")
    found = {}
    for key, value in data.items():
        spec = known[key]
        try:
            check_type(flag_of(spec.name, spec.metadata), value, str(spec.type))
            check_value(flag_of(spec.name, spec.metadata), value, spec.metadata)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        if isinstance(value, list):
            value = tuple(value)
        elif str(spec.type).startswith("float"):
            value = float(value)
        found[spec.name] = value
    return found


def _instead(key: str, known: list[str]) -> str:
    near = [*_renamed(key), *difflib.get_close_matches(key.replace("-", "_"), known, n=1)]
    return f"did you mean {near[0]}?" if near else f"the keys are {', '.join(sorted(known))}"


def _renamed(key: str) -> Iterator[str]:
    for spec in fields(RunConfig):
        if "--" + key.replace("_", "-") in spec.metadata["old"]:
            yield key_of(spec.name, spec.metadata)
