"""The pages say what is there: paths, names, commands, flags, fields and licences."""

import ast
import inspect
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import click
import pytest

from levelhead import cli, config, errors, records, runs
from levelhead.evaluation import results

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))
}
PATH = re.compile(r"`((?:src|tests|docs|examples)/[\w./-]+)`")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
SOURCE = "".join(
    # Adjacent literals are one constant to the parser; an f-string's fixed parts are constants.
    f"{node.value}\0"
    for path in sorted((ROOT / "src").rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.Constant) and isinstance(node.value, str)
)


def slug(heading: str) -> str:
    """The anchor of a heading, as repository sites make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def broken_links(name: str, text: str) -> list[str]:
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        known = path.exists() and not anchor
        if anchor and path.suffix == ".md" and path.is_file():
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            known = anchor in map(slug, headings)
        if not known:
            found.append(target)
    return found


def commands(text: str) -> list[str]:
    """What a page tells the reader to type: lines of code blocks, and code in the text."""
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", text)


def wrong_command(line: str) -> bool:
    """Whether a line runs levelhead with a command or a flag that it does not have."""
    found = re.match(r"(?:\.venv/bin/)?levelhead ([a-z-]+)(.*)", line)
    if not found:
        return False
    name, rest = found.groups()
    command: click.Command | None = cli.cli.commands.get(name)
    if name.startswith("-"):
        command, rest = cli.cli, line
    if command is None:
        return True
    known = {flag for param in command.params for flag in param.opts} | {"--help"}
    return not set(FLAG.findall(rest)) <= known


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    assert broken_links(name, PAGES[name]) == []


def test_a_broken_link_would_be_found() -> None:
    text = "[a](docs/nowhere.md) [b](CHANGELOG.md#no-such-heading) [c](CHANGELOG.md)"
    assert broken_links("x.md", text) == ["docs/nowhere.md", "CHANGELOG.md#no-such-heading"]


@pytest.mark.parametrize("name", PAGES)
def test_paths_exist_and_hold_the_names_that_follow_them(name: str) -> None:
    """In "`src/a.py`: `f` and `g`", a.py exists and holds f and g, up to the sentence's end."""
    missing = [path for path in PATH.findall(PAGES[name]) if not (ROOT / path).exists()]
    for path, names in re.findall(
        r"`((?:src|tests)/[\w./-]+\.py)`:((?:[^`.;:]*`\w+`)+)", PAGES[name]
    ):
        text = (ROOT / path).read_text(encoding="utf-8")
        words = re.findall(r"`(\w+)`", names)
        missing += [f"{path}: {w}" for w in words if not re.search(rf"\b{w}\b", text)]
    assert missing == []


@pytest.mark.parametrize("name", PAGES)
def test_commands_and_make_targets_exist(name: str) -> None:
    shown = commands(PAGES[name])
    assert [line for line in shown if wrong_command(line)] == []
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [line.split()[1] for line in shown if re.match(r"make [a-z-]+$", line)]
    assert [t for t in targets if not re.search(rf"^{t}:", makefile, re.MULTILINE)] == []


@pytest.mark.parametrize("line", ["levelhead debias", "levelhead run --fair", "levelhead --nope"])
def test_a_wrong_command_would_be_found(line: str) -> None:
    assert wrong_command(line)


def test_every_option_is_a_flag_with_help_and_a_field_of_the_files_page() -> None:
    help_of = {p.name: getattr(p, "help", None) for p in cli.cli.commands["run"].params}
    for spec in fields(config.RunConfig):
        assert f"`{spec.name}`" in PAGES["docs/files.md"], spec.name
        if spec.name != "model":
            assert help_of.get(spec.name), spec.name


