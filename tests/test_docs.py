"""A setting, a hook or a plugin that is not documented, or has no test, fails here."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable
from inspect import signature
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest

import golibx
from conftest import Script
from golibx import aio, context, hookspec, native, sync, testing
from golibx.config import Config
from golibx.errors import toml_value
from golibx.pluginfinder import builtin_names
from golibx.pluginmanager import PluginManager
from golibx.rules import KEYS as KEYS_THAT_MAY_CHANGE
from golibx.rules import METRICS, Snapshot
from golibx.runtime import Runtime
from golibx.schema import KINDS, SCHEMA, Key, with_reference
from golibx.scope import Scope
from golibx.testing import plugins as testing_plugins
from golibx.testing import run

ROOT = Path(__file__).parent.parent
CONFIGURATION = ROOT / "docs" / "configuration.md"
PLUGINS = ROOT / "docs" / "plugins.md"
NATIVE = ROOT / "docs" / "native.md"
SYNC = ROOT / "docs" / "sync.md"
DEBUGGING = ROOT / "docs" / "debugging.md"
TESTING = ROOT / "docs" / "testing.md"
TUNING = ROOT / "docs" / "tuning.md"
README = ROOT / "README.md"
EXAMPLE = ROOT / "config" / "golib.toml"
KEYS = [(table.name, key) for table in SCHEMA for key in table.keys]


def ids(value: object) -> str:
    return value.name if isinstance(value, Key) else str(value)


def example_of(table: str, key: str) -> tuple[str, str, bool]:
    """The comment before a key in config/golib.toml, its value, and whether it is commented out."""
    text = EXAMPLE.read_text(encoding="utf-8")
    (section,) = re.findall(rf"^\[{table}\]\n(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)
    (found,) = re.findall(rf"((?:^#.*\n)*)^(# )?{key} = (.*)$", section, re.MULTILINE)
    comment, mark, value = found
    # The comment of this key, not those of the keys before it.
    lines = comment.splitlines()
    own = [number for number, line in enumerate(lines) if re.match(r"# \w+ = ", line)]
    return "\n".join(lines[own[-1] + 1 if own else 0 :]), value, bool(mark)


@pytest.mark.parametrize(("table", "key"), KEYS, ids=ids)
def test_key_is_in_the_example(table: str, key: Key) -> None:
    comment, value, is_default = example_of(table, key.name)
    assert comment
    if is_default:
        assert value == toml_value(key.default)
    if key.kind in ("int", "duration", "size"):
        assert f"{key.low} to {key.high}" in comment.replace("\n# ", " ")
    if key.zero:
        assert "0: " in comment.replace("\n# ", " ")
    for choice in key.choices:
        assert f'"{choice}"' in comment


def test_example_is_a_configuration() -> None:
    config = Config.load(EXAMPLE, environ={})
    assert config.program.entry == str(ROOT / "examples" / "tour.py")
    counter = str(ROOT / "examples" / "tour_counter.py")
    assert config.plugins.enabled == ("schedtrace", counter)


def test_example_with_every_key_set_is_a_configuration(tmp_path: Path) -> None:
    text = re.sub(r"^# (\w+ = )", r"\1", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    path = tmp_path / "golib.toml"
    path.write_text(text, encoding="utf-8")
    config = Config.load(path, environ={})
    assert config.core_options() == Config.load(environ={}).core_options()


def test_reference_is_up_to_date() -> None:
    text = CONFIGURATION.read_text(encoding="utf-8")
    assert with_reference(text) == text, "run: python -m golibx.schema docs/configuration.md"


@pytest.mark.parametrize(("table", "key"), KEYS, ids=ids)
def test_key_is_in_the_reference(table: str, key: Key) -> None:
    text = CONFIGURATION.read_text(encoding="utf-8")
    (section,) = re.findall(rf"^### \[{table}\]\n(.*?)(?=^### |^<!--)", text, re.M | re.S)
    assert f"| `{key.name}` | `{toml_value(key.default)}` | {key.allowed} |" in section
    assert len(key.description) > 20


@pytest.mark.parametrize("name", PluginManager.hook_names())
def test_hook_is_documented(name: str) -> None:
    hook = getattr(hookspec, name)
    assert hook.__doc__
    arguments = hook.__code__.co_varnames[: hook.__code__.co_argcount]
    text = PLUGINS.read_text(encoding="utf-8")
    (section,) = re.findall(
        rf"^### {name}\({', '.join(arguments)}\)\n(.*?)(?=^##)", text, re.M | re.S
    )
    assert len(section.split()) > 5
    if name.startswith("on_"):
        event = getattr(hookspec, hook.__annotations__["event"])
        assert f"| `{event.__name__}` | |" in section
        rows = re.findall(r"^\| `(\w+)` \| .+ \|$", section, re.MULTILINE)
        assert tuple(rows) == event._fields


def test_the_snapshot_is_documented() -> None:
    text = (
        PLUGINS.read_text(encoding="utf-8").partition("| `Snapshot` | |\n")[2].partition("\n\n")[0]
    )
    assert tuple(re.findall(r"^\| `(\w+)` \| .+ \|$", text, re.M)) == Snapshot._fields


@pytest.mark.parametrize("record", [hookspec.PluginStats, hookspec.HookStats, hookspec.TuningKey])
def test_what_plugins_are_given_is_documented(record: type[NamedTuple]) -> None:
    text = PLUGINS.read_text(encoding="utf-8").partition(f"| `{record.__name__}` | |\n")[2]
    rows = re.findall(r"^\| `(\w+)` \| .+ \|$", text.partition("\n\n")[0], re.M)
    assert tuple(rows) == record._fields


def test_every_method_of_the_runtime_object_is_documented() -> None:
    text = PLUGINS.read_text(encoding="utf-8").partition("## The runtime object")[2]
    rows = re.findall(r"^\| `runtime\.(\w+)[`(]", text.partition("\n## ")[0], re.M)
    own = {"run", "enter", "leave", "is_intact", "run_entered", "on_interrupt", "on_panic"}
    public = {name for name in vars(Runtime) if not name.startswith("_")} - own
    assert {*rows} == {*public, "config"}


def test_metrics_are_documented() -> None:
    text = TUNING.read_text(encoding="utf-8").partition("## Metrics")[2].partition("\n## ")[0]
    assert dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \| .+ \|$", text, re.M)) == METRICS


def test_every_key_that_may_change_is_documented() -> None:
    text = TUNING.read_text(encoding="utf-8").partition("| key | takes effect |")[2]
    rows = re.findall(r"^\| (`.+?`) \| .+ \|$", text.partition("\n\n")[0], re.M)
    assert sorted(re.findall(r"`(.+?)`", " ".join(rows))) == sorted(KEYS_THAT_MAY_CHANGE)


def test_the_rules_and_limits_of_tuning_md_are_right(tmp_path: Path) -> None:
    blocks = re.findall(r"(?:^    .*\n|^\n)+", TUNING.read_text(encoding="utf-8"), re.M)
    tables = [block for block in blocks if "    [tune" in block or "    [[tune" in block]
    assert len(tables) == 2
    for table in tables:
        (tmp_path / "golib.toml").write_text(re.sub(r"^    ", "", table, flags=re.M))
        config = Config.load(tmp_path / "golib.toml", environ={})
        assert len(config.tune.rules) == 2 or len(config.tune.limits) == 2


@pytest.mark.parametrize("name", PluginManager.hook_names())
def test_hook_has_a_test(name: str) -> None:
    tree = ast.parse((ROOT / "tests" / "test_hookspec.py").read_text(encoding="utf-8"))
    tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert f"test_{name}" in tests


@pytest.mark.parametrize("name", builtin_names())
def test_builtin_plugin_is_documented(name: str) -> None:
    text = PLUGINS.read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    for key in importlib.import_module(f"golibx.plugins.{name}").KEYS:
        default = toml_value(key.default)
        assert f"| `{key.name}` | `{default}` | {key.allowed} | {key.description} |" in section


@pytest.mark.parametrize("name", builtin_names())
def test_builtin_plugin_has_a_test(name: str) -> None:
    source = (ROOT / "tests" / "test_pluginmanager.py").read_text(encoding="utf-8")
    assert f"def test_{name}(" in source


# ---- and each has a test ----

SOURCES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("**/*.py")}


def sets(source: str, table: str, key: str) -> bool:
    """Whether a test has it: as an override, a variable, in a dict, or in a text of TOML."""
    patterns = (
        rf"\b{re.escape(table)}\.{key}\b",
        rf"\bGOLIB_{table.replace('.', '_').upper()}_{key.upper()}\b",
        rf'\b{table}"?(?:: | ?= ?)\{{[^}}]*"{key}":',
        rf"^\[{re.escape(table)}\]\n(?:[^\[\n].*\n)*?{key} = ",
    )
    if table == "serve":  # its keys are options of the command
        patterns += (rf'"(?:--)?{key.replace("_", "-")}[":=]',)
    return any(re.search(pattern, source, re.M) for pattern in patterns)


@pytest.mark.parametrize(("table", "key"), KEYS, ids=ids)
def test_key_has_a_test(table: str, key: Key) -> None:
    """Of what it does: test_config.py has a value of each, and says only that it is read."""
    others = (text for name, text in SOURCES.items() if name != "test_config.py")
    assert any(sets(text, table, key.name) for text in others)


@pytest.mark.parametrize("name", builtin_names())
def test_each_key_of_a_builtin_plugin_has_a_test(name: str) -> None:
    own = {"schedtrace": "test_pluginmanager.py", "tuner": "test_tune.py"}
    source = SOURCES[own.get(name, f"test_{name}.py")]
    for key in importlib.import_module(f"golibx.plugins.{name}").KEYS:
        given = rf"\b{key.name}=|\"{key.name}\":|^{key.name} = "
        is_given = sets(source, f"plugins.{name}", key.name) or re.search(given, source, re.M)
        assert is_given, f"plugins.{name}.{key.name}"


def are_whole(record: type[NamedTuple], nodes: Iterable[ast.AST]) -> bool:
    """Whether one of these makes such a record, with all of its fields."""
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == record.__name__
        and len(node.args) + len(node.keywords) == len(record._fields)
        and not any(isinstance(each, ast.Starred) for each in node.args)
        for node in nodes
    )


def assert_fields_have_tests(record: type[NamedTuple], file: str) -> None:
    """That each is looked at, or compared together with the others."""
    nodes = [*ast.walk(ast.parse(SOURCES[file]))]
    if are_whole(record, nodes):
        return
    looked_at = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    for field in record._fields:
        assert field in looked_at, f"{record.__name__}.{field}, in {file}"


HOOKS_OF_EVENTS = [name for name in PluginManager.hook_names() if name.startswith("on_")]


@pytest.mark.parametrize("name", HOOKS_OF_EVENTS)
def test_every_field_of_an_event_has_a_test(name: str) -> None:
    """Of what it is made of, and of a program that brings it about."""
    event = getattr(hookspec, getattr(hookspec, name).__annotations__["event"])
    (test,) = (
        node
        for node in ast.parse(SOURCES["test_hookspec.py"]).body
        if isinstance(node, ast.FunctionDef) and node.name == f"test_{name}"
    )
    assert are_whole(event, ast.walk(test))
    assert_fields_have_tests(event, "test_tune.py" if name == "on_tune" else "test_events.py")


@pytest.mark.parametrize(
    ("record", "file"),
    [
        (Snapshot, "test_tune.py"),
        (hookspec.TuningKey, "test_tune.py"),
        (hookspec.PluginStats, "test_plugin_stats.py"),
        (hookspec.HookStats, "test_plugin_stats.py"),
    ],
)
def test_every_field_that_plugins_are_given_has_a_test(record: type[NamedTuple], file: str) -> None:
    assert_fields_have_tests(record, file)


def test_kinds_of_keys_are_documented() -> None:
    text = PLUGINS.read_text(encoding="utf-8").partition("The kinds of a `Key`")[2]
    assert tuple(re.findall(r'^\| `"(\w+)"` \|', text, re.MULTILINE)) == KINDS


# ---- README.md ----

PROGRAMS = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)


def test_the_first_program_of_the_readme(script: Script) -> None:
    assert len([line for line in PROGRAMS[0].splitlines() if line]) <= 12
    assert sorted(ast.literal_eval(script.passes(PROGRAMS[0]))) == ["a", "b", "c"]


def test_the_readme_fits_on_two_screens() -> None:
    text = README.read_text(encoding="utf-8")
    assert 80 <= len(text.splitlines()) <= 120
    assert text.index("make run") < text.index("make test") < text.index("```python")


def test_the_pictures_of_the_readme() -> None:
    """They are small, and need nothing from elsewhere."""
    pictures = re.findall(r"!\[[^]]+\]\((\S+\.svg)\)", README.read_text(encoding="utf-8"))
    assert pictures == ["docs/assets/tour.svg", "docs/assets/bench.svg"]
    for name in pictures:
        source = (ROOT / name).read_bytes()
        assert len(source) < 200_000
        addresses = {e.tag.partition("}")[0] for e in ET.fromstring(source).iter()}
        assert addresses == {"{http://www.w3.org/2000/svg"}
        assert re.findall(rb"(?:href|src|url)\s*[=(]", source) == []


# ---- docs/context.md and docs/scope.md ----


def programs_of(name: str) -> list[str]:
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)


def test_the_programs_of_context_md(script: Script) -> None:
    deadline, argument = programs_of("context")
    assert script.passes(deadline) == "context deadline exceeded\ncleaned up\n"
    assert script.passes(argument) == "3 context cancelled\n"


def test_the_programs_of_scope_md(script: Script) -> None:
    first, results = programs_of("scope")
    assert script.passes(first) == "(ValueError('cannot fetch b'),)\n"
    assert script.passes(results) == "[0, 1, 4]\n[4, 1, 0]\n"


@pytest.mark.parametrize("name", context.__all__)
def test_context_md_names_it(name: str) -> None:
    text = (ROOT / "docs" / "context.md").read_text(encoding="utf-8")
    assert f"`{name}(" in text or f"context.{name}" in text


# ---- docs/native.md ----


def test_native_counters_are_documented() -> None:
    text = NATIVE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .+ \|$", text, re.MULTILINE)
    assert rows == [f"native_{name}" for name in native.counters() if name != "steals"]


def test_counters_are_documented() -> None:
    text = DEBUGGING.read_text(encoding="utf-8").partition("## Counters")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| .+ \|$", text, re.MULTILINE)
    assert rows == [name for name in golibx.stats() if not name.startswith("native_")]


def test_the_program_of_logging_md(script: Script) -> None:
    (program,) = programs_of("logging")
    assert script.passes(program) == "[1 main] starting\n[2 fetcher] fetching /index\n"


def test_every_command_is_on_its_page() -> None:
    from golibx.commands import group

    text = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    for name, command in group.commands.items():
        assert f"`golibx {name}" in text, name
        for parameter in command.params:
            if parameter.param_type_name == "option" and name in ("run", "config", "info"):
                assert any(option in text for option in parameter.opts), parameter.opts


def test_the_programs_of_native_md(script: Script) -> None:
    programs = re.findall(r"^```python\n(.*?)^```", NATIVE.read_text(encoding="utf-8"), re.M | re.S)
    assert [script.passes(program) for program in programs] == [
        "1.0\n",
        "5 [b'fig', b'lime', b'pear', b'plum']\n",
    ]


# ---- docs/sync.md ----

SYNC_OUTPUT = (
    "[4, 4, 4]\nTrue False\n",
    "42\n",
    "[0, 1, 2] 10\n",
    "sets up\nreads the settings\n[42, 42, 42]\n",
    "True\n{('EXAMPLE', True)} 1\n",
)
SYNC_PROGRAMS = re.findall(r"^```python\n(.*?)^```", SYNC.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("number", range(len(SYNC_OUTPUT)))
def test_the_programs_of_sync_md(script: Script, number: int) -> None:
    assert len(SYNC_PROGRAMS) == len(SYNC_OUTPUT)
    assert script.passes(SYNC_PROGRAMS[number]) == SYNC_OUTPUT[number]


@pytest.mark.parametrize("name", [*sync.__all__, "singleflight"])
def test_sync_is_documented(name: str) -> None:
    text = SYNC.read_text(encoding="utf-8")
    assert f"`{name}" in text
    found = getattr(golibx, name, None) or getattr(sync, name)
    if isinstance(found, type) and not issubclass(found, BaseException):
        for method in vars(found):
            if not method.startswith("_"):
                assert re.search(rf"\b{method}\b", text), f"{name}.{method}"


# ---- docs/debugging.md and docs/testing.md ----


def shown_in(page: Path) -> list[tuple[str, str]]:
    """The programs of a page that are followed by what they print, and that."""
    lines = r"((?:(?!```).*\n)*)"
    pattern = rf"^```python\n{lines}```\n(?:\nprints\n)?\n```text\n{lines}```"
    return re.findall(pattern, page.read_text(encoding="utf-8"), re.MULTILINE)


SHOWN = [*shown_in(DEBUGGING), *shown_in(TESTING), *shown_in(TUNING)]


@pytest.mark.parametrize("number", range(len(SHOWN)))
def test_a_program_prints_what_its_page_says(script: Script, number: int) -> None:
    program, shown = SHOWN[number]
    result = script(program)
    assert result.returncode == 0, result.stderr
    out = (result.stdout + result.stderr).replace(str(script.file(program)), "program.py")
    # A line "…" stands for any number of lines, within a line it stands for any characters.
    lines = [
        "(.*\n)*?" if line == "    …\n" else re.escape(line) for line in shown.splitlines(True)
    ]
    pattern = "".join(lines).replace("…", "[^ ]*")
    assert re.fullmatch(pattern + r"\n*", out), out


def test_every_program_of_debugging_md_shows_its_output() -> None:
    assert len(shown_in(DEBUGGING)) == DEBUGGING.read_text(encoding="utf-8").count("```python") == 5


def test_the_test_of_testing_md(pytester: pytest.Pytester) -> None:
    text = TESTING.read_text(encoding="utf-8")
    programs = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert len(shown_in(TESTING)) == len(programs) - 1 == 6
    pytester.makepyfile(programs[0])
    result = pytester.runpytest_subprocess("-p", "pytest_golibx", "--strict-markers")
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("name", [*testing_plugins.__all__])
def test_testing_md_names_what_is_for_plugins(name: str) -> None:
    text = TESTING.read_text(encoding="utf-8").partition("## Plugins")[2]
    assert re.search(rf"`{name}\b", text)


def test_seen_is_documented() -> None:
    text = TESTING.read_text(encoding="utf-8").partition("| `Seen` | |")[2].partition("\n\n")[0]
    seen = {name for name in vars(testing_plugins.Seen()) if not name.startswith("_")}
    seen |= {name for name in testing_plugins.Seen.__annotations__}
    seen |= {name for name in vars(testing_plugins.Seen) if not name.startswith("_")}
    assert {name for name in re.findall(r"`(\w+)[`(]", text) if name in seen} == seen


def test_every_option_of_a_test_is_in_testing_md() -> None:
    text = TESTING.read_text(encoding="utf-8").partition("\n## ")[0]
    names = [p.name for p in signature(run).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert re.findall(r"^\| `(\w+)` \|", text, re.M) == [n for n in names if n != "config"]


@pytest.mark.parametrize("name", testing.__all__)
def test_testing_md_names_it(name: str) -> None:
    assert re.search(rf"`{name}\b", TESTING.read_text(encoding="utf-8"))


# ---- docs/aio.md, chan.md, goroutines.md, net.md, select.md, time.md, tutorial.md ----

OUTPUTS = {
    "aio.md": [
        "page of a\n['page of b', 'page of c']\n",
        "[3, 5]\ncancelled True\n",
        "[0, 1, 4, 9, 16]\n49\n332833500\n",
    ],
    "chan.md": ["30\n", "send and close only\nFalse\n", "[0, 1, 4, 9, 16]\n"],
    "goroutines.md": [
        "49\nTrue -1 is negative\nthe one that waits has cleaned up\ncancelled\n",
        "{'request': '17', 'user': 'ada', 'step': 'fetch'}\n",
        "['high 0', 'high 1', 'normal', 'low']\n",
        "[10, 45, 105]\n",
    ],
    "otel.md": [
        (
            "query in price of tea, None\nprice of tea in scope, 17\nscope in order, 17\n"
            "order in nothing, None\n"
        ),
    ],
    "net.md": [
        "b'HELLO\\n'\nTrue\nTrue\n",
        "[b'HELLO 0', b'HELLO 1', b'HELLO 2']\n",
    ],
    "select.md": [
        "[0, 1, 1, 2, 3, 5, 8, 13, 21, 34]\n1 True\n",
        "['five', 'four', 'one', 'three', 'two']\n",
    ],
    "time.md": ["gave up\nsaved False\nTrue\nno more ticks\n"],
    "tutorial.md": [
        "the text of a\nthe text of b\nthe text of c\n",
        "[0, 1, 4, 9, 16]\n",
        "quick\nnothing came in time\n",
        "(OSError('cannot read b'),)\ndone with ['a', 'b', 'c']\n",
        "12499997500000\nothers ran meanwhile: True\n",
        "all goroutines are asleep - deadlock! (2 goroutines)\n",
    ],
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_programs_of_a_page(script: Script, name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    programs = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert [script.passes(program) for program in programs] == OUTPUTS[name]


def test_the_tutorial_shows_what_its_programs_print() -> None:
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```text\n(.*?)^```", text, re.M | re.S)
    assert shown == OUTPUTS["tutorial.md"]


def test_the_program_of_the_index_is_that_of_the_readme() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert re.findall(r"^```python\n(.*?)^```", index, re.M | re.S) == PROGRAMS[:1]


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("chan.md", [golibx.Chan]),
        ("goroutines.md", [golibx.Goroutine]),
        ("net.md", [golibx.net.Conn, golibx.net.Listener]),
        ("time.md", [golibx.Timer, golibx.Ticker]),
    ],
)
def test_every_method_is_on_its_page(name: str, types: list[type]) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    for class_ in types:
        for method in dir(class_):
            if not method.startswith("_"):
                assert re.search(rf"[.`]{method}\b", text), f"{class_.__name__}.{method}"


@pytest.mark.parametrize("name", aio.__all__)
def test_aio_md_names_it(name: str) -> None:
    assert f"`aio.{name}(" in (ROOT / "docs" / "aio.md").read_text(encoding="utf-8").replace(
        "`await ", "`"
    )


def test_every_case_is_on_its_page() -> None:
    text = (ROOT / "docs" / "select.md").read_text(encoding="utf-8")
    classes = (golibx.Chan, golibx.Timer, golibx.Ticker, golibx.Goroutine, native.Chan)
    for class_ in (*classes, golibx.net.Conn, golibx.net.Listener):
        for method in dir(class_):
            if method.startswith("on_"):
                assert f".{method}(" in text, f"{class_.__name__}.{method}"


# ---- docs/coming-from-*.md: two programs side by side, and what both print ----

PAIR = re.compile(
    r"<td>\n\n```(\w+)\n(.*?)```\n\n</td><td>\n\n```python\n(.*?)```\n\n</td></tr>\n</table>\n\n"
    r"Both print\n\n```text\n(.*?)```",
    re.DOTALL,
)
ORIGINS = ("go", "gevent", "asyncio")
PAIRS = [
    pytest.param(origin, *pair, id=f"{origin}{number}")
    for origin in ORIGINS
    for number, pair in enumerate(
        PAIR.findall((ROOT / "docs" / f"coming-from-{origin}.md").read_text(encoding="utf-8"))
    )
]


@pytest.mark.parametrize(("origin", "language", "theirs", "ours", "printed"), PAIRS)
def test_a_pair_of_programs(
    script: Script, origin: str, language: str, theirs: str, ours: str, printed: str
) -> None:
    """Go and gevent are no requirements of the tests: without them, the program is only read."""
    assert script.passes(ours) == printed
    if language == "go":
        assert theirs.startswith("package main\n")
        go = shutil.which("go", path=os.path.dirname(sys.executable)) or shutil.which("go")
        if go is not None:
            file = script.folder / "program.go"
            file.write_text(theirs, encoding="utf-8")
            command = [go, "run", str(file)]
            result = subprocess.run(command, capture_output=True, text=True, timeout=50)
            assert (result.stdout, result.stderr) == (printed, "")
    elif origin == "gevent" and importlib.util.find_spec("gevent") is None:
        compile(theirs, origin, "exec")
    else:
        assert script.passes(theirs) == printed


@pytest.mark.parametrize("origin", ORIGINS)
def test_every_program_of_a_page_is_one_of_a_pair(origin: str) -> None:
    text = (ROOT / "docs" / f"coming-from-{origin}.md").read_text(encoding="utf-8")
    pairs = PAIR.findall(text)
    assert len(pairs) >= 6
    assert text.count("```") == 6 * len(pairs)
    assert f"docs/coming-from-{origin}.md" in README.read_text(encoding="utf-8")


NAMES_OF_GOLIBX = re.compile(r"^\| .+ \| (.+) \|$", re.MULTILINE)


@pytest.mark.parametrize("origin", ORIGINS)
def test_the_names_in_a_table_exist(origin: str) -> None:
    """What is called in the right column: `go(f, x)`, `context.with_timeout(…)`, `Chan(8)`."""
    text = (ROOT / "docs" / f"coming-from-{origin}.md").read_text(encoding="utf-8")
    called = re.findall(
        r"(?<![.\w])([a-zA-Z_]+(?:\.[a-z_]+)*)\(", " ".join(NAMES_OF_GOLIBX.findall(text))
    )
    assert len(called) > 10
    objects = {"ch": golibx.Chan, "goroutine": golibx.Goroutine, "g": golibx.Goroutine}
    objects |= {"s": Scope, "threading": threading}
    for name in called:
        first, *rest = name.split(".")
        if first == "f":
            continue
        found = objects.get(first) or getattr(golibx, first)
        for each in rest:
            found = getattr(found, each)


# ---- the reference, which mkdocs.yml has built from docstrings ----


def test_every_public_name_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference" / "golibx.md").read_text(encoding="utf-8")
    named = re.findall(r"^::: golibx\.(\w+)$", text, re.M) + re.findall(r"`(\w+)`", text)
    assert sorted(set(named)) == sorted(golibx.__all__)


def test_the_api_page_names_what_there_is() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    called = re.findall(r"^([a-zA-Z_]+(?:\.\w+)*)\(", text, re.M)
    for name in called:
        found: object = golibx
        for each in name.split("."):
            found = getattr(found, each)
    modules = {name.partition(".")[0] for name in called if "." in name}
    on_the_page = modules | {name for name in called if "." not in name}
    described = {"BrokenBarrierError", "Case", "Goroutine", "RecvChan", "SendChan", "__version__"}
    errors = {name for name in golibx.errors.__all__ if hasattr(golibx, name)}
    assert on_the_page >= set(golibx.__all__) - described - errors - {"logrecords"}


def headings_of(page: Path) -> set[str]:
    """The anchors that forges and mkdocs.yml's slugs give to the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in found}


PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    made = {page.parent / "contributing.md", page.parent / "changes.md"}  # by tools/docs_site.py
    for target in re.findall(r"(?<=\]\()(?!\w+:)([^)\s]+)(?=\))", text):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists() or file in made, target
        assert not anchor or anchor in headings_of(file), target


def test_programs_are_documented_and_have_a_test() -> None:
    """What `make test-programs` installs is named in docs/patching.md, and each program is run."""
    folder = ROOT / "tests" / "programs"
    page = (ROOT / "docs" / "patching.md").read_text(encoding="utf-8").lower()
    needed = "".join(file.read_text() for file in folder.glob("requirements*.txt"))
    names = re.findall(r"^[A-Za-z0-9-]+", needed.replace("psycopg2-binary", "psycopg2"), re.M)
    assert [name for name in names if name.lower() not in page] == []
    tests = (folder / "check_programs.py").read_text(encoding="utf-8")
    programs = [file.stem.removeprefix("with_") for file in folder.glob("with_*.py")]
    assert programs
    assert [name for name in programs if f'"{name}"' not in tests] == []
