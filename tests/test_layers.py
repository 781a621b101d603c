"""Data flows one way: which part of levelhead may import which, and how large a file may be."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "levelhead"
SOURCES = {path.relative_to(SRC).as_posix(): path for path in sorted(SRC.rglob("*.py"))}
MOST_LINES = 350

# What each module or package at the top may import, besides itself. "a.b" allows only that module.
LAYERS = {
    "errors": "",
    "verdict_words": "",
    "records": "errors",
    "plain_text": "errors",
    "config": "errors plain_text price",
    "journal": "errors",
    "batching": "errors journal",
    "progress": "batching journal",
    "scores": "errors plain_text set_cost",
    "set_cost": "",
    "price": "errors",
    "search_result": "",
    "sampling": "batching errors models.short_texts records",
    "json_files": "errors plain_text",
    "links": "errors",
    "damage": "errors",
    "attempts": "config errors journal json_files price records reporting.readiness "
    "reporting.recommendation runs search_result sharing.record",
    "permissions": "",
    "weight_files": "errors json_files permissions",
    "data": "errors json_files network plain_text records",
    "toxicity": "data.cache data.identity_words errors journal permissions weight_files",
    "metrics": "batching errors records",
    "models": "errors json_files network records weight_files",
    "scoring": "batching data.prompt_selection errors journal metrics models progress records "
    "sampling scores set_cost toxicity",
    "selection": "errors price records scores set_cost",
    "diagnosis": "errors metrics records scores selection",
    "reporting": "errors plain_text price records scores search_result verdict_words",
    "network": "",
    "plan": "",
    "preflight": "errors",
    "fitting": "models scoring",
    "session": "config data errors fitting metrics models plan preflight records scoring toxicity",
    "export": "config errors models runs session",
    "sharing": "config errors price records reporting.comparison reporting.escape "
    "reporting.summary runs",
    "evaluation": "batching data.texts errors fitting journal metrics models price progress "
    "records sampling scoring session toxicity verdict_words",
    "runs": "config damage errors journal json_files links records",
    "verification": "config data errors evaluation journal metrics models price progress records "
    "runs sampling scoring session sharing stages toxicity",
    "stages": "config damage errors evaluation export journal json_files metrics models plan "
    "progress records runs sampling scores scoring search_result selection session set_cost "
    "sharing",
    "experiments": "attempts batching config damage data diagnosis errors evaluation journal "
    "json_files metrics models progress records reporting.escape reporting.findings runs sampling "
    "scores scoring search_result selection session stages toxicity",
    "pipeline": "attempts choosing config diagnosis errors experiments export journal models pages "
    "progress proving records runs scores search_result session sharing stages verification",
    "proving": "attempts config errors evaluation journal pages progress records runs "
    "search_result session stages",
    "choosing": "config errors progress records runs scores session stages",
    "pages": "attempts damage experiments reporting runs",
    "console": "batching journal progress reporting.escape "
    "reporting.next_steps reporting.readiness reporting.terminal runs scores search_result",
    "cli": "attempts config console data.embedded errors experiments journal models.stored network "
    "permissions pipeline "
    "reporting.escape runs",
    "testing": "models",
    "__init__": "experiments models.on_import pipeline",
    "__main__": "cli",
}
HEAVY = {"torch", "transformers", "pandas", "scipy", "datasets", "gguf", "plotly"}
# Which of HEAVY a part may import when it is itself imported; the others, only inside functions.
AT_THE_TOP = {
    "metrics/perplexity.py": {"torch", "scipy"},
    "metrics/divergence.py": {"torch"},
    "metrics/": {"scipy"},
    **dict.fromkeys(("batching", "models/", "sampling", "testing", "session", "fitting"), HEAVY),
    **dict.fromkeys(
        (
            "scoring/",
            "evaluation/",
            "export/",
            "stages/",
            "choosing",
            "pages",
            "pipeline",
            "proving",
            "experiments/",
            "verification/",
        ),
        HEAVY,
    ),
    "scores": {"pandas"},
    "diagnosis/": {"pandas", "scipy"},
}


def imports(tree: ast.AST, *, functions: bool = True) -> Iterator[str]:
    """Dotted names of everything imported, but what only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import in line {node.lineno}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        elif functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(node, functions=functions)


def forbidden(part: str, source: str) -> list[str]:
    """Imports of levelhead's own modules that the table does not allow to a part."""
    allowed = {part, "__version__", *LAYERS[part].split()}
    ours = [name.split(".")[1:] for name in imports(ast.parse(source)) if "levelhead." in name]
    names = {".".join(path) for path in ours if not {path[0], ".".join(path[:2])} & allowed}
    return sorted(names)


def part_of(name: str) -> str:
    return name.removesuffix(".py").partition("/")[0]


def test_the_table_has_every_part() -> None:
    assert {part_of(name) for name in SOURCES} == set(LAYERS)


@pytest.mark.parametrize("name", SOURCES)
def test_imports_follow_the_table(name: str) -> None:
    assert forbidden(part_of(name), SOURCES[name].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("part", "source", "found"),
    [
        ("models", "from levelhead.scoring import effects", ["scoring.effects"]),
        ("selection", "def f():\n    from levelhead import runs", ["runs"]),
        ("scoring", "from levelhead.data.texts import load_text", ["data.texts.load_text"]),
        ("scoring", "from levelhead.data.prompt_selection import matched_groups", []),
        ("cli", "if TYPE_CHECKING:\n    from levelhead.session import Plan", []),
        ("errors", "import levelhead.records", ["records"]),
    ],
)
def test_a_forbidden_import_would_be_found(part: str, source: str, found: list[str]) -> None:
    assert forbidden(part, source) == found


@pytest.mark.parametrize("name", SOURCES)
def test_heavy_dependencies_are_imported_where_they_are_used(name: str) -> None:
    allowed = next((h for start, h in AT_THE_TOP.items() if name.startswith(start)), set())
    tree = ast.parse(SOURCES[name].read_text(encoding="utf-8"))
    top = {module.partition(".")[0] for module in imports(tree, functions=False)}
    assert top & HEAVY <= allowed


def test_the_command_line_starts_without_heavy_dependencies() -> None:
    code = "import sys, levelhead, levelhead.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "levelhead.cli" in loaded
    assert not loaded & (HEAVY | {"numpy"})


@pytest.mark.parametrize("name", SOURCES)
def test_a_file_can_be_read_in_one_go(name: str) -> None:
    lines = len(SOURCES[name].read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{name} has {lines} lines; split it"
