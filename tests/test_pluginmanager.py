"""Finding plugins, calling their hooks, and keeping what they do wrong away from the rest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from golibx.config import Config
from golibx.errors import ConfigError
from golibx.eventbatch import EVENT_HOOKS
from golibx.pluginfinder import builtin_names, find, installed_names
from golibx.pluginmanager import PluginManager

HEADER = "from golibx.hookspec import hookimpl\ncalls = []\n"
START = (1, 1, 2, 1, 0, 0)
EXIT = (4, 2, 2, 1, 0, 0)
RUNTIME: Any = object()


def manager(*references: str, **tables: dict[str, object]) -> PluginManager:
    plugins: dict[str, object] = {"enabled": list(references), **tables}
    return PluginManager(Config.from_mapping({"plugins": plugins}, environ={}))


def refusal(*references: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        manager(*references)
    assert caught.value.key == "plugins.enabled"
    return caught.value


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, on sys.path; modules that a test imports are forgotten after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + body, encoding="utf-8")
    return path


ON_START = "@hookimpl\ndef on_goroutine_start(event): calls.append(event)\n"
CLASS = "class {}:\n    @hookimpl\n    def on_goroutine_exit(self, event): calls.append(event)\n"


def install(folder: Path, name: str, value: str) -> None:
    """What an installed package with an entry point of group golibx looks like."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[golibx]\n{name} = {value}\n")


# --- Where plugins are found --------------------------------------------------------------------


def test_builtin() -> None:
    (plugin,) = manager("schedtrace").plugins
    assert (plugin.name, plugin.origin) == ("schedtrace", "built-in")
    assert builtin_names() == [
        "chaos",
        "dashboard",
        "metrics",
        "otel",
        "profile",
        "schedtrace",
        "trace",
        "tuner",
        "watchdog",
    ]


def test_module(folder: Path) -> None:
    write(folder / "package" / "tracer.py", ON_START)
    plugins = manager("package.tracer")
    (plugin,) = plugins.plugins
    assert (plugin.name, plugin.origin) == ("tracer", "module package.tracer")
    plugins.dispatch([START])
    assert len(sys.modules["package.tracer"].calls) == 1


def test_top_level_module(folder: Path) -> None:
    write(folder / "some_tracer.py", ON_START)
    (plugin,) = manager("some_tracer").plugins
    assert plugin.origin == "module some_tracer"


def test_object_of_a_module(folder: Path) -> None:
    write(folder / "some_tracer.py", CLASS.format("Tracer"))
    (plugin,) = manager("some_tracer:Tracer").plugins
    assert plugin.name == "Tracer"
    assert type(plugin.object).__name__ == "Tracer"  # the class was instantiated


def test_file(folder: Path) -> None:
    path = write(folder / "sub" / "my-tracer.py", ON_START)
    (plugin,) = manager("./sub/my-tracer.py").plugins
    assert (plugin.name, plugin.origin) == ("my-tracer", str(path))


def test_object_of_a_file(folder: Path) -> None:
    write(folder / "tracer.py", CLASS.format("Tracer"))
    (plugin,) = manager("./tracer.py:Tracer").plugins
    assert plugin.name == "Tracer"


def test_file_is_relative_to_the_configuration(folder: Path) -> None:
    write(folder / "conf" / "tracer.py", ON_START)
    (folder / "conf" / "golib.toml").write_text('[plugins]\nenabled = ["./tracer.py"]\n')
    plugins = PluginManager(Config.load("conf/golib.toml", environ={}))
    assert [plugin.name for plugin in plugins.plugins] == ["tracer"]


def test_module_offers_its_class_plugin(folder: Path) -> None:
    write(folder / "tracer.py", ON_START + CLASS.format("Plugin"))
    plugins = manager("./tracer.py")
    assert plugins.hooks_of(plugins.plugins[0]) == ["on_goroutine_exit"]


def test_file_plugin_can_look_its_module_up(folder: Path) -> None:
    body = ON_START + "import sys\nfound = sys.modules[__name__].calls\n"
    write(folder / "tracer.py", body)
    (plugin,) = manager("./tracer.py").plugins
    assert plugin.object.found is plugin.object.calls


def test_entry_point(folder: Path) -> None:
    write(folder / "other_package.py", ON_START)
    install(folder, "tracer", "other_package")
    (plugin,) = manager("tracer").plugins
    assert (plugin.name, plugin.origin) == ("tracer", "installed")
    assert installed_names() == ["tracer"]


