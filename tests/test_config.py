"""golib.toml: every key, where values come from, how they are written, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from golibx.config import Config
from golibx.errors import ConfigError, GolibxError
from golibx.rules import parse_rules
from golibx.schema import SCHEMA, Key
from golibx.values import (
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

# For every key: a value as written in TOML, what it becomes, and values that are refused.
SAMPLES: dict[str, tuple[str, object, list[str]]] = {
    "program.entry": ('"pkg.mod:main"', "pkg.mod:main", ["1", "true", "[]"]),
    "program.args": ('["-v", "x"]', ("-v", "x"), ['"-v"', "[1]", "1"]),
    "program.cwd": ('"/srv"', os.path.normpath("/srv"), ["1", "[]"]),
    "runtime.gomaxprocs": ("4", 4, ["-1", "1025", '"4"', "true", "1.0"]),
    "runtime.max_threads": ("64", 64, ["0", "3", "1000001", '"64"']),
    "runtime.on_panic": ('"exit"', "exit", ['"Exit"', "2", '""']),
    "runtime.shutdown_timeout": ('"250ms"', 250_000_000, ['"1ns"', '"25h"', "5", "1.5", "false"]),
    "runtime.seed": ("7", 7, ["-1", "9223372036854775808", '"7"']),
    "runtime.switch_interval": ('"500us"', 500_000, ['"999ns"', '"2s"', "5"]),
    "runtime.offer_interval": ('"2ms"', 2_000_000, ['"99us"', '"11s"', "5"]),
    "runtime.spin": ('"0"', 0, ['"999ns"', '"2ms"', "30"]),
    "runtime.swap": ('"interpreter"', "interpreter", ['"hand"', "0", "true"]),
    "runtime.foreign": ('"move"', "move", ['"stay"', "1", "true"]),
    "runtime.foreign_movable": (
        '["numpy.random", "orjson"]',
        ("numpy.random", "orjson"),
        ['"numpy"', "[1]", "1"],
    ),
    "sysmon.sleep_min": ('"40us"', 40_000, ['"0"', '"999ns"', '"2s"', "20"]),
    "sysmon.sleep_max": ('"1s"', 1_000_000_000, ['"11s"', "10", '"10"']),
    "sysmon.idle_rounds": ("10", 10, ["0", "1000001", '"10"', "false"]),
    "preempt.async": ("false", False, ["0", '"false"', '"off"']),
    "preempt.slice": ('"1ms"', 1_000_000, ['"9us"', '"61s"', "10", '"10 parsecs"', '"-1ms"']),
    "retake.enabled": ("false", False, ["1", '"yes"']),
    "retake.threshold": ('"100us"', 100_000, ['"0.5us"', '"11s"', "20"]),
    "retake.threshold_idle": ('"5ms"', 5_000_000, ['"0s"', '"1h"', "true"]),
    "retake.reserves": ("0", 0, ["-1", "1025", '"16"', "true"]),
    "netpoll.interval": ('"1ms"', 1_000_000, ['"9us"', '"11s"', "10"]),
    "native.steal_rounds": ("1", 1, ["0", "65", '"4"', "true"]),
    "native.spinning": ("100", 100, ["0", "101", '"50"', "1.5"]),
    "netpoll.backend": ('"auto"', "auto", ['"kqeue"', '"iocp"', "1"]),
    "stack.size": ('"256KiB"', 256 << 10, ['"32KiB"', '"2GiB"', "1000", '"1MB"', "0", "true"]),
    "stack.main_size": ("1048576", 1 << 20, ['"5GiB"', '"x"', "65537"]),
    "stack.native_size": ('"64KiB"', 64 << 10, ['"8KiB"', '"128MiB"', "65537", '"96KiB"', "0"]),
    "stack.keep": ("0", 0, ['"2TiB"', "-1", "1.5"]),
    "patch.stdlib": (
        '["socket", "time"]',
        ("time", "socket"),
        ['["tine"]', '"time"', "1"],
    ),
    "patch.threads": ("false", False, ['"yes"', "1"]),
    "hooks.flush_interval": ('"2ms"', 2_000_000, ['"99us"', '"11s"', "10"]),
    "hooks.ring_size": ("1024", 1024, ["32", "1000", "33554432", '"1024"']),
    "hooks.budget": ('"3ms"', 3_000_000, ['"1us"', '"11s"', "1"]),
    "hooks.tune_interval": ('"50ms"', 50_000_000, ['"999us"', '"2h"', "100"]),
    "hooks.share": ("2", 2, ["-1", "101", "2.5", '"2%"', "true"]),
    "hooks.share_interval": ('"50ms"', 50_000_000, ['"9ms"', '"2h"', "1"]),
    "hooks.over_share": ('"disable"', "disable", ['"kill"', '""', "true"]),
    "hooks.gil_wait_min": ('"50us"', 50_000, ['"999ns"', '"11s"', "0", "1"]),
    "tune.limits": (
        '{ "preempt.slice" = { min = "1ms", max = "20ms" } }',
        {"preempt.slice": (1_000_000, 20_000_000)},
        ['"preempt.slice"', "1", "[]"],
    ),
    "tune.rules": (
        '[{ when = "runnable > 9", set = { "native.spinning" = 25 } }]',
        parse_rules([{"when": "runnable > 9", "set": {"native.spinning": 25}}], "tune.rules"),
        ['"runnable > 9"', "1", "{}"],
    ),
    "tune.confirm": ("3", 3, ["0", "1001", '"3"', "true"]),
    "tune.cooldown": ('"5s"', 5_000_000_000, ['"999us"', '"25h"', "5"]),
    "serve.app": ('"shop.web:make()"', "shop.web:make()", ["1", "[]", "true"]),
    "serve.bind": ('["[::1]:80", "unix:/x"]', ("[::1]:80", "unix:/x"), ['"a:1"', "[1]", "80"]),
    "serve.workers": ("4", 4, ["0", "1025", '"4"', "true"]),
    "serve.connections": ("500", 500, ["0", "1000001", '"500"']),
    "serve.backlog": ("64", 64, ["0", "65536", '"64"']),
    "serve.target_size": ('"1KiB"', 1024, ["63", '"2MiB"', '"1KB"', "true"]),
    "serve.headers": ("20", 20, ["0", "10001", '"20"']),
    "serve.header_size": ("4096", 4096, ["255", '"17MiB"', "1.5"]),
    "serve.header_timeout": ('"5s"', 5_000_000_000, ['"9ms"', '"2h"', "0", "5"]),
    "serve.body_size": ("0", 0, ['"2TiB"', "-1", "1.5"]),
    "serve.io_timeout": ('"20s"', 20_000_000_000, ['"9ms"', '"25h"', "0", "20"]),
    "serve.keep_alive": ('"2s"', 2_000_000_000, ['"9ms"', '"25h"', "0", "2"]),
    "serve.graceful_timeout": ('"0"', 0, ['"9ms"', '"25h"', "30"]),
    "serve.access_log": ('"-"', "-", ["1", "[]", "true"]),
    "debug.leaks": ("true", True, ["1", '"yes"']),
    "debug.dump_signal": ('"SIGUSR1"', "SIGUSR1", ['"SIGKILL"', '"usr1"', "10", '""']),
    "debug.control": ("false", False, ["0", '"false"']),
    "plugins.enabled": ('["a", "b.c:D"]', ("a", "b.c:D"), ['"a"', "[1]", "true"]),
    "plugins.autoload": ("true", True, ["1", '"all"']),
}
KEYS = {f"{table.name}.{key.name}": key for table in SCHEMA for key in table.keys}


def load(text: str, path: Path, **options: object) -> Config:
    path.write_text(text, encoding="utf-8")
    options.setdefault("environ", {})
    return Config.load(path, **options)  # type: ignore[arg-type]


def refusal(text: str, path: Path, **options: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(text, path, **options)
    return caught.value


def value_of(config: Config, key: str) -> object:
    section = getattr(config, key.partition(".")[0])
    return getattr(section, KEYS[key].attribute)


def assignment(key: str, value: str) -> str:
    table, _, name = key.partition(".")
    return f"[{table}]\n{name} = {value}\n"


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "golib.toml"


def test_every_key_has_a_sample() -> None:
    assert SAMPLES.keys() == KEYS.keys()


@pytest.mark.parametrize("key", SAMPLES)
def test_value_from_file(key: str, toml: Path) -> None:
    value, expected, _ = SAMPLES[key]
    assert value_of(load(assignment(key, value), toml), key) == expected
    assert value_of(Config.load(environ={}), key) != expected or key == "netpoll.backend"


@pytest.mark.parametrize("key", SAMPLES)
def test_value_from_environment_and_override(key: str) -> None:
    value, expected, _ = SAMPLES[key]
    text = value.strip('"')
    variable = f"GOLIB_{key.replace('.', '_').upper()}"
    assert value_of(Config.load(environ={variable: text}), key) == expected
    assert value_of(Config.load(environ={}, overrides=[f"{key}={text}"]), key) == expected


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, sample in SAMPLES.items() for value in sample[2]]
)
def test_refused_value(key: str, value: str, toml: Path) -> None:
    error = refusal(assignment(key, value), toml)
    assert error.key == key
    assert error.value is not None
    assert error.line == 2
    assert error.source == str(toml)
    assert str(error).startswith(f"{toml}:2: {key} = ")


@pytest.mark.parametrize("key", KEYS)
def test_default_and_range(key: str) -> None:
    """Defaults lie in their range, and both ends of the range are allowed."""
    limits = KEYS[key]
    value_of(Config.load(environ={}), key)
    if limits.kind in ("int", "duration", "size"):
        assert limits.low != limits.high
        for end in (limits.low, limits.high, *([0] if limits.zero else [])):
            overrides = [f"{key}={end}"]
            if key == "sysmon.sleep_min":
                overrides.append("sysmon.sleep_max=10s")
            if key in ("retake.threshold", "retake.threshold_idle"):
                overrides.append("retake.threshold_idle=10s")
                overrides.append("retake.threshold=1us")
                overrides.append(f"{key}={end}")
            if key == "sysmon.sleep_max":
                overrides.append("sysmon.sleep_min=1us")
            Config.load(environ={}, overrides=overrides)


# --- Where values come from ---------------------------------------------------------------------


def test_order_of_sources(toml: Path) -> None:
    text = '[preempt]\nslice = "1ms"\n'
    environ = {"GOLIB_PREEMPT_SLICE": "2ms"}
    overrides = ["preempt.slice=3ms", "preempt.slice=4ms"]
    assert Config.load(environ={}).preempt.slice_ns == 10_000_000
    assert load(text, toml).preempt.slice_ns == 1_000_000
    assert load(text, toml, environ=environ).preempt.slice_ns == 2_000_000
    with_all = load(text, toml, environ=environ, overrides=overrides)
    assert with_all.preempt.slice_ns == 4_000_000


def test_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLIB_PREEMPT_SLICE", "7ms")
    assert Config.load().preempt.slice_ns == 7_000_000


def test_kill_switch() -> None:
    assert Config.load(environ={"GOLIB_ASYNCPREEMPT_OFF": "1"}).preempt.async_ is False
    assert Config.load(environ={"GOLIB_ASYNCPREEMPT_OFF": "0"}).preempt.async_ is True
    both = {"GOLIB_ASYNCPREEMPT_OFF": "1", "GOLIB_PREEMPT_ASYNC": "true"}
    assert Config.load(environ=both).preempt.async_ is False
    overridden = Config.load(
        environ={"GOLIB_ASYNCPREEMPT_OFF": "1"}, overrides=["preempt.async=on"]
    )
    assert overridden.preempt.async_ is True


@pytest.mark.parametrize(("text", "expected"), [("3", 3), ("0", 0), ("", 0)])
def test_gomaxprocs(text: str, expected: int) -> None:
    assert Config.load(environ={"GOMAXPROCS": text}).runtime.gomaxprocs == expected


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("GOMAXPROCS", "abc", 'GOMAXPROCS: runtime.gomaxprocs = "abc": not an integer'),
        ("GOMAXPROCS", "-2", 'GOMAXPROCS: runtime.gomaxprocs = "-2": out of range'),
        ("GOMAXPROCS", "1025", 'GOMAXPROCS: runtime.gomaxprocs = "1025": out of range'),
        ("GOLIB_ASYNCPREEMPT_OFF", "2", 'GOLIB_ASYNCPREEMPT_OFF: "2": 1 turns preemption off'),
        ("GOLIBX_PREEMPT_SLICE", "5ms", 'GOLIBX_PREEMPT_SLICE: "5ms": no setting of golibx'),
        ("GOLIBX_PREEMPT_SLIZE", "5ms", "did you mean GOLIB_PREEMPT_SLIZE?"),
        ("GOLIBX_ASYNCPREEMPT_OFF", "1", "did you mean GOLIB_ASYNCPREEMPT_OFF?"),
        ("GOLIB_PREMEPT_SLICE", "5ms", "did you mean GOLIB_PREEMPT_SLICE?"),
        ("GOLIB_GOMAXPROCS", "2", "did you mean GOMAXPROCS?"),
    ],
)
def test_variable_that_is_not_right(variable: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.load(environ={variable: text})
    assert str(caught.value).startswith(f"{variable}: ")
    assert message in str(caught.value)


def test_golib_variable_wins_over_gomaxprocs() -> None:
    environ = {"GOMAXPROCS": "3", "GOLIB_RUNTIME_GOMAXPROCS": "2"}
    assert Config.load(environ=environ).runtime.gomaxprocs == 2


def test_misspelt_variable() -> None:
    with pytest.raises(ConfigError) as caught:
        Config.load(environ={"GOLIB_PREEMPT_SLISE": "1ms"})
    assert caught.value.nearest == "preempt.slice"
    assert str(caught.value).startswith('GOLIB_PREEMPT_SLISE: preempt.slise = "1ms": unknown key')


def test_variables_of_others_are_ignored() -> None:
    default = Config.load(environ={}).core_options()
    for environ in (
        {"GOLIB_HOME": "/opt", "GOLIB": "1", "GOLIB_": "2"},
        {"GOLIBX_ZIG_OPTIMIZE": "debug", "GOLIBX_": "x", "_GOLIBX_COMPLETE": "x"},
    ):
        assert Config.load(environ=environ).core_options() == default


def test_mapping() -> None:
    config = Config.from_mapping({"preempt": {"slice": "2ms"}, "plugins": {"x": {"a": 1}}})
    assert config.preempt.slice_ns == 2_000_000
    assert config.plugin_table("x") == {"a": 1}
    with pytest.raises(ConfigError, match=r"^preempt\.slice = 5: not a number with a unit"):
        Config.from_mapping({"preempt": {"slice": 5}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", True), ("yes", True), ("ON", True), ("0", False), ("no", False), ("Off", False)],
)
def test_boolean_words_outside_the_file(text: str, expected: bool) -> None:
    assert Config.load(environ={"GOLIB_RETAKE_ENABLED": text}).retake.enabled is expected


def test_other_boolean_words_are_refused() -> None:
    with pytest.raises(ConfigError, match="not a boolean"):
        Config.load(environ={}, overrides=["retake.enabled=maybe"])


def test_lists_outside_the_file() -> None:
    for text in ("a, b,", '["a", "b"]'):
        config = Config.load(environ={}, overrides=[f"program.args={text}"])
        assert config.program.args == ("a", "b")
    with pytest.raises(ConfigError, match="not a list of strings"):
        Config.load(environ={}, overrides=["program.args=[1]"])


@pytest.mark.parametrize("override", ["", "slice", "slice=1ms", "preempt.slice"])
def test_override_that_is_not_an_assignment(override: str) -> None:
    with pytest.raises(ConfigError, match=r"^--set: .* is not section.key=value"):
        Config.load(environ={}, overrides=[override])


def test_override_of_an_unknown_key() -> None:
    with pytest.raises(ConfigError) as caught:
        Config.load(environ={}, overrides=["premept.slice=1ms"])
    assert caught.value.nearest == "preempt.slice"
    with pytest.raises(ConfigError) as caught:
        Config.load(environ={}, overrides=["preempt.threshold=1ms"])
    assert caught.value.nearest == "retake.threshold"


# --- How values are written ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("10ms", 10_000_000),
        ("20us", 20_000),
        ("20µs", 20_000),
        ("20μs", 20_000),
        ("1.5s", 1_500_000_000),
        ("0.1s", 100_000_000),
        ("1.0000000005s", 1_000_000_001),
        ("3 m", 180_000_000_000),
        ("2h", 7_200_000_000_000),
        ("7ns", 7),
        (".5us", 500),
        ("0", 0),
        ("0s", 0),
    ],
)
def test_duration(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    "text", ["", "10", "ms", "1 0ms", "1.2.3s", "-1s", "+1s", "1e3s", "1_0s", "1d", "infs", "²s"]
)
def test_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a number with a unit"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1MiB", 1 << 20), ("64KiB", 65536), ("8 MiB", 8 << 20), ("1.5GiB", 3 << 29), ("5B", 5)],
)
def test_size(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert parse_size("4096") == 4096


@pytest.mark.parametrize("text", ["", "1MB", "MiB", "-1KiB", "1 k", "1kib"])
def test_not_a_size(text: str) -> None:
    with pytest.raises(ValueError, match="not a number with a unit"):
        parse_size(text)


def test_formatting_is_parsing_backwards() -> None:
    for text in ("10ms", "20us", "1500ms", "1s", "2h", "7ns", "0s"):
        assert format_duration(parse_duration(text)) == text
    for text in ("64KiB", "1MiB", "1536MiB", "1TiB", "5B", "0B"):
        assert format_size(parse_size(text)) == text


def test_paths_are_relative_to_where_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf").mkdir()
    monkeypatch.chdir(tmp_path)
    text = (
        '[program]\nentry = "../app/main.py"\ncwd = "run"\n'
        '[plugins]\nenabled = ["./p.py", "../q.py:Q", "name", "pkg.mod"]\n'
    )
    config = load(text, Path("conf/golib.toml"), overrides=["program.cwd=here"])
    assert config.directory == str(tmp_path / "conf")
    assert config.path == str(tmp_path / "conf" / "golib.toml")
    assert config.program.entry == str(tmp_path / "app" / "main.py")
    assert config.program.cwd == str(tmp_path / "here")
    assert config.plugins.enabled == (
        str(tmp_path / "conf" / "p.py"),
        f"{tmp_path / 'q.py'}:Q",
        "name",
        "pkg.mod",
    )


# --- What is refused ----------------------------------------------------------------------------


def test_unknown_key(toml: Path) -> None:
    error = refusal('[preempt]\nasync = true\nslize = "5ms"\n', toml)
    assert (error.key, error.value, error.line) == ("preempt.slize", "5ms", 3)
    assert error.nearest == "preempt.slice"
    assert error.allowed == "async, slice"
    assert str(error) == (
        f'{toml}:3: preempt.slize = "5ms": unknown key; did you mean preempt.slice? '
        "(allowed: async, slice)"
    )


def test_unknown_table(toml: Path) -> None:
    error = refusal("# comment\n\n[premept]\nslice = 1\n", toml)
    assert (error.key, error.nearest, error.line) == ("premept", "preempt", 3)


def test_key_outside_of_its_table(toml: Path) -> None:
    error = refusal('slice = "5ms"\n', toml)
    assert (error.key, error.nearest, error.line) == ("slice", "preempt.slice", 1)


def test_value_where_a_table_belongs(toml: Path) -> None:
    error = refusal("preempt = true\n", toml)
    assert str(error) == f"{toml}:1: preempt = true: not a table: write [preempt]"


@pytest.mark.parametrize(
    "text",
    [
        '[preempt]\n\nslice = "x"\n',
        '\n\npreempt.slice = "x"\n',
        '\n\npreempt = {slice = "x"}\n',
        '[ preempt ]\n# slice = "1ms"\n"slice" = "x"\n',
    ],
)
def test_line_of_the_error(text: str, toml: Path) -> None:
    assert refusal(text, toml).line == 3


def test_not_toml(toml: Path) -> None:
    error = refusal("[preempt]\nslice 5\n", toml)
    assert (error.source, error.line, error.column, error.key) == (str(toml), 2, 7, "")
    assert str(error).startswith(f"{toml}:2:7: not TOML: ")


def test_not_text(toml: Path) -> None:
    toml.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not TOML: not UTF-8 text, at byte 0"):
        Config.load(toml)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.load(tmp_path / "none.toml")
    assert str(caught.value) == f"{tmp_path / 'none.toml'}: can't read it: {os.strerror(2)}"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["sysmon.sleep_min=20ms"],
            '--set: sysmon.sleep_min = "20ms": more than sysmon.sleep_max, which is 10ms',
        ),
        (
            ["sysmon.sleep_max=10us"],
            '--set: sysmon.sleep_max = "10us": less than sysmon.sleep_min, which is 20us',
        ),
        (
            ["retake.threshold=1s"],
            '--set: retake.threshold = "1s": more than retake.threshold_idle, which is 10ms',
        ),
        (
            ["hooks.ring_size=1000"],
            '--set: hooks.ring_size = "1000": not a power of two (allowed: such as 1024)',
        ),
    ],
)
def test_keys_that_do_not_fit_together(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.load(environ={}, overrides=overrides)
    assert str(caught.value) == message


@pytest.mark.parametrize("key", ["stack.size", "stack.main_size"])
def test_stack_is_whole_pages(key: str) -> None:
    with pytest.raises(ConfigError, match="not a multiple of the page size"):
        Config.load(environ={}, overrides=[f"{key}=1048577"])


def test_backend_of_another_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ConfigError, match="not available on this platform"):
        Config.load(environ={}, overrides=["netpoll.backend=epoll"])
    monkeypatch.setattr(sys, "platform", "linux")
    Config.load(environ={}, overrides=["netpoll.backend=epoll"])


def test_nearest_choice() -> None:
    with pytest.raises(ConfigError) as caught:
        Config.load(environ={}, overrides=["runtime.on_panic=repot"])
    assert caught.value.nearest == "report"
    assert caught.value.allowed == '"report", "exit"'


def test_errors_are_golibx_errors() -> None:
    assert issubclass(ConfigError, GolibxError)


# --- The result ---------------------------------------------------------------------------------


def test_configuration_is_read_only() -> None:
    config = Config.load(environ={})
    for target, name in ((config, "preempt"), (config, "new"), (config.preempt, "slice_ns")):
        with pytest.raises(AttributeError, match="read-only"):
            setattr(target, name, 1)
        with pytest.raises(AttributeError, match="read-only"):
            delattr(target, name)


def test_unknown_attribute_names_the_known_ones() -> None:
    with pytest.raises(AttributeError, match="no setting 'slice'; there are: async_, slice_ns"):
        Config.load(environ={}).preempt.slice  # noqa: B018


@pytest.mark.parametrize("table", SCHEMA, ids=lambda table: table.name)
def test_sections_declare_their_attributes(table: object) -> None:
    """The types that editors and mypy see are those of the schema."""
    assert isinstance(table, type(SCHEMA[0]))
    types = {
        "bool": "bool",
        "int": "int",
        "duration": "int",
        "size": "int",
        "strings": "tuple[str, ...]",
        "plugins": "tuple[str, ...]",
        "choices": "tuple[str, ...]",
        "limits": "Mapping[str, tuple[int, int]]",
        "rules": "tuple[Rule, ...]",
    }
    declared = table.view.__annotations__
    assert declared == {key.attribute: types.get(key.kind, "str") for key in table.keys}
    assert f"{table.name}" in Config.__annotations__


def test_core_options() -> None:
    assert Config.load(environ={}).core_options() == {
        "gomaxprocs": 0,
        "max_threads": 10_000,
        "seed": 0,
        "swap": 0,
        "sysmon_sleep_min_ns": 20_000,
        "sysmon_sleep_max_ns": 10_000_000,
        "sysmon_idle_rounds": 50,
        "preempt_async": 1,
        "preempt_slice_ns": 10_000_000,
        "retake_enabled": 1,
        "retake_threshold_ns": 20_000,
        "retake_threshold_idle_ns": 10_000_000,
        "retake_reserves": 16,
        "netpoll_interval_ns": 10_000_000,
        "native_steal_rounds": 4,
        "native_spinning": 50,
        "offer_interval_ns": 0,
        "spin_ns": 30_000,
        "stack_size": 1 << 20,
        "stack_main_size": 8 << 20,
        "stack_native_size": 256 << 10,
        "stack_keep": 64 << 20,
        "hooks_flush_interval_ns": 10_000_000,
        "hooks_ring_size": 16_384,
        "hooks_gil_wait_min_ns": 1_000_000,
        "event_mask": 0,
    }
    options = Config.load(environ={}, overrides=["preempt.async=false"]).core_options()
    assert options["preempt_async"] == 0
    assert {type(value) for value in options.values()} == {int}


PLUGIN_KEYS = (
    Key("interval", "duration", "1s", "How often.", low="10ms", high="1h"),
    Key("output", "path", "", "Where to."),
    Key("verbose", "bool", False, "Whether to say more."),
)


def test_plugin_table(toml: Path) -> None:
    config = load('[plugins.trace]\ninterval = "2s"\noutput = "t.log"\n', toml)
    settings = config.plugin("trace", PLUGIN_KEYS)
    assert (settings.interval_ns, settings.verbose) == (2_000_000_000, False)
    assert settings.output == str(toml.parent / "t.log")
    assert config.plugin_table("trace") == {"interval": "2s", "output": "t.log"}
    assert config.plugin_table_names() == ["trace"]
    assert config.plugin("other", PLUGIN_KEYS).interval_ns == 1_000_000_000
    assert config.plugin_table("other") == {}
    with pytest.raises(TypeError):
        config.plugin_table("trace")["interval"] = "3s"  # type: ignore[index]


def test_plugin_table_errors_say_where(toml: Path) -> None:
    config = load('[plugins.trace]\nintervall = "2s"\n', toml)
    with pytest.raises(ConfigError) as caught:
        config.plugin("trace", PLUGIN_KEYS)
    assert str(caught.value) == (
        f'{toml}:2: plugins.trace.intervall = "2s": unknown key; '
        "did you mean plugins.trace.interval? (allowed: interval, output, verbose)"
    )
    with pytest.raises(ConfigError, match="this plugin has no settings"):
        config.plugin("trace")
    config = load('[plugins.trace]\ninterval = "2d"\n', toml)
    with pytest.raises(ConfigError, match=r":2: plugins\.trace\.interval = "):
        config.plugin("trace", PLUGIN_KEYS)
    error = config.error("plugins.trace.interval", "too often", value="2d")
    assert str(error) == f'{toml}:2: plugins.trace.interval = "2d": too often'


def test_override_of_a_plugin_table(toml: Path) -> None:
    config = load(
        '[plugins.trace]\ninterval = "2s"\n',
        toml,
        overrides=[
            "plugins.trace.interval=500ms",
            "plugins.trace.verbose=yes",
            "plugins.new.number=5",
            "plugins.new.deep.list=[1, 2]",
        ],
    )
    settings = config.plugin("trace", PLUGIN_KEYS)
    assert (settings.interval_ns, settings.verbose) == (500_000_000, True)
    assert config.plugin_table("new") == {"number": 5, "deep": {"list": [1, 2]}}
    config = load("", toml, overrides=["plugins.trace.interval=x"])
    with pytest.raises(ConfigError, match=r'^--set: plugins\.trace\.interval = "x"'):
        config.plugin("trace", PLUGIN_KEYS)


def test_value_among_the_plugin_tables(toml: Path) -> None:
    error = refusal('[plugins]\nenable = ["x"]\n', toml)
    assert error.nearest == "plugins.enabled"
    assert "a table for each plugin" in error.allowed


def test_import_stays_light() -> None:
    """What `golibx run` imports before every program."""
    package = Path(sys.modules["golibx.config"].__file__ or "").parent
    code = f"""
