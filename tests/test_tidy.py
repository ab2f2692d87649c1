"""What the linters cannot see: the arrows between layers, and how files open.

The layers are those of CONTRIBUTING.md. A file may import its own layer and the lower ones.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parent.parent
ZSRC = ROOT / "zsrc"
PACKAGE = ROOT / "golibx"

FILE_BYTES_MAX = 1 << 20

# Lowest first; those of one row do not import each other.
ZIG_LAYERS = (
    {"os"},
    {"arch", "core", "event"},
    {"serial"},
    {"netpoll", "sync"},
    {"parallel"},
    {"capi"},
    {"check", "python"},
)
# Those that start with what is imported from outside, and the programs.
ZIG_ROOTS = {"root", "tests", "check_main", "native_main"}

PYTHON_LAYERS = (
    {"errors", "frames", "inherited", "places", "schedules", "version"},
    {"_core"},
    {"leaked", "schema", "values"},
    {"rules"},
    {"config", "context", "dump", "include", "labels", "net", "patch", "singleflight", "sync"}
    | {"time", "tuning", "watchers"},
    {"aio", "control", "futures", "hookspec", "logrecords", "native", "plugins", "scope"}
    | {"signal"},
    {"eventbatch", "pluginfinder"},
    {"tracelines"},
    {"tracefile"},
    {"pluginmanager"},
    {"console", "runtime"},
    {"__init__", "program", "testing"},
    {"integrations", "serve", "top"},
    {"cli", "commands"},
    {"__main__"},
)
# Two that belong together, and know each other.
PYTHON_PAIRS = ({"leaked", "schema", "values"}, {"cli", "commands"})
# What describes and checks a configuration works without the native library.
WITHOUT_CORE = {"config", "errors", "hookspec", "rules", "schema", "values", "version"}
WITHOUT_CORE |= {"eventbatch", "places", "pluginfinder", "pluginmanager"}
# What a plugin imports: what a third party's could.
PLUGIN_API = {"golibx", "golibx.config", "golibx.errors", "golibx.hookspec", "golibx.signal"}
PLUGIN_API |= {"golibx.eventbatch", "golibx.tracelines"}
PLUGIN_API |= {f"golibx.plugins.{name}" for name in ("_http", "_looks", "metrics", "profile")}

COLUMNS = 100
FUNCTION_LINES = 70
ZIG_FILES = sorted(ZSRC.rglob("*.zig"))
PYTHON_FILES = sorted([*PACKAGE.rglob("*.py"), PACKAGE / "_core.pyi"])
MARKDOWN_FILES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")])


def relative(path: object) -> str:
    return str(path.relative_to(ROOT)) if isinstance(path, Path) else str(path)


# ---- the Zig core ----


def zig_layer(path: PurePosixPath | Path) -> str:
    """The layer of a file in zsrc: its folder, or its name if it lies in none."""
    return path.parts[0].removesuffix(".zig")


def is_zig_test(path: PurePosixPath | Path) -> bool:
    """Whether a file has nothing but tests, and so may use what lies above the tested."""
    return path.stem.endswith("_test")


def zig_imports(path: Path) -> Iterator[PurePosixPath]:
    """The files of zsrc that a file imports, relative to zsrc."""
    code = re.sub(r"//.*", "", path.read_text(encoding="utf-8"))
    for name in re.findall(r'@import\("([^"]+\.zig)"\)', code):
        yield PurePosixPath((path.parent / name).resolve().relative_to(ZSRC).as_posix())


def may_import(layers: tuple[set[str], ...], importer: str, imported: str) -> bool:
    row = {name: number for number, names in enumerate(layers) for name in names}
    return importer == imported or row[imported] < row[importer]


@pytest.mark.parametrize("path", ZIG_FILES, ids=relative)
def test_zig_file_imports_no_higher_layer(path: Path) -> None:
    layer = zig_layer(path.relative_to(ZSRC))
    if layer in ZIG_ROOTS or is_zig_test(path):
        return
    for imported in zig_imports(path):
        assert not is_zig_test(imported)
        assert may_import(ZIG_LAYERS, layer, zig_layer(imported)), (
            f"{layer} imports zsrc/{imported}, which is not below it"
        )


def test_zig_layers_are_the_folders() -> None:
    folders = {zig_layer(path.relative_to(ZSRC)) for path in ZIG_FILES}
    assert folders == set().union(*ZIG_LAYERS) | ZIG_ROOTS


def test_every_class_is_listed() -> None:
    """One in a file that is not imported is not seen by the compiler, which finds all others."""
    listed = (ZSRC / "python" / "classes.zig").read_text(encoding="utf-8")
    for path in sorted((ZSRC / "python").glob("*.zig")):
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"^pub const (\w+) = class\.Class\(", text, re.MULTILINE):
            module = re.search(rf'const (\w+) = @import\("{path.name}"\)', listed)
            way = f"{module[1]}.{name}," if module else f'@import("{path.name}").{name},'
            assert way in listed, way


def test_root_imports_only_what_is_exported() -> None:
    """The extension module, and the C ABI."""
    assert {zig_layer(path) for path in zig_imports(ZSRC / "root.zig")} == {"capi", "python"}


def test_unit_tests_are_collected() -> None:
    """A test of a Zig file runs only if tests.zig reaches the file."""
    reached = {PurePosixPath("tests.zig")}
    new = list(reached)
    while new:
        for path in zig_imports(ZSRC / new.pop()):
            if path not in reached:
                reached.add(path)
                new.append(path)
    for path in ZIG_FILES:
        if re.search(r"^test\b", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert PurePosixPath(path.relative_to(ZSRC).as_posix()) in reached, relative(path)


@pytest.mark.parametrize("path", ZIG_FILES, ids=relative)
def test_zig_file_opens_with_an_essay(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    essay = [line for line in lines if line.startswith("//!")]
    assert lines[0] in essay
    assert len(essay) <= 60, "longer than a screen"
    assert sum(len(line.split()) - 1 for line in essay) >= 5


# ---- the Python package ----


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def is_type_checking(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """A tree without what only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if not is_type_checking(child):
            yield child
            yield from run_time_nodes(child)


