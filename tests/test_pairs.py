"""Lists that are kept in two places say the same: in Zig and in Python, in code and in documents.

test_docs.py compares settings, hooks, commands and counters with their documents.
"""

from __future__ import annotations

import ctypes
import inspect
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

import conftest
import pytest_golibx
from golibx import _core, dump, hookspec, include, testing, tuning
from golibx.config import Config
from golibx.eventbatch import _OUTCOMES, _WITH_OBJECT, EVENT_HOOKS, LANES, EventBatch
from golibx.pluginmanager import PluginManager
from golibx.rules import KEYS

ROOT = Path(__file__).resolve().parent.parent
ZSRC = ROOT / "zsrc"
HEADER = (ZSRC / "golibx.h").read_text(encoding="utf-8")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def text_of(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def zig_fields(path: str, head: str) -> list[str]:
    """The members of an enum or struct of Zig's, `pub const NAME = HEAD {`, in order."""
    source = re.sub(r"//.*", "", text_of(path))
    (body,) = re.findall(rf"^( *)pub const {re.escape(head)} \{{(.*?)^\1\}}", source, re.M | re.S)
    members = re.split(r"^ *pub ", body[1], flags=re.M)[0]
    return re.findall(r"(?:^|[,{])\s*(\w+)(?: = [^,]*|: [^,]*)?(?=,|\s*$)", members, re.M)


def c_fields(name: str) -> list[str]:
    """The members of a struct in golibx.h, in order."""
    (body,) = re.findall(rf"^typedef struct {name} \{{\n(.*?)^\}} {name};", HEADER, re.M | re.S)
    return re.findall(r"(\w+);", re.sub(r"/\*.*?\*/", "", body, flags=re.S))


# ---- events ----


def test_kinds_of_events() -> None:
    """Their order is their number, in the library, the plugin manager and the hooks."""
    kinds = [f"on_{kind}" for kind in zig_fields("zsrc/event/event.zig", "Kind = enum(u8)")]
    assert kinds == [name for name, _ in EVENT_HOOKS]
    assert kinds == [name for name in PluginManager.hook_names() if name.startswith("on_")]


def test_kinds_of_events_with_an_object() -> None:
    source = text_of("zsrc/python/run/events.zig")
    (body,) = re.findall(r"^fn hasObject\(.*?\{(.*?)^\}", source, re.M | re.S)
    kinds = {f"on_{kind}" for kind in re.findall(r"\.(\w+)", body)}
    assert kinds == {EVENT_HOOKS[kind][0] for kind in _WITH_OBJECT}


def test_records_of_events() -> None:
    fields = zig_fields("zsrc/event/event.zig", "Event = extern struct")
    assert fields == ["time", "goroutine", "a", "b", "kind", "origin", "unused"]
    assert EventBatch.RECORD.size == 32


def test_lanes() -> None:
    (body,) = re.findall(
        r"^pub const Origin = enum\(u8\) \{ (.+) \};", text_of("zsrc/event/event.zig"), re.M
    )
    assert tuple(body.split(", ")) == LANES


def test_outcomes_of_goroutines() -> None:
    (body,) = re.findall(
        r"^pub const Outcome = enum\(u8\) \{ none, (.+) \};",
        text_of("zsrc/python/host/goroutine.zig"),
        re.M,
    )
    assert tuple(body.split(", ")) == _OUTCOMES


def test_what_the_native_lane_records_is_documented() -> None:
    source = text_of("zsrc/parallel/events.zig")
    (body,) = re.findall(r"for \(\[_\]Kind\{(.*?)\}\) \|kind\|", source, re.S)
    recorded = set(re.findall(r"\.(\w+)", body))
    table = text_of("docs/plugins.md").partition("| event | Python lane | native lane |")[2]
    rows = re.findall(r"^\| (.+?) \| .+? \| (yes|no)", table.partition("\n\n")[0], re.M)
    documented = {name: answer for names, answer in rows for name in names.split(", ")}
    short = {kind: kind.removeprefix("goroutine_") for kind, _ in EVENT_HOOKS_KINDS}
    assert set(documented) == set(short.values())
    assert {kind for kind, name in short.items() if documented[name] == "yes"} == recorded


EVENT_HOOKS_KINDS = [(name.removeprefix("on_"), make) for name, make in EVENT_HOOKS]


def test_events_are_public() -> None:
    for name, _ in EVENT_HOOKS:
        hook = getattr(hookspec, name)
        assert hook.__annotations__["event"] in hookspec.__all__


def test_wait_reasons_are_documented() -> None:
    source = text_of("zsrc/core/wait.zig")
    (body,) = re.findall(r"pub fn text\(r: WaitReason\).*?\{(.*?)\n    \}", source, re.S)
    texts = [text for text in re.findall(r'=> "(.*?)"', body) if text]
    page = text_of("docs/debugging.md").partition("### What a goroutine waits for")[2]
    column = re.findall(r"^\| (`.*?`) \| ", page.partition("\n### ")[0], re.M)
    assert sorted(re.findall(r"`(.*?)`", " ".join(column))) == sorted(texts)


def test_what_may_change_is_the_same_for_the_core_and_for_rules() -> None:
    """zsrc/core/tunables.zig has those of golibx/schema.py; one more is Python's business."""
    assert {*KEYS} == {*_core.tunables(), "runtime.gomaxprocs"}


def test_the_bit_of_latencies() -> None:
    source = text_of("zsrc/event/event.zig")
    (shift,) = re.findall(r"^pub const latency_bit: u32 = 1 << (\d+);", source, re.M)
    assert 1 << int(shift) == tuning.LATENCY_BIT
    assert len(EVENT_HOOKS) <= int(shift)


def test_the_protocol_of_requests() -> None:
    source = text_of("zsrc/python/run/requests.zig")
    (most,) = re.findall(r"^const most_asked = (\d+);", source, re.M)
    (greeting,) = re.findall(r'^const greeting = "(.+)";', source, re.M)
    assert int(most) == dump._MOST_ASKED
    assert greeting in text_of("golibx/dump.py")
    page = text_of("docs/tuning.md")
    assert f"at most {most} bytes" in page
    assert f"`{greeting}VERB`" in page
    for verb in ("dump", "stats", "tune"):
        assert f"`{verb}" in page.partition("A request is one line")[2]


# ---- options ----


def test_options_of_the_core_are_known_to_it() -> None:
    """What a configuration hands over is the name of a field, or is asked for by its name."""
    sources = "".join(path.read_text(encoding="utf-8") for path in sorted(ZSRC.glob("**/*.zig")))
    for name in Config.load(environ={}).core_options():
        assert re.search(rf'^ *{name}: |"{name}"', sources, re.M), name


def test_options_of_a_test() -> None:
    """Those of golibx.testing.run and of the mark `goroutine`."""
    parameters = inspect.signature(testing.run).parameters.values()
    names = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - {"config"}
    assert set(pytest_golibx._OPTIONS) == names
    (shown,) = re.findall(r"\(enabled=True, \*, (.+), \*\*config\)", pytest_golibx._MARK)
    assert {option.partition("=")[0] for option in shown.split(", ")} == names


# ---- golibx.h ----


def test_functions_of_the_header_are_exported() -> None:
    code = re.sub(r"/\*.*?\*/", "", HEADER, flags=re.S)
    declared = re.findall(r"^[\w* ]+?\b(golibx_\w+)\(", code, re.M)
    library = ctypes.CDLL(include.library())
    assert [name for name in declared if not hasattr(library, name)] == []
    exported = re.findall(r"^    \.(golibx_\w+) = &", text_of("zsrc/capi/capi.zig"), re.M)
    assert sorted(declared) == sorted(exported)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("golibx_config", "Config = extern struct"),
        ("golibx_counters", "Counters = extern struct"),
    ],
)
def test_structs_of_the_header(name: str, head: str) -> None:
    fields = c_fields(name)
    assert len(fields) > 10
    assert fields == zig_fields("zsrc/capi/capi.zig", head)
    if name == "golibx_config":
        (initial,) = re.findall(r"#define GOLIBX_CONFIG_INIT \{ (.+) \}", HEADER)
        assert len(initial.split(", ")) == len(fields)


