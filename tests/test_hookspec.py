"""The hooks and their events, as plugins see them; how the core's numbers become events."""

from __future__ import annotations

import inspect
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from golibx import hookspec
from golibx.config import Config
from golibx.errors import ConfigError
from golibx.eventbatch import EVENT_HOOKS, EventBatch, RawEvent
from golibx.hookspec import (
    DeadlockFound,
    GilWait,
    GomaxprocsChange,
    GoroutineBlock,
    GoroutineCreate,
    GoroutineExit,
    GoroutinePanic,
    GoroutinePark,
    GoroutineReady,
    GoroutineRun,
    GoroutineStart,
    GoroutineUnblock,
    NetpollReady,
    Preempt,
    Retake,
    Steal,
    SysmonTick,
    Tune,
    hookimpl,
)
from golibx.pluginmanager import PluginManager

EVENTS = (
    GoroutineCreate,
    GoroutineStart,
    GoroutinePark,
    GoroutineReady,
    GoroutineExit,
    GoroutinePanic,
    Preempt,
    Retake,
    NetpollReady,
    Steal,
    SysmonTick,
    DeadlockFound,
    GomaxprocsChange,
    Tune,
    GoroutineRun,
    GoroutineBlock,
    GoroutineUnblock,
    GilWait,
)
KINDS = {name: kind for kind, (name, _) in enumerate(EVENT_HOOKS)}


def manager_of(plugin: object, monkeypatch: pytest.MonkeyPatch) -> PluginManager:
    """A manager with one plugin, `plugin`."""
    module = SimpleNamespace(the_plugin=plugin)
    monkeypatch.setitem(sys.modules, "module_with_plugin", module)
    overrides = ["plugins.enabled=module_with_plugin:the_plugin"]
    return PluginManager(Config.load(environ={}, overrides=overrides))


class Recorder:
    """A plugin with one hook of every kind that takes all of its arguments."""

    takes = tuple(KINDS)

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []


def _recorder_of(name: str) -> Any:
    arguments = list(inspect.signature(getattr(hookspec, name)).parameters)
    source = f"def {name}(self, {', '.join(arguments)}):\n    self.calls.append(({name!r}, "
    source += f"dict({', '.join(f'{argument}={argument}' for argument in arguments)})))"
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    return hookimpl(namespace[name])