import sys, types
loaded = set(sys.modules)
sys.modules["golibx"] = package = types.ModuleType("golibx")  # without golibx/__init__.py
package.__path__ = [{str(package)!r}]
import golibx.config
heavy = "typing re enum inspect collections dataclasses tomli difflib pluggy click rich".split()
print(*set(heavy) & set(sys.modules) - loaded)
"""
    result = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []


# --- All mistakes at once -----------------------------------------------------------------------


def test_all_mistakes_at_once(toml: Path) -> None:
    text = (
        '[preempt]\nslice = "10"\nslize = 1\n[sysmon]\nsleep_min = "1s"\nsleep_max = "1ms"\n'
        '[hooks]\nring_size = 100\n[preemt]\nx = 1\n[runtime]\non_panic = "repot"\n'
    )
    environ = {"GOMAXPROCS": "many"}
    error = refusal(text, toml, environ=environ, overrides=["retake.enabled=maybe", "x"])
    assert [(each.key, each.line) for each in error.errors] == [
        ("preempt.slice", 2),
        ("preempt.slize", 3),
        ("preemt", 9),
        ("runtime.on_panic", 12),
        ("runtime.gomaxprocs", None),
        ("retake.enabled", None),
        ("", None),
        ("sysmon.sleep_max", 6),
        ("hooks.ring_size", 8),
    ]
    assert str(error).splitlines() == [str(each) for each in error.errors]
    assert (error.problem, error.key) == (error.errors[0].problem, "preempt.slice")
    alone = refusal('[preempt]\nslice = "10"\n', toml)
    assert alone.errors == (alone,)


def test_a_rule_about_two_keys_does_not_blame_what_is_wrong_already(toml: Path) -> None:
    error = refusal('[sysmon]\nsleep_min = "20"\nsleep_max = "10us"\n', toml)
    assert [each.key for each in error.errors] == ["sysmon.sleep_min"]


def test_all_mistakes_of_a_plugin_s_table() -> None:
    tables = {"x": {"a": "1", "b": 2, "other": 3}}
    config = Config.from_mapping({"plugins": tables}, environ={})
    with pytest.raises(ConfigError) as caught:
        config.plugin("x", [Key("a", "bool", True, "A."), Key("b", "string", "", "B.")])
    keys = [each.key for each in caught.value.errors]
    assert keys == ["plugins.x.other", "plugins.x.a", "plugins.x.b"]


def test_examine_keeps_what_is_right(toml: Path) -> None:
    toml.write_text('[preempt]\nslice = "1ms"\nasync = 3\n')
    config, (problem,) = Config.examine(toml, environ={})
    assert problem.key == "preempt.async"
    assert (config.preempt.slice_ns, config.preempt.async_) == (1_000_000, True)


# --- Files that editors and enemies make --------------------------------------------------------


def test_byte_order_mark(toml: Path) -> None:
    toml.write_bytes(b'\xef\xbb\xbf[preempt]\nslice = "1ms"\n')
    assert Config.load(toml, environ={}).preempt.slice_ns == 1_000_000


@pytest.mark.parametrize("text", ["x = " + "[" * 100_000, "x = " + "{a = " * 100_000])
def test_deep_nesting(text: str, toml: Path) -> None:
    error = refusal(text, toml)
    assert str(error).startswith(f"{toml}:") or "nested too deeply" in str(error)
    assert len(str(error)) < 1000
    override = f"plugins.x.y={text.removeprefix('x = ')}"
    config = Config.load(environ={}, overrides=[override])
    with pytest.raises(ConfigError):
        config.plugin("x", [Key("y", "bool", True, "Y.")])


def test_a_deep_value_is_shown_in_short(toml: Path) -> None:
    error = refusal("[preempt]\nslice = " + "[" * 50 + "]" * 50 + "\n", toml)
    assert "preempt.slice = [[[[…]]]]: not a number with a unit" in str(error)


def test_control_characters_in_a_message(toml: Path) -> None:
    error = refusal('[preempt]\nslice = "\\u001b[31m\\n"\n', toml)
    assert 'preempt.slice = "\\u001b[31m\\u000a": ' in str(error)


def test_a_path_that_no_file_can_have() -> None:
    with pytest.raises(ConfigError, match="can't read it: embedded null byte"):
        Config.load("golib\0.toml", environ={})


# --- What a configuration says of itself --------------------------------------------------------


def test_settings(toml: Path) -> None:
    toml.write_text('[preempt]\nslice = "1ms"\n[stack]\nsize = 65536\n[plugins.x]\ny = [1, "a"]\n')
    config = Config.load(
        toml,
        environ={"GOLIB_RETAKE_ENABLED": "off", "GOMAXPROCS": "2"},
        overrides=["debug.leaks=yes", "plugins.x.z=1"],
    )
    settings = {each.path: (each.value, each.origin) for each in config.settings()}
    assert settings.keys() >= KEYS.keys()
    for path, expected in {
        "preempt.slice": ('"1ms"', f"file {toml}:2"),
        "preempt.async": ("true", "default"),
        "stack.size": ('"64KiB"', f"file {toml}:4"),
        "retake.enabled": ("false", "environment GOLIB_RETAKE_ENABLED"),
        "runtime.gomaxprocs": ("2", "environment GOMAXPROCS"),
        "debug.leaks": ("true", "command line --set"),
        "plugins.x.y": ('[1, "a"]', f"file {toml}:6"),
        "plugins.x.z": ("1", "command line --set"),
    }.items():
        assert settings[path] == expected
    again = Config.load(environ={}, overrides=[f"{p}={v}" for p, (v, _) in settings.items()])
    assert {each.path: each.value for each in again.settings()} == {
        path: value for path, (value, _) in settings.items()
    }
    config = Config.from_mapping({"preempt": {"slice": "1ms"}}, environ={})
    assert next(s.origin for s in config.settings() if s.path == "preempt.slice") == "argument"


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("integer", {}, "'integer' is not a kind .allowed: bool, int, duration"),
        ("int", {}, "int needs a range"),
        ("choice", {}, "choice needs choices="),
    ],
)
def test_key_that_is_not_right(kind: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Key("x", kind, 0, "X.", **options)  # type: ignore[arg-type]