def test_error_codes_of_the_header() -> None:
    declared = re.findall(r"^    GOLIBX_([A-Z_]+) = (-?\d+)", HEADER, re.M)
    source = text_of("zsrc/capi/capi.zig")
    (body,) = re.findall(r"^pub const Code = enum\(c_int\) \{(.*?)^\};", source, re.M | re.S)
    codes = re.findall(r"(\w+) = (-?\d+)", body)
    assert [(name.lower(), number) for name, number in declared] == codes
    strerror = ctypes.CDLL(include.library()).golibx_strerror
    strerror.restype = ctypes.c_char_p
    texts = [strerror(int(number)) for _, number in codes]
    assert len(set(texts)) == len(texts)
    assert strerror(-1000) not in texts


# ---- the build ----


def test_targets() -> None:
    (body,) = re.findall(r"^const targets = .*?\{(.*?)^\};", text_of("build.zig"), re.M | re.S)
    assert re.findall(r'"(.*?)"', body) == re.findall(
        r'^        Target\("(.*?)",', text_of("hatch_build.py"), re.M
    )


def test_versions_of_python() -> None:
    (body,) = re.findall(r"^VERSIONS = \((.+)\)$", text_of("tools/run_tests.py"), re.M)
    versions = re.findall(r'"(.+?)"', body)
    name = "Programming Language :: Python :: "
    classifiers = [c.removeprefix(name) for c in PROJECT["project"]["classifiers"]]
    assert versions == [c for c in classifiers if re.fullmatch(r"3\.\d+", c)]
    assert PROJECT["project"]["requires-python"] == f">={versions[0]}"
    source = text_of("zsrc/python/host/swap_find.zig")
    (last,) = re.findall(r"^const last_minor = (\d+);", source, re.M)
    assert versions[-1] == f"3.{last}"
    readme = text_of("README.md")
    assert f"CPython {versions[0]} to {versions[-1]}" in readme