def python_imports(path: Path) -> Iterator[tuple[str, str]]:
    """What a module imports of golibx when it runs: (module, name), name "" for the module."""
    for node in run_time_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if is_golibx(alias.name))
        elif isinstance(node, ast.ImportFrom) and is_golibx(node.module or ""):
            assert node.level == 0
            for alias in node.names:
                yield str(node.module), alias.name


def is_golibx(name: str) -> bool:
    return name.partition(".")[0] == "golibx"


def imported_module(module: str, name: str) -> str:
    """The layer that `from module import name` reaches: `from golibx import net` reaches net."""
    if module != "golibx":
        return module.split(".")[1]
    is_module = any((PACKAGE / f"{name}{suffix}").exists() for suffix in ("", ".py", ".pyi"))
    return name if name and is_module else "__init__"


@pytest.mark.parametrize("path", PYTHON_FILES, ids=relative)
def test_module_imports_no_higher_layer(path: Path) -> None:
    importer = module_name(path)
    if importer == "plugins":
        return  # They are above everything, and loaded by name.
    for module, name in python_imports(path):
        imported = imported_module(module, name)
        assert may_import(PYTHON_LAYERS, importer, imported) or any(
            {importer, imported} <= pair for pair in PYTHON_PAIRS
        ), f"golibx.{importer} imports golibx.{imported}, which is not below it"
        assert imported != "_core" or importer not in WITHOUT_CORE