def test_autoload(folder: Path) -> None:
    write(folder / "other_package.py", CLASS.format("One") + CLASS.format("Two"))
    install(folder, "one", "other_package:One")
    install(folder, "two", "other_package:Two")
    config = {"plugins": {"autoload": True, "enabled": ["two"]}}
    plugins = PluginManager(Config.from_mapping(config, environ={}))
    assert [plugin.name for plugin in plugins.plugins] == ["two", "one"]


# --- What is refused ----------------------------------------------------------------------------


def test_unknown_name() -> None:
    error = refusal("schedtrce")
    assert (error.value, error.nearest) == ("schedtrce", "schedtrace")
    assert "no built-in plugin, no installed one" in str(error)


def test_missing_file_module_and_object(folder: Path) -> None:
    write(folder / "tracer.py", ON_START)
    assert "there is no such file" in str(refusal("./none.py"))
    assert "there is no module no_package.tracer" in str(refusal("no_package.tracer:X"))
    assert "there is no Tracer in it" in str(refusal("tracer:Tracer"))
    assert "there is no Tracer in it" in str(refusal("./tracer.py:Tracer"))
    assert "no module of this name" in str(refusal("tracer.more"))


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def (\n", "SyntaxError: "),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("import golibx\nraise golibx.Cancelled\n", "Cancelled"),
        ("raise GeneratorExit\n", "GeneratorExit"),
        ("class Plugin:\n    def __init__(self): raise OSError('no')\n", "OSError: no"),
    ],
)
@pytest.mark.parametrize("reference", ["./broken.py", "broken"])
def test_plugin_that_fails_to_load(folder: Path, reference: str, body: str, problem: str) -> None:
    write(folder / "broken.py", body)
    error = refusal(reference)
    assert f"can't be loaded: {problem}" in str(error)
    assert error.__cause__ is not None
    assert "golibx_plugin_broken" not in sys.modules or "Plugin" in body


def test_unknown_hook(folder: Path) -> None:
    write(folder / "tracer.py", "@hookimpl\ndef on_goroutine_strat(event): pass\n")
    error = refusal("./tracer.py")
    assert error.problem == "implements on_goroutine_strat, which is not a hook"
    assert error.nearest == "on_goroutine_start"


def test_unknown_argument(folder: Path) -> None:
    write(folder / "tracer.py", "@hookimpl\ndef on_retake(evnt): pass\n")
    assert "evnt" in str(refusal("./tracer.py"))


def test_no_hooks(folder: Path) -> None:
    write(folder / "tracer.py", "def on_retake(event): pass\n")
    assert "has no hooks: functions marked with @hookimpl" in str(refusal("./tracer.py"))


def test_hook_wrapper(folder: Path) -> None:
    write(folder / "tracer.py", "@hookimpl(wrapper=True)\ndef on_retake(event): yield\n")
    assert "wraps on_retake" in str(refusal("./tracer.py"))