@pytest.mark.parametrize(
    ("name", "lists"),
    [
        ("ziglang", ("build-system", "test")),
        ("ruff", ("lint", "docs")),
        ("hatchling", ("build-system", "wheels")),
        ("hatchling", ("test", "wheels")),
        ("lief", ("test", "wheels")),
        ("abi3info", ("test", "wheels")),
    ],
)
def test_what_two_lists_require(name: str, lists: tuple[str, str]) -> None:
    extras = {"build-system": PROJECT["build-system"]["requires"]}
    extras |= PROJECT["project"]["optional-dependencies"]
    found = [[each for each in extras[key] if re.match(rf"{name}\b", each)] for key in lists]
    assert found[0] == found[1] != []


def test_what_is_tracked_goes_into_the_sdist() -> None:
    listing = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode != 0:
        pytest.skip("not a git repository")
    tracked = {"/" + name.partition("/")[0] for name in listing.stdout.splitlines()}
    included = set(PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"])
    by_itself = {"/.gitignore", "/LICENSE", "/README.md", "/pyproject.toml"}
    assert tracked == included | by_itself


def test_every_model_is_explored() -> None:
    models = ZSRC / "check" / "models"
    reached = {"all.zig"}
    new = list(reached)
    while new:
        for name in re.findall(r'@import\("(\w+\.zig)"\)', (models / new.pop()).read_text("utf-8")):
            if name not in reached:
                reached.add(name)
                new.append(name)
    assert {path.name for path in models.glob("*.zig")} == reached


# ---- the tests ----


@pytest.mark.parametrize("names", [conftest.LOOK_AT_ALL_OBJECTS, conftest.OF_ANY_PYTHON])
def test_files_with_a_part_of_their_own_are_there(names: tuple[str, ...]) -> None:
    for name in names:
        assert (ROOT / "tests" / name).exists()


def test_the_stub_has_what_the_package_gives() -> None:
    """stubtest compares the stub and the library: `make lint`."""
    stub = re.findall(r"^(?:def|class) (\w+)", text_of("golibx/_core.pyi"), re.M)
    assert {name for name in dir(_core) if not name.startswith("_")} <= {*stub}
