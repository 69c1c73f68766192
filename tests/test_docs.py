"""The documentation agrees with the repository: links resolve, names exist, commands parse, generated pages are current."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from resynth_fast import __version__
from resynth_fast.cli.__main__ import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "benchmarks" / "README.md"])
TIMELESS = [page for page in PAGES if page.name != "CHANGELOG.md"]
"""Pages about the present; the changelog names what is gone too."""
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
PATH_NAMED = re.compile(
    r"`((?:resynth_fast|csrc|export|tests|benchmarks|docs|examples)/[\w./-]*|[\w./-]+/[\w.-]+\.(?:py|h|cpp|md|json|j2))`"
)
CLASS_NAMED = re.compile(r"`([A-Z][a-z]+[A-Z]\w*)(?:\.\w+)?`")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_resolve(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name(page)} links to {target}"
        assert not anchor or anchor in anchors(file), f"{name(page)} links to {target}, a heading that is not there"


@pytest.mark.parametrize("page", TIMELESS, ids=name)
def test_paths_named_exist(page: Path) -> None:
    """From the repository's root, the package, the headers or the page; NAME stands for any name."""
    bases = (ROOT, ROOT / "resynth_fast", ROOT / "csrc" / "include", page.parent)
    named = [path for path in PATH_NAMED.findall(page.read_text()) if "NAME" not in path]
    missing = [path for path in named if not any((base / path).exists() for base in bases)]
    assert not missing, f"{name(page)} names {missing}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_scripts_and_modules_shown_exist(page: Path) -> None:
    text = page.read_text()
    scripts = {path for path in re.findall(r"\b(?:benchmarks|tests)/[\w/]+\.(?:py|sh)\b", text) if "NAME" not in path}
    modules = {module.replace(".", "/") for module in re.findall(r"python -m (resynth_fast[\w.]*)", text)}
    files = scripts | {module.replace("resynth_fast/export", "export") for module in modules}
    missing = [file for file in files if not (ROOT / file).exists() and not (ROOT / f"{file}.py").exists()]
    assert not missing, f"{name(page)} shows {missing}"


@pytest.fixture(scope="module")
def source() -> str:
    """All code, tests included."""
    patterns = ("resynth_fast/**/*.py", "export/**/*.py", "tests/**/*.py", "csrc/**/*.h", "csrc/**/*.cpp")
    return "\n".join(path.read_text() for pattern in patterns for path in ROOT.glob(pattern))


@pytest.mark.parametrize("page", TIMELESS, ids=name)
def test_classes_named_exist(page: Path, source: str) -> None:
    missing = [text for text in CLASS_NAMED.findall(page.read_text()) if not re.search(rf"\b{text}\b", source)]
    assert not missing, f"{name(page)} names {missing}"


@pytest.mark.parametrize("folder", ["resynth_fast", "csrc"])
def test_the_architecture_names_every_folder_and_module(folder: str) -> None:
    entries = [p for p in (ROOT / folder).iterdir() if p.suffix in (".py", ".cpp") or (any(p.glob("*.[chp]*")) and p.name != "__pycache__")]
    page = (ROOT / "docs" / "architecture.md").read_text()
    missing = [f"{folder}/{p.name}" for p in entries if not re.search(rf"`{folder}/{p.name}[`/]", page) and p.stem != "__init__"]
    assert not missing, f"docs/architecture.md leaves out {missing}"


def test_the_benchmarks_page_names_every_benchmark() -> None:
    page = (ROOT / "benchmarks" / "README.md").read_text()
    missing = [path.name for path in ROOT.glob("benchmarks/bench_*.py") if path.name not in page]
    assert not missing, f"benchmarks/README.md leaves out {missing}"


def test_the_readme_is_a_front_door() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def commands(page: Path) -> Iterator[list[str]]:
    """Every `resynth …` that the page shows, in a bash block or in running text, as words."""
    text = page.read_text()
    lines = [line for block in re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) for line in block.splitlines()]
    for line in [*lines, *re.findall(r"`(resynth [^`\n]+)`", text)]:
        for part in re.split(r"&&|;", line):
            words = shlex.split(part, comments=True)
            if words[:1] == ["resynth"]:
                yield words[1:]


def called(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words call, and its arguments."""
    command: click.Command = typer.main.get_command(app)
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_shown_exist_with_their_options(page: Path) -> None:
    for words in commands(page):
        command, rest = called(words)
        shown = f"{name(page)} shows: resynth {' '.join(words)}"
        assert not hasattr(command, "commands") or all(word.startswith("-") for word in rest[:1]), f"{shown}: no such command"
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {"--help", "-h"}
        unknown = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)} - options
        assert not unknown, f"{shown}: no option {sorted(unknown)}"


def test_the_readme_shows_commands() -> None:
    assert len(list(commands(ROOT / "README.md"))) >= 10


def test_the_version_is_the_same_everywhere() -> None:
    assert re.search(rf"^version: {re.escape(__version__)}$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert re.search(rf"^## {re.escape(__version__)}$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_results_are_what_their_generator_writes() -> None:
    spec = importlib.util.spec_from_file_location("table", ROOT / "benchmarks" / "table.py")
    assert spec is not None
    assert spec.loader is not None
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    assert (ROOT / "docs" / "results.md").read_text() == table.page(), "run python benchmarks/table.py --table"
