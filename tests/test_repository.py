"""The house rules that a machine can check: layers, sizes, names, and what every kernel has. No exceptions are listed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import resynth_fast

ROOT = Path(__file__).parents[1]
RUNTIME = ROOT / "resynth_fast"

LAYERS = (
    {"errors", "types", "files", "plugins"},
    {"kernels"},
    {"devices"},
    {"backends", "images", "scoring", "options", "http_client"},
    {"bundle"},
    {"scheduler", "engines", "sampling", "zoo"},
    {"captioners", "extractors"},
    {"candidates"},
    {"gallery"},
    {"resynthesis"},
    {"evidence"},
    {"attributor"},
    {"report"},
    {"evaluation"},
    {"cli"},
    {"__main__"},
)
"""From the lowest to the highest. A module imports from its own layer and from lower ones."""
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MOST_ENTRIES, MOST_LINES = 30, 400
SOURCES = ("*.py", "*.pyi", "*.cpp", "*.cu", "*.cuh", "*.h", "*.css", "*.j2", "*.mjs", "*.sh")


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository; all that lie there where git is absent, as in an unpacked source archive."""
    listed = subprocess.run(["git", "ls-files", "--", *patterns], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return [path for line in listed.stdout.splitlines() if (path := ROOT / line).exists()]
    folders = [ROOT / name for name in ("resynth_fast", "export", "csrc", "tests", "benchmarks")]
    return [path for folder in folders for pattern in patterns for path in folder.rglob(pattern)]


def part_of(path: Path) -> str:
    """The top entry of the runtime that a file belongs to."""
    return path.relative_to(RUNTIME).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports at any depth, as a dotted name."""
    package = ("resynth_fast", *path.relative_to(RUNTIME).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def runtime_files() -> list[Path]:
    return sorted(RUNTIME.rglob("*.py"))


def test_every_part_of_the_runtime_has_a_layer() -> None:
    parts = {part_of(path) for path in runtime_files()} - {"__init__"}
    assert parts <= set(LEVEL), f"{sorted(parts - set(LEVEL))} stand in no layer"


def test_imports_go_one_way() -> None:
    upwards = []
    for path in runtime_files():
        part = part_of(path)
        for module in imports(path):
            names = module.split(".")
            if names[0] != "resynth_fast" or len(names) < 2 or names[1] not in LEVEL or part not in LEVEL:
                continue
            if LEVEL[names[1]] > LEVEL[part]:
                upwards.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not upwards, "\n".join(sorted(set(upwards)))


def test_folders_do_not_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in runtime_files():
        part = part_of(path)
        found = {names[1] for module in imports(path) if (names := module.split("."))[0] == "resynth_fast" and len(names) > 1}
        graph.setdefault(part, set()).update((found & set(LEVEL)) - {part})
    waiting = dict(graph)
    while waiting:
        free = [part for part, needs in waiting.items() if not needs & set(waiting)]
        assert free, f"a circle among {sorted(waiting)}"
        for part in free:
            del waiting[part]


def test_only_the_torch_backend_imports_torch() -> None:
    foreign = {"torch", "diffusers", "transformers", "accelerate"}
    found = {
        str(path.relative_to(ROOT))
        for path in runtime_files()
        if path.relative_to(RUNTIME).parts[:2] != ("backends", "torch") and any(m.split(".")[0] in foreign for m in imports(path))
    }
    assert not found


def test_a_verdict_loads_neither_torch_nor_the_evaluation(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom resynth_fast import Attributor\n"
        f"Attributor.open(['zoo:zoo-sd'], references=1)([{str(ROOT / 'examples/07.png')!r}])\n"
        "print([m for m in ('torch', 'onnx', 'diffusers', 'resynth_fast.evaluation', 'resynth_fast.gallery') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"


def test_the_top_of_the_runtime_fits_on_a_screen() -> None:
    entries = {path.name for path in RUNTIME.iterdir()} - {"__pycache__", "export"}
    assert len(entries) <= MOST_ENTRIES, sorted(entries)


def test_no_source_file_is_too_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in tracked(*SOURCES)}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_the_formatter_is_not_switched_off() -> None:
    off = ("# fmt" + ": skip", "# fmt" + ": off", "// clang-format" + " off")
    found = [str(path.relative_to(ROOT)) for path in tracked("*.py", "*.cpp", "*.cu", "*.h") if any(o in path.read_text() for o in off)]
    assert len(found) < 10, found


def test_what_all_names_is_there() -> None:
    missing = [name for name in resynth_fast.__all__ if not hasattr(resynth_fast, name)]
    assert not missing
    for path in runtime_files():
        tree = ast.parse(path.read_text())
        for node in tree.body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                listed = set(ast.literal_eval(node.value))
                assert listed <= set(defined(tree)), f"{path.relative_to(ROOT)}: {sorted(listed - set(defined(tree)))}"


def test_public_names_have_docstrings() -> None:
    bare = []
    for path in runtime_files():
        tree = ast.parse(path.read_text())
        public = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]
        bare += [f"{path.relative_to(ROOT)}: {node.name}" for node in public if not ast.get_docstring(node)]
        if not ast.get_docstring(tree) and path.name != "__init__.py":
            bare.append(str(path.relative_to(ROOT)))
    assert not bare, "\n".join(bare)


def test_every_folder_says_what_it_is_for() -> None:
    silent = [str(path.relative_to(ROOT)) for path in RUNTIME.rglob("__init__.py") if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not [path for path in silent if path != "resynth_fast/__init__.py"], silent


def defined(tree: ast.Module) -> Iterator[str]:
    """Names that a module binds at its top level."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


# --- kernels -------------------------------------------------------------------------------------------------------

KERNELS = sorted({path.parent.name for path in (ROOT / "csrc").glob("*/*.cu")})


def test_the_kernels_are_found() -> None:
    assert {"similarity", "topk", "step", "noise"} <= set(KERNELS)


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_is_complete(kernel: str) -> None:
    """For the processor and for CUDA, with a face, a float64 twin, a test, an emulated test and a benchmark."""
    wanted = [
        ROOT / f"resynth_fast/kernels/{kernel}.py",
        ROOT / f"resynth_fast/kernels/twins/{kernel}.py",
        ROOT / f"tests/test_{kernel}.py",
        ROOT / f"tests/cuda_emulation/{kernel}.cpp",
        ROOT / f"benchmarks/bench_{kernel}.py",
    ]
    assert not [str(path.relative_to(ROOT)) for path in wanted if not path.exists()]
    assert list((ROOT / "csrc" / kernel).glob("*.cpp")), "a kernel runs on the processor too"


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_runtime_calls_every_function_of_every_kernel(kernel: str) -> None:
    face = RUNTIME / f"kernels/{kernel}.py"
    functions = {
        node.name for node in ast.parse(face.read_text()).body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }
    others = [*(path for path in runtime_files() if path != face and "twins" not in path.parts), *(ROOT / "export").rglob("*.py")]
    used = {
        name
        for path in others
        for node in ast.walk(ast.parse(path.read_text()))
        for name in ([node.id] if isinstance(node, ast.Name) else [node.attr] if isinstance(node, ast.Attribute) else [])
    }
    own = {node.id for node in ast.walk(ast.parse(face.read_text())) if isinstance(node, ast.Name)}
    assert functions & used, f"the runtime does not call {kernel}"
    assert functions <= used | own, f"nothing calls {sorted(functions - used - own)}"