def test_python_layers_are_the_modules() -> None:
    assert {module_name(path) for path in PYTHON_FILES} == set().union(*PYTHON_LAYERS)


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("plugins/*.py")), ids=relative)
def test_builtin_plugin_uses_only_the_public_api(path: Path) -> None:
    for module, name in python_imports(path):
        assert module in PLUGIN_API
        public = importlib.import_module(module)
        assert name in public.__all__, f"{module}.{name} is not public"


@pytest.mark.parametrize("path", PYTHON_FILES, ids=relative)
def test_module_opens_with_a_docstring(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring
    assert len(docstring.split()) >= 5


# ---- lines and functions ----


@pytest.mark.parametrize("path", [*ZIG_FILES, ROOT / "build.zig"], ids=relative)
def test_zig_file_keeps_to_the_columns(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > COLUMNS] == []


def markdown_prose(path: Path) -> Iterator[str]:
    """The lines of a page but for tables, what programs print, and code by indentation."""
    fence = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := re.match(r" *(`{3,})(.*)", line):
            fence = "" if fence else match[2] or "text"
        elif fence != "text" and not line.startswith(("|", "    ")):
            yield line


@pytest.mark.parametrize("path", MARKDOWN_FILES, ids=relative)
def test_markdown_file_keeps_to_the_columns(path: Path) -> None:
    """A word, such as a link, may be wider."""
    wide = [line for line in markdown_prose(path) if len(line) > COLUMNS and " " in line.strip()]
    assert wide == []


@pytest.mark.parametrize("path", MARKDOWN_FILES, ids=relative)
def test_markdown_file_is_in_plain_words(path: Path) -> None:
    """Threads and goroutines are things, not persons, and what there is, is."""
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"\b(?:to be had|he|his|him|whoever|whom)\b", text) == []


def zig_functions(path: Path) -> Iterator[tuple[str, int]]:
    """The functions of a file and how many lines each has; not those that make a type."""
    text = path.read_text(encoding="utf-8")
    head = re.compile(r"^( *)(?:(?:pub|export|noinline|inline) )*fn (\w+)\(", re.MULTILINE)
    for match in head.finditer(text):
        opened = text.find("{\n", match.end())
        first, signature = text[match.start() :].partition("\n")[0], text[match.start() : opened]
        if signature.endswith(") type ") or first.endswith(("}", ";")):
            continue
        end = text.index(f"\n{match[1]}}}", match.end())
        yield match[2], text[match.start() : end].count("\n") + 2


def python_functions(path: Path) -> Iterator[tuple[str, int]]:
    """The functions of a file and how many lines each has, its docstring left out."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = (ast.get_docstring(node, clean=False) or "").count("\n")
            yield node.name, (node.end_lineno or 0) - node.lineno + 1 - docstring


def test_functions_fit_on_a_screen() -> None:
    folders = ("bench", "examples", "golibx", "pytest_golibx", "tests", "tools")
    python = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    too_long = {
        f"{relative(path)}::{name}": lines
        for paths, functions in ((ZIG_FILES, zig_functions), (python, python_functions))
        for path in paths
        for name, lines in functions(path)
        if lines > FUNCTION_LINES
    }
    assert too_long == {}, f"functions have at most {FUNCTION_LINES} lines"


# ---- the repository ----


def test_map_names_every_layer() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for folder in set().union(*ZIG_LAYERS):
        assert f"zsrc/{folder}" in text
    for module in set().union(*PYTHON_LAYERS):
        assert re.search(rf"\b{module}\b", text), module


def test_no_large_file_is_tracked() -> None:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode != 0:
        pytest.skip("not a git repository")
    files = [ROOT / name for name in listing.stdout.split("\0") if name]
    large = [relative(f) for f in files if f.is_file() and f.stat().st_size > FILE_BYTES_MAX]
    assert not large


def test_benchmark_requirements_agree() -> None:
    """Those of `pip install golibx[bench]` and of bench/requirements.txt."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "bench" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.strip() for line in lines if line.strip() and not line.startswith("#")}
    assert set(project["optional-dependencies"]["bench"]) == pinned