@pytest.mark.parametrize(
    "references",
    [
        ("schedtrace", "schedtrace"),
        ("schedtrace", "golibx.plugins.schedtrace"),
        ("schedtrace", "golibx.plugins.schedtrace:Plugin"),
        ("traced", "schedtrace"),
        ("./mine.py", "mine"),
        ("mine", "./mine.py"),
        ("./mine.py", "./elsewhere/../mine.py", "./link.py"),
        ("./mine.py:Tracer", "mine:Tracer"),
        ("mine:thing", "mine:same_thing"),
    ],
)
def test_one_plugin_by_two_names_is_loaded_once(
    folder: Path, references: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(folder, "traced", "golibx.plugins.schedtrace")
    body = "import loads\nloads.count += 1\n" + CLASS.format("Tracer")
    write(folder / "mine.py", body + "thing = same_thing = Tracer()\n" + ON_START)
    (folder / "elsewhere").mkdir()
    (folder / "link.py").symlink_to(folder / "mine.py")
    (folder / "loads.py").write_text("count = 0\n")
    (plugin,) = manager(*references).plugins
    first = references[0]
    assert plugin.name == first.rpartition(":")[2].removeprefix("./").removesuffix(".py")
    if "mine" in first:
        assert sys.modules["loads"].count == 1


def test_two_plugins_of_one_name(folder: Path) -> None:
    write(folder / "schedtrace.py", ON_START)
    problem = "there is already another plugin named schedtrace"
    assert problem in str(refusal("schedtrace", "./schedtrace.py"))


def test_a_plugin_is_told_the_name_it_was_enabled_under(folder: Path) -> None:
    install(folder, "alias", "mine")
    body = "@hookimpl\ndef golib_configure(name, config): calls.append(config.plugin_table(name))\n"
    write(folder / "mine.py", body)
    for reference, name in (("alias", "alias"), ("mine", "mine")):
        manager(reference, **{name: {"x": 1}}).configure(RUNTIME)
        assert sys.modules["mine"].calls.pop() == {"x": 1}
    install(folder, "traced", "golibx.plugins.schedtrace")
    with pytest.raises(ConfigError, match=r"plugins\.traced\.interval = 5"):
        manager("traced", traced={"interval": 5}).configure(RUNTIME)


def test_all_that_is_wrong_with_plugins_is_said_at_once(folder: Path) -> None:
    write(folder / "broken.py", "1 / 0\n")
    error = refusal("schedtrce", "./broken.py", "./none.py", "schedtrace")
    assert [each.value for each in error.errors] == [
        "schedtrce",
        str(folder / "broken.py"),
        str(folder / "none.py"),
    ]
    assert isinstance(error.errors[1].__cause__, ZeroDivisionError)
    body = "@hookimpl\ndef golib_configure(config, name): config.plugin(name)\n"
    for name in ("one", "two"):
        write(folder / f"{name}.py", body)
    plugins = manager("./one.py", "./two.py", one={"x": 1}, two={"y": 2, "z": 3})
    with pytest.raises(ConfigError) as caught:
        plugins.configure(RUNTIME)
    keys = [each.key for each in caught.value.errors]
    assert keys == ["plugins.one.x", "plugins.two.y", "plugins.two.z"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("pass", "has an async function for golib_stop, which nothing would await"),
        ("yield", "has an async generator for golib_stop, which nothing would go through"),
    ],
)
def test_async_hook(folder: Path, body: str, problem: str) -> None:
    write(folder / "tracer.py", f"@hookimpl\nasync def golib_stop(): {body}\n")
    error = str(refusal("./tracer.py"))
    assert f"{problem}: write a plain one, which may call golibx.aio.run()" in error
    assert "golibx.aio.run()" in error


def test_hook_that_is_a_generator(folder: Path) -> None:
    write(folder / "tracer.py", "@hookimpl\ndef golib_stop(): yield\n")
    assert "has a generator for golib_stop, of which nothing" in str(refusal("./tracer.py"))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("async def stop(): pass", " coroutine"),
        ("async def stop(): yield", "n async generator"),
        ("def stop(): yield", " generator"),
    ],
)
def test_hook_that_returns_what_nothing_runs(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, what: str
) -> None:
    write(folder / "tracer.py", f"{text}\n@hookimpl\ndef golib_stop(): return stop()\n")
    manager("./tracer.py").stop(RUNTIME)
    assert f"TypeError: it returned a{what}" in capsys.readouterr().err


# --- What can be told without running any of it -------------------------------------------------


def test_find_runs_nothing(folder: Path) -> None:
    for name in ("mine.py", "package/__init__.py", "package/tracer.py"):
        write(folder / name, "raise SystemExit('run')\n")
    install(folder, "offered", "mine")
    config = Config.from_mapping({}, environ={})
    for reference, name, origin in (
        ("schedtrace", "schedtrace", "built-in"),
        ("offered", "offered", "installed"),
        ("./mine.py", "mine", "./mine.py"),
        ("./mine.py:Tracer", "Tracer", "./mine.py"),
        ("mine", "mine", "module mine"),
        ("package.tracer", "tracer", "module package.tracer"),
        ("package.tracer:Tracer", "Tracer", "module package.tracer"),
        ("sys", "sys", "module sys"),
    ):
        assert find(reference, config) == (name, origin)
    for reference in ("none", "package.none", "none.tracer", "mine.tracer", "none:x", "./none.py"):
        with pytest.raises(ConfigError, match="there is no "):
            find(reference, config)
    assert not {"mine", "package"} & sys.modules.keys()


# --- Calling hooks ------------------------------------------------------------------------------


