"""The source text of some functions and of everything of levelhead that they use, as one module.

So a checkpoint can carry the code that it needs, identical to the tested code. Definitions are
copied as they stand, in an order in which each comes after what it needs; imports of other packages
are copied, too. Handles modules that import by name (`from levelhead.x import y`) and define
functions, classes and constants at the top, which is how levelhead's are written.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

OWN = "levelhead."
ANNOTATIONS_ONLY = ("jaxtyping",)
"""Packages whose names occur in annotations only, which are not evaluated."""
_SHAPED = re.compile(r'\b(?:Float|Int|Bool)\[(Tensor), "[^"]*"\]')


def bundle(roots: Iterable[Callable[..., Any]], given: Iterable[str] = ()) -> str:
    """Imports and definitions, to be run under `from __future__ import annotations`.

    Args:
        roots: functions or classes of levelhead at the top of their modules.
        given: names that the caller defines by other means; they are not looked up.
    """
    found = _Found(given=frozenset(given))
    for root in roots:
        found.add(root.__module__, root.__name__)
    lines = sorted(found.imports) + [
        f"from {module} import {', '.join(sorted(names))}"
        for module, names in sorted(found.names.items())
    ]
    return _SHAPED.sub(r"\1", "\n\n\n".join(["\n".join(lines), *found.texts]))


@dataclass(frozen=True, slots=True)
class _Module:
    """What stands at the top of a module: definitions, and where imported names are from."""

    source: str
    definitions: dict[str, ast.stmt]
    imported: dict[str, ast.ImportFrom | ast.Import]


@dataclass(slots=True)
class _Found:
    """What was collected so far; `texts` in an order in which they can be executed."""

    given: frozenset[str]
    imports: set[str] = field(default_factory=set)
    names: dict[str, set[str]] = field(default_factory=dict)
    """What is imported by name, by the module it is imported from."""
    texts: list[str] = field(default_factory=list)
    seen: set[tuple[str, str]] = field(default_factory=set)

    def add(self, module_name: str, name: str) -> None:
        if (module_name, name) in self.seen or name in self.given:
            return
        self.seen.add((module_name, name))
        module = _parse(module_name)
        node = module.imported.get(name)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(OWN):
            self.add(str(node.module), name)
        elif node is not None:
            self._import(node, name)
        elif name in module.definitions:
            definition = module.definitions[name]
            for used in dict.fromkeys(_names(definition)):
                self.add(module_name, used)
            self.texts.append(_text(module.source, definition))

    def _import(self, node: ast.ImportFrom | ast.Import, name: str) -> None:
        if isinstance(node, ast.Import):
            self.imports.add(ast.unparse(node))
        elif str(node.module).partition(".")[0] not in ANNOTATIONS_ONLY:
            self.names.setdefault(str(node.module), set()).add(name)


def _names(node: ast.AST) -> list[str]:
    return [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]


def _text(source: str, node: ast.stmt) -> str:
    first = min((d.lineno for d in getattr(node, "decorator_list", ())), default=node.lineno)
    return "\n".join(source.splitlines()[first - 1 : node.end_lineno])


@cache
def _parse(module_name: str) -> _Module:
    loader: Any = importlib.import_module(module_name).__spec__
    source = str(loader.loader.get_source(module_name))
    parsed = _Module(source, {}, {})
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            parsed.definitions[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                parsed.definitions.update(dict.fromkeys(_names(target), node))
        elif isinstance(node, ast.ImportFrom | ast.Import):
            parsed.imported.update({alias.asname or alias.name: node for alias in node.names})
    return parsed