def test_every_flag_on_a_page_exists() -> None:
    known = {flag for c in cli.cli.commands.values() for p in c.params for flag in p.opts}
    known |= {"--help", "--version", "--index-url"}
    old = {f for c in cli.cli.commands.values() for p in c.params for f in getattr(p, "old", ())}
    for name in (n for n in PAGES if n.startswith("docs/")):
        renamed = old if name == "docs/troubleshooting.md" else set()  # it says what they are now
        assert set(FLAG.findall(PAGES[name])) <= known | renamed, name
    assert old <= set(FLAG.findall(PAGES["docs/troubleshooting.md"]))


def test_the_files_page_has_every_file_field_and_exit_code() -> None:
    page = PAGES["docs/files.md"]
    for file in (value for name, value in vars(runs).items() if name.isupper()):
        if isinstance(file, str) and file not in (runs.MARK,):
            assert f"`{file}" in page, file
    for record in (records.Continuation, results.ModelBias, results.Evaluation):
        for spec in fields(record):
            if (record, spec.name) != (results.Evaluation, "details"):  # spread over the page
                assert re.search(rf"`(axes\.AXIS\.)?{spec.name}[`.]", page), spec.name
    codes = {e.exit_code for e in vars(errors).values() if hasattr(e, "exit_code")}
    for code in codes | {0, 130}:
        assert re.search(rf"^\| {code} \|", page, re.MULTILINE), code


def test_messages_quoted_in_troubleshooting_are_those_of_the_code() -> None:
    quoted = re.findall(r"^> `(.+)`$", PAGES["docs/troubleshooting.md"], re.MULTILINE)
    assert len(quoted) > 20
    assert [message for message in quoted if message not in SOURCE] == []
    assert "no message says this" not in SOURCE


def test_every_direct_dependency_has_a_licence() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    for wanted in [*project["dependencies"], *(line for extra in extras for line in extra)]:
        package = re.split(r"[\[<>=~ ]", wanted)[0]
        if package != "levelhead":
            assert re.search(rf"^\|.*\b{package}\b.*\|", PAGES["docs/licences.md"], re.M), package


@pytest.mark.parametrize("name", PAGES)
def test_python_on_a_page_can_be_read(name: str) -> None:
    for block in re.findall(r"^( *)```python\n(.*?)^ *```", PAGES[name], re.MULTILINE | re.DOTALL):
        ast.parse(inspect.cleandoc("\n" + block[1]))


@pytest.fixture(scope="module")
def pipeline() -> ModuleType:
    from levelhead import pipeline

    return pipeline


def test_lists_that_stand_twice_agree(pipeline: ModuleType) -> None:
    """The command line holds some lists as text, so that --help needs no torch."""
    from typing import get_args

    from levelhead import scoring
    from levelhead.export import model as export
    from levelhead.models import checkpoint, loading, lora
    from levelhead.selection.rules import METHODS

    assert tuple(scoring.BIAS_ESTIMATORS) == config.BIAS_ESTIMATORS
    assert tuple(scoring.PPL_ESTIMATORS) == (*config.PROTECT, "exhaustive")
    assert tuple(METHODS) == config.HEAD_METHODS
    assert (*get_args(checkpoint.Format), lora.FORMAT) == config.FORMATS
    assert export.TARGETS == config.EXPORTS
    assert loading.DEVICES == config.DEVICES
    assert ("auto", *loading.DTYPES) == config.DTYPES


def test_examples_call_what_is_there(pipeline: ModuleType) -> None:
    """Every call of a stage fits its signature, and the budget's keys are options."""
    options = {spec.name for spec in fields(config.RunConfig)}
    for path in sorted((ROOT / "examples").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in pipeline.__all__:
                given = {keyword.arg: None for keyword in node.keywords if keyword.arg}
                function = getattr(pipeline, node.func.id)
                inspect.signature(function).bind(*node.args, **given)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
                assert {ast.literal_eval(key) for key in node.value.keys} <= options


def test_the_functions_of_the_package_are_functions(pipeline: ModuleType) -> None:
    import levelhead

    assert [name for name in levelhead.__all__ if not callable(getattr(levelhead, name))] == []