def test_event_mask(folder: Path) -> None:
    assert manager().event_mask == 0
    write(folder / "none.py", "@hookimpl\ndef golib_stop(): pass\n")
    assert manager("./none.py").event_mask == 0
    for kind, (name, _) in enumerate(EVENT_HOOKS):
        write(folder / f"one{kind}.py", f"@hookimpl\ndef {name}(event): pass\n")
        assert manager(f"./one{kind}.py").event_mask == 1 << kind
    write(folder / "two.py", ON_START)
    assert manager("./one4.py", "./two.py").event_mask == 0b10010


def test_order_of_calls(folder: Path) -> None:
    body = "@hookimpl{}\ndef golib_stop(): import order; order.names.append({!r})\n"
    (folder / "order.py").write_text("names = []\n")
    for name, option in (("a", ""), ("b", ""), ("c", "(trylast=True)"), ("d", "(tryfirst=True)")):
        write(folder / f"{name}.py", body.format(option, name))
    manager("./c.py", "./a.py", "./b.py", "./d.py").stop(RUNTIME)
    assert sys.modules["order"].names == ["d", "a", "b", "c"]


def test_failing_plugin_is_reported_once_and_disabled(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = ON_START.replace("calls.append(event)", "calls.append(event); 1 / 0")
    body += "@hookimpl\ndef golib_stop(): calls.append('stop')\n"
    write(folder / "bad.py", body)
    write(folder / "good.py", ON_START)
    plugins = manager("./bad.py", "./good.py")
    plugins.dispatch([START, START, EXIT])
    plugins.stop(RUNTIME)
    assert len(sys.modules["golibx_plugin_bad"].calls) == 1
    assert len(sys.modules["golibx_plugin_good"].calls) == 2
    assert [plugin.name for plugin in plugins.plugins] == ["good"]
    report = capsys.readouterr().err
    first, *traceback = report.splitlines()
    assert first == "golibx: plugin bad raised in on_goroutine_start and is disabled:"
    assert traceback[-1] == "ZeroDivisionError: division by zero"
    assert report.count("Traceback") == 1
    assert "pluginmanager.py" not in report


def test_disabling_a_plugin_changes_the_event_mask(folder: Path) -> None:
    write(folder / "bad.py", ON_START.replace("calls.append(event)", "1 / 0"))
    plugins = manager("./bad.py")
    assert plugins.event_mask == 1 << START[0]
    plugins.dispatch([START])
    assert plugins.event_mask == 0


def test_sys_exit_in_a_hook_is_a_failure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "bad.py", "@hookimpl\ndef golib_start(): raise SystemExit(3)\n")
    plugins = manager("./bad.py")
    plugins.start(RUNTIME)
    assert plugins.plugins == []
    assert "raised in golib_start" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["Cancelled", "KeyboardInterrupt", "GeneratorExit", "Mine"])
