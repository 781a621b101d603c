"""After `import levelhead`, transformers reads compact checkpoints; neither import waits for it.

transformers' tables of quantizers get an entry that imports the real thing (`plugin.py`) when a
pruned checkpoint is met: at once where transformers is imported already, else as soon as its tables
are there. Imports neither torch nor transformers.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

TABLES = "transformers.quantizers.auto"
METHOD = "levelhead"
_ENTRIES = {
    "AUTO_QUANTIZATION_CONFIG_MAPPING": "LevelheadConfig",
    "AUTO_QUANTIZER_MAPPING": "LevelheadQuantizer",
}


def register_when_imported() -> None:
    """See the module's docstring; safe to call again."""
    if TABLES in sys.modules:
        _enter(sys.modules[TABLES])
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Placeholder:
    """Stands for a class of plugin.py, and imports it when it is used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _real(self) -> Any:
        plugin: Any = importlib.import_module("levelhead.models.plugin")
        plugin.register()
        return getattr(plugin, self._name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._real(), name)


def _enter(tables: ModuleType) -> None:
    for table, name in _ENTRIES.items():
        getattr(tables, table, {}).setdefault(METHOD, _Placeholder(name))


class _Finder(MetaPathFinder):
    """Finds transformers' tables as anyone would, and adds the entries once they are made."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != TABLES:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def execute_and_enter(module: ModuleType) -> None:
                execute(module)
                _enter(module)

            loader.exec_module = execute_and_enter
        return spec