for _name in PluginManager.hook_names():
    setattr(Recorder, _name, _recorder_of(_name))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def manager(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> PluginManager:
    return manager_of(recorder, monkeypatch)


def raw_event(hook: str, time_ns: int, *values: object, lane: int = 0) -> RawEvent:
    """As the core records it; `values` are goroutine_id, a and b."""
    return (KINDS[hook], time_ns, *values, lane)  # type: ignore[return-value]


def event_of(recorder: Recorder, manager: PluginManager, raw: RawEvent) -> object:
    manager.dispatch([raw])
    ((name, arguments),) = recorder.calls
    assert KINDS[name] == raw[0]
    recorder.calls.clear()
    return arguments["event"]


def test_golib_configure(recorder: Recorder, manager: PluginManager) -> None:
    runtime: Any = object()
    manager.configure(runtime)
    ((name, arguments),) = recorder.calls
    assert name == "golib_configure"
    assert isinstance(arguments["config"], Config)
    assert arguments["runtime"] is runtime


def test_golib_start(recorder: Recorder, manager: PluginManager) -> None:
    runtime: Any = object()
    manager.start(runtime)
    assert recorder.calls == [("golib_start", {"runtime": runtime})]


def test_golib_stop(recorder: Recorder, manager: PluginManager) -> None:
    runtime: Any = object()
    manager.stop(runtime)
    assert recorder.calls == [("golib_stop", {"runtime": runtime})]


def test_golib_cli(recorder: Recorder, manager: PluginManager) -> None:
    group: Any = object()
    manager.extend_cli(group)
    assert recorder.calls == [("golib_cli", {"group": group})]


LANES = pytest.mark.parametrize(("lane", "name"), [(0, "python"), (1, "native")])


@LANES
def test_on_goroutine_create(
    recorder: Recorder, manager: PluginManager, lane: int, name: str
) -> None:
    raw = raw_event("on_goroutine_create", 900, 7, 3, 0, lane=lane)
    assert event_of(recorder, manager, raw) == GoroutineCreate(900, name, 7, parent_id=3)


@LANES
def test_on_goroutine_start(
    recorder: Recorder, manager: PluginManager, lane: int, name: str
) -> None:
    event = event_of(recorder, manager, raw_event("on_goroutine_start", 1_000, 7, 3, 0, lane=lane))
    assert event == GoroutineStart(time_ns=1_000, lane=name, goroutine_id=7, parent_id=3)


@LANES
def test_on_goroutine_park(
    recorder: Recorder, manager: PluginManager, lane: int, name: str
) -> None:
    raw = raw_event("on_goroutine_park", 1_100, 7, 0, "chan receive", lane=lane)
    assert event_of(recorder, manager, raw) == GoroutinePark(1_100, name, 7, reason="chan receive")


@LANES
def test_on_goroutine_ready(
    recorder: Recorder, manager: PluginManager, lane: int, name: str
) -> None:
    raw = raw_event("on_goroutine_ready", 1_200, 7, 2, 0, lane=lane)
    assert event_of(recorder, manager, raw) == GoroutineReady(1_200, name, 7, waker_id=2)


@pytest.mark.parametrize(("code", "outcome"), [(0, "returned"), (1, "raised"), (2, "cancelled")])
def test_on_goroutine_exit(
    recorder: Recorder, manager: PluginManager, code: int, outcome: str
) -> None:
    event = event_of(recorder, manager, raw_event("on_goroutine_exit", 2_000, 7, 900, code))
    expected = GoroutineExit(2_000, "python", goroutine_id=7, lifetime_ns=900, outcome=outcome)
    assert event == expected


def test_on_goroutine_panic(recorder: Recorder, manager: PluginManager) -> None:
    raw = raw_event("on_goroutine_panic", 2_500, 7, 0, "ValueError: no such user")
    expected = GoroutinePanic(2_500, "python", 7, exception="ValueError: no such user")
    assert event_of(recorder, manager, raw) == expected


@pytest.mark.parametrize("handed_off", [False, True])
def test_on_preempt(recorder: Recorder, manager: PluginManager, handed_off: bool) -> None:
    raw = raw_event("on_preempt", 3_000, 7, 10_000_000, int(handed_off), lane=1)
    event = event_of(recorder, manager, raw)
    expected = Preempt(3_000, "native", 7, ran_ns=10_000_000, handed_off=handed_off)
    assert event == expected
    assert type(event.handed_off) is bool


@pytest.mark.parametrize(
    ("verdict", "slice_ns"),
    [("demote", 0), ("50ms", 50_000_000), (10_000, 10_000), ("1m", 60_000_000_000)],
)
def test_verdicts_of_on_preempt(
    verdict: object, slice_ns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Judge:
        @hookimpl
        def on_preempt(self) -> object:
            return verdict

        @hookimpl
        def on_retake(self) -> object:
            return "of no use"

    judged: list[tuple[int, int, int]] = []
    manager = manager_of(Judge(), monkeypatch)
    events = [
        raw_event("on_preempt", 3_000, 7, 10_000_000, 0, lane=0),
        raw_event("on_preempt", 4_000, 8, 10_000_000, 0, lane=1),  # a C function's
        raw_event("on_retake", 5_000, 9, 10_000_000, 0, lane=0),
    ]
    manager.dispatch(events, judge=lambda *each: judged.append(each))
    manager.dispatch(events)
    assert judged == [(7, 3_000, slice_ns)]
    assert len(manager.plugins) == 1


@pytest.mark.parametrize(
    ("verdict", "problem"),
    [
        ("promote", "ValueError: it returned 'promote', which is no verdict: \"demote\", or a"),
        ("5us", "ValueError: it returned '5us', which is out of range: \"demote\", or a slice of"),
        (0, "ValueError: it returned 0, which is out of range"),
        (-1, "ValueError: it returned -1, which is out of range"),
        (60_000_000_001, "ValueError: it returned 60000000001, which is out of range"),
        (0.05, "TypeError: it returned 0.05, which is no verdict"),
        (True, "TypeError: it returned True, which is no verdict"),
        (["demote"], "TypeError: it returned ['demote'], which is no verdict"),
    ],
)
def test_on_preempt_refuses(
    verdict: object,
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Judge:
        @hookimpl
        def on_preempt(self) -> object:
            return verdict

    judged: list[tuple[int, int, int]] = []
    manager = manager_of(Judge(), monkeypatch)
    raw = raw_event("on_preempt", 3_000, 7, 10_000_000, 0, lane=0)
    manager.dispatch([raw, raw], judge=lambda *each: judged.append(each))
    err = capsys.readouterr().err
    assert err.count("raised in on_preempt and is disabled:\n") == 1
    assert "golibx: plugin the_plugin raised" in err
    assert problem in err
    assert (judged, manager.plugins) == ([], [])


@pytest.mark.parametrize("in_vain", [False, True])
def test_on_retake(recorder: Recorder, manager: PluginManager, in_vain: bool) -> None:
    event = event_of(recorder, manager, raw_event("on_retake", 4_000, 7, 25_000, int(in_vain)))
    expected = Retake(4_000, "python", goroutine_id=7, blocked_ns=25_000, in_vain=in_vain)
    assert event == expected
    assert type(event.in_vain) is bool


@pytest.mark.parametrize("mode", [1, 2, 3])
def test_on_netpoll_ready(recorder: Recorder, manager: PluginManager, mode: int) -> None:
    event = event_of(recorder, manager, raw_event("on_netpoll_ready", 5_000, 7, 12, mode))
    expected = NetpollReady(
        5_000, "python", 7, fd=12, readable=mode in (1, 3), writable=mode in (2, 3)
    )
    assert event == expected


def test_on_steal(recorder: Recorder, manager: PluginManager) -> None:
    raw = raw_event("on_steal", 6_000, 7, 5 << 32 | 2, 64, lane=1)
    expected = Steal(6_000, "native", goroutine_id=7, stolen=64, processor=5, victim=2)
    assert event_of(recorder, manager, raw) == expected


@LANES
def test_on_sysmon_tick(recorder: Recorder, manager: PluginManager, lane: int, name: str) -> None:
    raw = raw_event("on_sysmon_tick", 7_000, 0, 20_000, 50, lane=lane)
    expected = SysmonTick(7_000, name, slept_ns=20_000, idle_rounds=50)
    assert event_of(recorder, manager, raw) == expected


def test_on_deadlock(recorder: Recorder, manager: PluginManager) -> None:
    raw = raw_event("on_deadlock", 8_000, 1, 4, 0)
    assert event_of(recorder, manager, raw) == DeadlockFound(8_000, "python", 1, goroutines=4)


@pytest.mark.parametrize("lane", [0, 1])
def test_on_gomaxprocs(recorder: Recorder, manager: PluginManager, lane: int) -> None:
    """It is about the native lane, whichever recorded it."""
    raw = raw_event("on_gomaxprocs", 9_000, 0, 2, 8, lane=lane)
    assert event_of(recorder, manager, raw) == GomaxprocsChange(9_000, "native", before=2, after=8)


def test_on_tune(recorder: Recorder, manager: PluginManager) -> None:
    change = ("plugin tuner", "preempt.slice", 10_000_000, 2_000_000)
    raw = raw_event("on_tune", 9_500, 0, 1, change)
    expected = Tune(9_500, "python", who=change[0], key=change[1], old=change[2], new=change[3])
    assert event_of(recorder, manager, raw) == expected


def test_on_goroutine_run(recorder: Recorder, manager: PluginManager) -> None:
    raw = raw_event("on_goroutine_run", 9_600, 7, 1_500, 0)
    assert event_of(recorder, manager, raw) == GoroutineRun(9_600, "python", 7, waited_ns=1_500)


def test_on_goroutine_block(recorder: Recorder, manager: PluginManager) -> None:
    code = test_on_goroutine_block.__code__
    raw = raw_event("on_goroutine_block", 9_700, 7, 25_000, (code, -1))
    place = f"{code.co_filename}:{code.co_firstlineno} in test_on_goroutine_block"
    expected = GoroutineBlock(9_700, "python", 7, blocked_ns=25_000, function="", place=place)
    assert event_of(recorder, manager, raw) == expected
    raw = raw_event("on_goroutine_block", 9_800, 7, 25_000, None)
    assert event_of(recorder, manager, raw) == expected._replace(time_ns=9_800, place="")


def test_on_goroutine_unblock(recorder: Recorder, manager: PluginManager) -> None:
    raw = raw_event("on_goroutine_unblock", 9_900, 7, 25_000, 7_000)
    expected = GoroutineUnblock(9_900, "python", 7, blocked_ns=25_000, waited_ns=7_000)
    assert event_of(recorder, manager, raw) == expected
    raw = raw_event("on_goroutine_unblock", 9_900, 7, 3 << 48 | 1 << 40, 5)
    expected = expected._replace(blocked_ns=1 << 40, waited_ns=(3 << 32) + 5)
    assert event_of(recorder, manager, raw) == expected


@pytest.mark.parametrize("offered", [False, True])
def test_on_gil_wait(recorder: Recorder, manager: PluginManager, offered: bool) -> None:
    raw = raw_event("on_gil_wait", 9_950, 7, 5_000_000, int(offered))
    event = event_of(recorder, manager, raw)
    assert event == GilWait(9_950, "python", 7, waited_ns=5_000_000, offered=offered)
    assert type(event.offered) is bool


def test_tune(recorder: Recorder, manager: PluginManager) -> None:
    """What it returns is tested in test_tune.py."""
    snapshot: Any = object()
    manager.ask_tune(snapshot, lambda name, changes: pytest.fail(f"{name}: {changes}"))
    assert recorder.calls == [("tune", {"snapshot": snapshot})]


REASONS = ("", "chan receive", "sleep")


def batch_of(*raws: RawEvent) -> EventBatch:
    """As the core makes it of what it has recorded."""
    objects: list[object] = []
    data = bytearray()
    for kind, time_ns, goroutine_id, a, b, lane in raws:
        if isinstance(b, int):
            number = b
        elif b in REASONS:
            number = REASONS.index(b)
        else:
            number = len(objects)
            objects.append(b)
        data += EventBatch.RECORD.pack(time_ns, goroutine_id, a, number, kind, lane)
    return EventBatch(bytes(data), objects, REASONS)


def test_take_events(recorder: Recorder, manager: PluginManager) -> None:
    """The same events as those of the hooks, of each kind."""
    raws: list[RawEvent] = []
    others: dict[str, object] = {
        "on_goroutine_park": "sleep",
        "on_goroutine_panic": "ValueError: no",
        "on_tune": ("program", "preempt.slice", 1, 2),
        "on_goroutine_block": (test_tune.__code__, -1),
        "on_goroutine_exit": 2,
        "on_gomaxprocs": 7,
    }
    for number, name in enumerate(KINDS):
        raws.append(raw_event(name, number, 7, 5 << 32 | 9, others.get(name, 1), lane=number % 2))
    raws.append(raw_event("on_goroutine_block", 99, 7, 25_000, None, lane=0))
    batch = batch_of(*raws)
    manager.dispatch_batch(batch)
    assert recorder.calls == [("take_events", {"batch": batch})]
    recorder.calls.clear()
    manager.dispatch(raws)
    assert [*batch] == [arguments["event"] for _, arguments in recorder.calls]
    assert len(batch) == len(raws)
    assert repr(batch) == f"<EventBatch: {len(raws)} events>"


def test_what_takes_has_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    class Taker:
        takes: object = ("on_retake",)

        @hookimpl
        def take_events(self, batch: EventBatch) -> None: ...

        @hookimpl
        def on_preempt(self) -> None: ...

    manager = manager_of(Taker(), monkeypatch)
    assert manager.batch_mask == 1 << KINDS["on_retake"]
    assert manager.single_mask == 1 << KINDS["on_preempt"]
    assert manager.event_mask == manager.batch_mask | manager.single_mask
    for takes, problem in (
        (None, "has take_events, and no attribute `takes`"),
        ((), "has take_events, and no attribute `takes`"),
        (("on_retakes",), "takes 'on_retakes', which is not the hook of an event"),
        (("golib_stop",), "takes 'golib_stop', which is not the hook of an event"),
        ((7,), "takes 7, which is not the hook of an event"),
    ):
        taker = Taker()
        taker.takes = takes
        with pytest.raises(ConfigError, match=problem):
            manager_of(taker, monkeypatch)


def test_events_are_immutable() -> None:
    event = GoroutineStart(1, "python", 2, 3)
    with pytest.raises(AttributeError):
        event.parent_id = 4  # type: ignore[misc]


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_has_a_time_and_a_lane(event: Any) -> None:
    assert event._fields[:2] == ("time_ns", "lane")


def test_every_event_kind_has_its_hook() -> None:
    kinds = [name for name, _ in EVENT_HOOKS]
    assert kinds == [name for name in PluginManager.hook_names() if name.startswith("on_")]
    annotations = [getattr(hookspec, name).__annotations__["event"] for name in kinds]
    assert annotations == [event.__name__ for event in EVENTS]


# What plugins were published with. Lines are added here, never taken away or changed: see
# "Compatibility" in docs/plugins.md.
PUBLISHED_ARGUMENTS = {
    "golib_configure": ("config", "runtime", "name"),
    "golib_start": ("runtime",),
    "golib_stop": ("runtime",),
    "golib_cli": ("group",),
    "on_goroutine_create": ("event",),
    "on_goroutine_start": ("event",),
    "on_goroutine_park": ("event",),
    "on_goroutine_ready": ("event",),
    "on_goroutine_exit": ("event",),
    "on_goroutine_panic": ("event",),
    "on_preempt": ("event",),
    "on_retake": ("event",),
    "on_netpoll_ready": ("event",),
    "on_steal": ("event",),
    "on_sysmon_tick": ("event",),
    "on_deadlock": ("event",),
    "on_gomaxprocs": ("event",),
    "on_tune": ("event",),
    "on_goroutine_run": ("event",),
    "on_goroutine_block": ("event",),
    "on_goroutine_unblock": ("event",),
    "on_gil_wait": ("event",),
    "tune": ("snapshot",),
    "take_events": ("batch",),
}
PUBLISHED_FIELDS = {
    "GoroutineCreate": "time_ns lane goroutine_id parent_id",
    "GoroutineStart": "time_ns lane goroutine_id parent_id",
    "GoroutinePark": "time_ns lane goroutine_id reason",
    "GoroutineReady": "time_ns lane goroutine_id waker_id",
    "GoroutineExit": "time_ns lane goroutine_id lifetime_ns outcome",
    "GoroutinePanic": "time_ns lane goroutine_id exception",
    "Preempt": "time_ns lane goroutine_id ran_ns handed_off",
    "Retake": "time_ns lane goroutine_id blocked_ns in_vain",
    "NetpollReady": "time_ns lane goroutine_id fd readable writable",
    "Steal": "time_ns lane goroutine_id stolen processor victim",
    "SysmonTick": "time_ns lane slept_ns idle_rounds",
    "DeadlockFound": "time_ns lane goroutine_id goroutines",
    "GomaxprocsChange": "time_ns lane before after",
    "Tune": "time_ns lane who key old new",
    "GoroutineRun": "time_ns lane goroutine_id waited_ns",
    "GoroutineBlock": "time_ns lane goroutine_id blocked_ns function place",
    "GoroutineUnblock": "time_ns lane goroutine_id blocked_ns waited_ns",
    "GilWait": "time_ns lane goroutine_id waited_ns offered",
    "PluginStats": "state share hooks",
    "HookStats": "calls total_ns longest_ns present_ns",
    "TuningKey": "value configured low high zero is_duration description",
}


def test_hooks_only_gain_arguments() -> None:
    assert PluginManager.hook_names() == list(PUBLISHED_ARGUMENTS), "publish the new one here"
    for name, published in PUBLISHED_ARGUMENTS.items():
        arguments = tuple(inspect.signature(getattr(hookspec, name)).parameters)
        assert arguments[: len(published)] == published


def test_events_only_gain_fields() -> None:
    records = {name for name in hookspec.__all__ if hasattr(getattr(hookspec, name), "_fields")}
    assert records - {"Snapshot"} == PUBLISHED_FIELDS.keys(), "publish the new one here"
    for name, published in PUBLISHED_FIELDS.items():
        fields = getattr(hookspec, name)._fields
        assert fields[: len(published.split())] == tuple(published.split())


def test_a_deprecated_hook_warns_and_works(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By pluggy's mark, which stays for two minor versions."""
    mark: Any = hookspec.on_steal.golibx_spec  # type: ignore[attr-defined]
    warning = DeprecationWarning("on_steal goes with golibx 0.4: use on_theft")
    monkeypatch.setitem(mark, "warn_on_impl", warning)
    with pytest.warns(DeprecationWarning, match="use on_theft"):
        manager = manager_of(recorder, monkeypatch)
    raw = raw_event("on_steal", 6_000, 7, 5 << 32 | 2, 64, lane=1)
    assert isinstance(event_of(recorder, manager, raw), Steal)


def test_hook_takes_only_the_arguments_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Plugin:
        @hookimpl
        def on_retake(self) -> None:
            calls.append("on_retake")

        @hookimpl
        def golib_configure(self, runtime: object) -> None:
            calls.append("golib_configure")

    manager = manager_of(Plugin(), monkeypatch)
    manager.dispatch([raw_event("on_retake", 1, 2, 3, 0)])
    manager.configure(SimpleNamespace())  # type: ignore[arg-type]
    assert calls == ["on_retake", "golib_configure"]