def test_whatever_a_hook_raises_is_its_own_failure(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    header = "from golibx.errors import Cancelled\nclass Mine(BaseException): pass\n"
    for hook in ("golib_start", "golib_stop", "on_goroutine_start"):
        argument = "event" if hook.startswith("on") else ""
        write(folder / "bad.py", f"{header}@hookimpl\ndef {hook}({argument}): raise {name}\n")
        write(folder / "good.py", f"@hookimpl\ndef {hook}({argument}): calls.append(1)\n")
        plugins = manager("./bad.py", "./good.py")
        plugins.start(RUNTIME)
        plugins.dispatch([START, START])
        plugins.stop(RUNTIME)
        assert [plugin.name for plugin in plugins.plugins] == ["good"]
        assert sys.modules["golibx_plugin_good"].calls
        report = capsys.readouterr().err
        assert report.count(f"plugin bad raised in {hook} and is disabled") == 1


def test_interrupt_in_a_hook_is_not_its_failure(folder: Path) -> None:
    """What the user raises into it; the other plugins get to stop all the same."""
    write(folder / "slow.py", "@hookimpl\ndef golib_start(): raise KeyboardInterrupt\n")
    write(folder / "slow2.py", "@hookimpl\ndef golib_stop(): raise KeyboardInterrupt\n")
    write(folder / "good.py", "@hookimpl\ndef golib_stop(): calls.append(1)\n")
    references = ["./slow.py", "./slow2.py", "./good.py"]
    config = Config.from_mapping({"plugins": {"enabled": references}}, environ={})
    presses = iter(range(100))
    plugins = PluginManager(config, lambda: next(presses))
    with pytest.raises(KeyboardInterrupt):
        plugins.start(RUNTIME)
    with pytest.raises(KeyboardInterrupt):
        plugins.stop(RUNTIME)
    assert sys.modules["golibx_plugin_good"].calls == [1]
    assert len(plugins.plugins) == 3


def test_config_error_ends_the_run_in_configure_only(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = "from golibx.errors import ConfigError\n@hookimpl\ndef {}(): raise ConfigError('no')\n"
    write(folder / "one.py", body.format("golib_configure"))
    with pytest.raises(ConfigError, match=r"^no$"):
        manager("./one.py").configure(RUNTIME)
    write(folder / "two.py", body.format("golib_start"))
    manager("./two.py").start(RUNTIME)
    assert "plugin two raised in golib_start" in capsys.readouterr().err


def test_plugin_gets_its_own_table(folder: Path) -> None:
    body = (
        "from golibx.config import Key\n"
        "@hookimpl\n"
        "def golib_configure(config):\n"
        "    calls.append(config.plugin('tracer', [Key('depth', 'int', 3, '', low=1, high=9)]))\n"
    )
    write(folder / "tracer.py", body)
    manager("./tracer.py", tracer={"depth": 5}).configure(RUNTIME)
    (settings,) = sys.modules["golibx_plugin_tracer"].calls
    assert settings.depth == 5
    with pytest.raises(ConfigError, match=r"plugins\.tracer\.depth = 10: out of range"):
        manager("./tracer.py", tracer={"depth": 10}).configure(RUNTIME)


def test_budget(folder: Path) -> None:
    write(folder / "tracer.py", ON_START)
    pauses: list[int] = []
    plugins = manager("./tracer.py")
    calls = sys.modules["golibx_plugin_tracer"].calls
    plugins.dispatch([START] * 3, budget_ns=0, pause=lambda: pauses.append(len(calls)))
    assert pauses == [1, 2, 3]
    plugins.dispatch([START] * 3, budget_ns=60_000_000_000, pause=lambda: pauses.append(0))
    assert pauses == [1, 2, 3]


# --- In a run -----------------------------------------------------------------------------------


def run(folder: Path, program: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(program)
    command = [sys.executable, "-m", "golibx", "run", *options, "program.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(("budget", "is_between"), [("10us", True), ("10s", False)])
def test_hooks_of_a_batch_let_others_run(tmp_path: Path, budget: str, is_between: bool) -> None:
    """After `[hooks] budget`: each hook takes longer than the shorter one."""
    body = """
import time
@hookimpl
def on_goroutine_exit():
    calls.append(turns[0])
    until = time.monotonic_ns() + 50_000
    while time.monotonic_ns() < until: pass
turns = [0]
"""
    write(tmp_path / "slow.py", body)
    program = """
import sys, golibx
for _ in range(20): golibx.go(int)
while "golibx_plugin_slow" not in sys.modules: pass
slow = sys.modules["golibx_plugin_slow"]
while len(slow.calls) < 20:
    golibx.gosched()
    slow.turns[0] += 1
print(len({*slow.calls}) == 20, len({*slow.calls}) == 1)
"""
    options = ("plugins.enabled=./slow.py", f"hooks.budget={budget}", "preempt.async=false")
    result = run(tmp_path, program, *(part for o in options for part in ("--set", o)))
    assert (result.stdout, result.stderr) == (f"{is_between} {not is_between}\n", "")


FULL_PLUGIN = """
@hookimpl
def golib_configure(config, runtime): print("configure", runtime.config is config)
@hookimpl
def golib_start(runtime): print("start", runtime.stats()["goroutines"] >= 1)
@hookimpl
def on_goroutine_start(event): calls.append(event)
@hookimpl
def on_goroutine_exit(event): calls.append(event)
@hookimpl
def golib_stop():
    print("stop", *(type(call).__name__ for call in calls))
    times = [call.time_ns for call in calls]
    print(times == sorted(times), {call.goroutine_id for call in calls} == {calls[0].goroutine_id})
    print(calls[-1].outcome, calls[-1].lifetime_ns >= 0)
"""


def test_hooks_of_a_run(tmp_path: Path) -> None:
    write(tmp_path / "full.py", FULL_PLUGIN)
    program = "import golibx\ngolibx.go(lambda: print('hello')).join()\n"
    result = run(tmp_path, program, "--set", "plugins.enabled=./full.py")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "configure True",
        "start True",
        "hello",
        "stop GoroutineStart GoroutineExit",
        "True True",
        "returned True",
    ]


def test_outcomes_of_goroutines(tmp_path: Path) -> None:
    body = (
        "@hookimpl\ndef on_goroutine_exit(event): calls.append(event.outcome)\n"
        "@hookimpl\ndef golib_stop(): print(*sorted(calls))\n"
    )
    write(tmp_path / "outcomes.py", body)
    program = (
        "import golibx\n"
        "golibx.go(print, end='').join()\n"
        "golibx.go(lambda: 1 / 0).join()\n"
        "golibx.go(golibx.sleep, 60)\n"
        "golibx.gosched()\n"
    )
    result = run(tmp_path, program, "--set", "plugins.enabled=./outcomes.py")
    assert (result.returncode, result.stdout) == (0, "cancelled raised returned\n")


def test_failing_plugin_leaves_the_program_alone(tmp_path: Path) -> None:
    write(tmp_path / "bad.py", "@hookimpl\ndef on_goroutine_start(event): 1 / 0\n")
    program = (
        "import golibx\n"
        "for _ in range(3):\n    golibx.go(golibx.sleep, 0.05).join()\n"
        "print('done')\n"
    )
    result = run(tmp_path, program, "--set", "plugins.enabled=./bad.py")
    assert (result.returncode, result.stdout) == (0, "done\n")
    assert result.stderr.count("plugin bad raised in on_goroutine_start") == 1


def test_preemptions_and_retakes_reach_their_hooks(tmp_path: Path) -> None:
    body = (
        "seen = set()\n"
        "@hookimpl\ndef on_preempt(event): seen.add(('preempt', event.ran_ns > 0))\n"
        "@hookimpl\ndef on_retake(event): seen.add(('retake', event.blocked_ns >= 20_000))\n"
        "@hookimpl\ndef golib_stop(): print(sorted(seen))\n"
    )
    write(tmp_path / "seen.py", body)
    program = (
        "import time, golibx\n"
        "def hog():\n"
        "    end = time.monotonic() + 0.3\n"
        "    while time.monotonic() < end: pass\n"
        "goroutines = [golibx.go(hog), golibx.go(hog), golibx.go(time.sleep, 0.3)]\n"
        "for goroutine in goroutines: goroutine.join()\n"
    )
    options = ("--set", "plugins.enabled=./seen.py", "--set", "patch.stdlib=false")
    result = run(tmp_path, program, *options)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "[('preempt', True), ('retake', True)]\n"


def test_schedtrace(tmp_path: Path) -> None:
    options = (
        "--set",
        "plugins.enabled=schedtrace",
        "--set",
        "plugins.schedtrace.interval=50ms",
        "--set",
        "plugins.schedtrace.output=trace.txt",
    )
    program = "import golibx\ngolibx.go(golibx.sleep, 0.28).join()\n"
    result = run(tmp_path, program, *options)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    *lines, totals = (tmp_path / "trace.txt").read_text().splitlines()
    assert 3 <= len(lines) <= 6
    for line in lines:
        head, _, fields = line.partition("ms: ")
        assert head.startswith("SCHED ")
        assert [field.partition("=")[0] for field in fields.split()] == [
            "gomaxprocs",
            "goroutines",
            "threads",
            "runqueue",
            "switches",
            "preemptions",
            "retakes",
            "polls",
            "idles",
        ]
        assert " goroutines=2 " in line
    assert " total goroutines=1 raised=0 cancelled=0 " in totals


NATIVE_PROGRAM = """
import ctypes, golibx
from golibx import native
lib = ctypes.CDLL(native.library())
def trace():
    with open("t.txt") as file: return file.read()
def main():
    while not trace(): golibx.sleep(0.01)  # a line without native goroutines
    # And one that is written while a goroutine sleeps: its processor has nothing to do.
    while " goroutines=1 idleprocs=3 " not in trace(): native.call(lib.golibx_sleep, 60_000_000)
golibx.gomaxprocs(3)
golibx.go(main).join()
"""


@pytest.mark.skipif(os.name != "posix", reason="native goroutines are for POSIX")
def test_schedtrace_of_the_native_lane(tmp_path: Path) -> None:
    plugin = "plugins.schedtrace"
    options = ("plugins.enabled=schedtrace", f"{plugin}.interval=50ms", f"{plugin}.output=t.txt")
    arguments = [word for option in options for word in ("--set", option)]
    result = run(tmp_path, NATIVE_PROGRAM, *arguments)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    *lines, totals = (tmp_path / "t.txt").read_text().splitlines()
    assert " native: " not in lines[0]
    native_lines = [line.partition(" native: ")[2] for line in lines if " native: " in line]
    names = ("goroutines", "idleprocs", "threads", "spinningthreads", "idlethreads", "runqueue")
    numbers = " ".join(rf"{name}=\d+" for name in names)
    for line in native_lines:
        assert re.fullmatch(rf"{numbers} \[\d+ \d+ \d+\]", line)
    (asleep, *_) = [line for line in native_lines if line.startswith("goroutines=1 idleprocs=3 ")]
    assert asleep.endswith(" runqueue=0 [0 0 0]")
    # A busy machine may preempt, retake or steal one.
    moved = r"native_preempted=\d+ native_retaken=\d+ .*native_ready=0 native_stolen=\d+"
    counted = re.search(rf" native_goroutines=(\d+) {moved}$", totals)
    assert counted
    assert int(counted[1]) >= 1


def test_schedtrace_has_a_line_for_what_is_changed(tmp_path: Path) -> None:
    program = "import golibx\ngolibx.tune({'preempt.slice': '2ms', 'native.spinning': 25})\n"
    result = run(tmp_path, program, "--set", "plugins.enabled=schedtrace")
    assert result.returncode == 0
    lines = [line.partition("ms: ")[2] for line in result.stderr.splitlines()]
    assert lines[:2] == [
        "tune preempt.slice=2ms was=10ms by program",
        "tune native.spinning=25 was=50 by program",
    ]


def test_tuner(tmp_path: Path) -> None:
    """What it does is tested in test_tune.py."""
    result = run(tmp_path, "print('hello')\n", "--set", "plugins.enabled=tuner")
    assert (result.returncode, result.stdout, result.stderr) == (0, "hello\n", "")
    options = ("--set", "plugins.enabled=tuner", "--set", "plugins.tuner.goal=1us")
    result = run(tmp_path, "", *options)
    assert result.returncode == 2
    assert 'plugins.tuner.goal = "1us": out of range (allowed: 10us to 10s)' in result.stderr


def test_trace(tmp_path: Path) -> None:
    """What it does is tested in test_trace.py."""
    options = ("--set", "plugins.enabled=trace", "--set", "plugins.trace.output=t.json")
    result = run(tmp_path, "print('hello')\n", *options)
    assert (result.returncode, result.stdout, result.stderr) == (0, "hello\n", "")
    assert (tmp_path / "t.json").read_text(encoding="ascii").endswith("}\n]\n")
    result = run(tmp_path, "", *options, "--set", "plugins.trace.mode=fast")
    assert result.returncode == 2
    assert 'plugins.trace.mode = "fast"' in result.stderr


def test_metrics(tmp_path: Path) -> None:
    """What it does is tested in test_metrics.py."""
    options = ("plugins.enabled=metrics", "plugins.metrics.listen=", "plugins.metrics.file=m.txt")
    arguments = [word for option in options for word in ("--set", option)]
    result = run(tmp_path, "print('hello')\n", *arguments)
    assert (result.returncode, result.stdout, result.stderr) == (0, "hello\n", "")
    assert (tmp_path / "m.txt").read_text().endswith("# EOF\n")


def test_dashboard(tmp_path: Path) -> None:
    """What it does is tested in test_dashboard.py."""
    result = run(tmp_path, "print('hello')\n", "--set", "plugins.enabled=dashboard")
    assert (result.returncode, result.stdout) == (0, "hello\n")
    address = r"golibx: dashboard: http://127\.0\.0\.1:\d+/#token=[\w-]{32}\n"
    assert re.fullmatch(address, result.stderr)


def test_otel(tmp_path: Path) -> None:
    """What it does is tested in test_otel.py."""
    result = run(tmp_path, "print('hello')\n", "--set", "plugins.enabled=otel")
    assert (result.returncode, result.stdout, result.stderr) == (0, "hello\n", "")


def test_profile(tmp_path: Path) -> None:
    """What it does is tested in test_profile.py."""
    options = ("--set", "plugins.enabled=profile", "--set", f"plugins.profile.output={tmp_path}/x")
    result = run(tmp_path, "print('hello')\n", *options)
    assert (result.returncode, result.stdout) == (0, "hello\n")
    assert result.stderr == f"golibx: profile: the cpu profile is in {tmp_path}/x.pb.gz\n"


def test_watchdog(tmp_path: Path) -> None:
    """What it does is tested in test_watchdog.py."""
    result = run(tmp_path, "print('hello')\n", "--set", "plugins.enabled=watchdog")
    assert (result.returncode, result.stdout, result.stderr) == (0, "hello\n", "")


def test_chaos(tmp_path: Path) -> None:
    """What it does is tested in test_chaos.py."""
    result = run(tmp_path, "print('hello')\n", "--set", "plugins.enabled=chaos")
    assert (result.returncode, result.stdout) == (0, "hello\n")
    assert result.stderr.count("chaos: seed=") == 2


def test_schedtrace_settings(tmp_path: Path) -> None:
    options = ("--set", "plugins.enabled=schedtrace", "--set", "plugins.schedtrace.totals=false")
    result = run(tmp_path, "print('hello')\n", *options)
    assert (result.returncode, result.stdout, result.stderr) == (0, "hello\n", "")
    result = run(tmp_path, "", *options, "--set", "plugins.schedtrace.output=no/such/folder/x")
    assert result.returncode == 2
    assert "plugins.schedtrace.output = " in result.stderr
    assert "can't be written" in result.stderr


def test_service_goroutines_do_not_hide_a_deadlock(tmp_path: Path) -> None:
    program = "import golibx\ngolibx.Chan().recv()\n"
    result = run(tmp_path, program, "--set", "plugins.enabled=schedtrace")
    assert result.returncode == 1
    assert "all goroutines are asleep" in result.stderr


def test_run_without_plugins_does_not_import_pluggy(tmp_path: Path) -> None:
    program = (
        "import sys\nprint([name for name in ('pluggy', 'tomli', 'click', 'rich', 'typing') "
        "if name in sys.modules])\n"
    )
    result = run(tmp_path, program)
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_events_after_a_hook_that_raised_what_ends_goroutines(tmp_path: Path) -> None:
    """Delivery ended for all plugins, without a word."""
    body = (
        "from golibx.errors import Cancelled\n@hookimpl\ndef on_goroutine_start(event): raise {}\n"
    )
    write(tmp_path / "one.py", body.format("Cancelled"))
    write(tmp_path / "two.py", body.format("KeyboardInterrupt"))
    write(
        tmp_path / "good.py",
        "@hookimpl\ndef on_goroutine_exit(event): calls.append(event)\n"
        "@hookimpl\ndef golib_stop(): print(len(calls))\n",
    )
    program = "import golibx\nfor _ in range(3): golibx.go(int).join()\n"
    enabled = "plugins.enabled=./one.py,./two.py,./good.py"
    result = run(tmp_path, program, "--set", enabled)
    assert (result.returncode, result.stdout) == (0, "3\n")
    for name in ("one", "two"):
        assert result.stderr.count(f"plugin {name} raised in on_goroutine_start") == 1


def test_a_hook_that_does_not_return_is_named(tmp_path: Path) -> None:
    write(
        tmp_path / "stuck.py",
        "import golibx\n@hookimpl\ndef on_goroutine_exit(event): golibx.Chan().recv()\n",
    )
    program = "import golibx\ngolibx.go(int).join()\ngolibx.sleep(0.05)\n"
    options = ("plugins.enabled=./stuck.py", "runtime.shutdown_timeout=10ms")
    result = run(tmp_path, program, *(part for o in options for part in ("--set", o)))
    assert result.returncode == 0
    assert "on_goroutine_exit of plugin stuck has not returned within 1s" in result.stderr


@pytest.mark.parametrize(
    "body",
    [
        "def on_goroutine_exit(event): time.sleep(600)\n",
        "def golib_start(runtime): runtime.go_system(time.sleep, 600)\n",
    ],
)
def test_what_a_plugin_leaves_behind_does_not_keep_the_main_thread(
    tmp_path: Path, body: str
) -> None:
    """It blocks there, since the main goroutine waits meanwhile: run() could not return."""
    write(tmp_path / "stuck.py", f"import time\n@hookimpl\n{body}")
    program = "import golibx\ngolibx.go(int).join()\ngolibx.sleep(0.05)\nprint('over')\n"
    options = ("plugins.enabled=./stuck.py", "runtime.shutdown_timeout=10ms")
    result = run(tmp_path, program, *(part for o in options for part in ("--set", o)))
    assert (result.returncode, result.stdout) == (0, "over\n")
