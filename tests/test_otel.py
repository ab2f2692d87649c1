"""The plugin otel: spans of goroutines and scopes, and metrics, in OpenTelemetry's own memory."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import Script
from golibx import ConfigError
from golibx.config import Config
from golibx.plugins import metrics, otel
from test_metrics import PUBLISHED_COUNTERS, PUBLISHED_GAUGES

ROOT = Path(__file__).parent.parent

HEADER = """
import json, logging, sys, time
import golibx
from golibx import Chan, Mutex, WaitGroup, current, go, labels, scope, sleep, stats
from opentelemetry import context, metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

logging.basicConfig(stream=sys.stdout, format="logged: %(message)s")
exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
provider, meters = TracerProvider(), MeterProvider([reader])
provider.add_span_processor(SimpleSpanProcessor(exporter))
tracer = trace.get_tracer("test")
opened = tracer.start_as_current_span

def use():
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(meters)

def traced(main, **settings):
    golibx.run(main, config={"plugins": {"enabled": ["otel"], "otel": settings}})

def named(name, function=bool):
    def call():
        current().name = name
        return function()
    return go(call)

def finished():
    return exporter.get_finished_spans()

def show():
    ids = {span.context.span_id: span.name for span in finished()}
    spans = [
        {
            "name": span.name,
            "parent": ids[span.parent.span_id] if span.parent else None,
            "attributes": dict(span.attributes),
            "status": span.status.status_code.name,
            "description": span.status.description,
            "times": [span.start_time, span.end_time],
            "events": [dict(event.attributes) for event in span.events],
        }
        for span in finished()
    ]
    print(json.dumps(spans))

def collected():
    data = reader.get_metrics_data()
    return {
        metric.name: metric
        for resource in (data.resource_metrics if data else ())
        for part in resource.scope_metrics
        for metric in part.metrics
    }

def value_of(name):
    (point,) = collected()[name].data.data_points
    return point.value
"""
USE = "use()\n"


def spans_of(script: Script, program: str) -> dict[str, dict[str, Any]]:
    """What it has shown, by the names."""
    spans = json.loads(script.passes(HEADER + USE + program + "show()\n"))
    by_name = {span["name"]: span for span in spans}
    assert len(by_name) == len(spans)
    return by_name


# ---- goroutines ----


def test_a_goroutine_is_the_child_of_the_span_around_go_and_the_parent_of_its_own(
    script: Script,
) -> None:
    program = """
def grandchild():
    with opened("inmost"): pass

def child():
    with opened("before"): pass
    with opened("within"):
        g = go(grandchild)
        g.join()
    sleep(0)
    with opened("after"): pass

def main():
    with opened("request"):
        child_of_request = go(child)
    child_of_request.join()
    assert trace.get_current_span() is trace.INVALID_SPAN
    go(lambda: None).join()

traced(main)
"""
    spans = spans_of(script, program)
    parents = {name: span["parent"] for name, span in spans.items()}
    assert parents == {
        "request": None,
        "child": "request",
        "before": "child",
        "within": "child",
        "after": "child",
        "grandchild": "within",
        "inmost": "grandchild",
        "main.<locals>.<lambda>": None,
    }
    for name, span in spans.items():
        began, ended = span["times"]
        assert began <= ended
        if span["parent"] and name != "child":  # which outlives the request
            assert spans[span["parent"]]["times"][0] <= began
            assert ended <= spans[span["parent"]]["times"][1]


def test_what_a_span_says_of_its_goroutine(script: Script) -> None:
    program = """
def work():
    assert trace.get_current_span().is_recording()

def labelled():
    current().name = "labelled"

def main():
    go(work).join()
    with labels(request="17", user="ada"):
        g = go(labelled)
    g.join()
    print(g.id, file=sys.stderr)

traced(main)
"""
    result = script(HEADER + USE + program + "show()\n")
    spans = {span["name"]: span for span in json.loads(result.stdout)}
    number = int(result.stderr)
    lines = (HEADER + USE + program).splitlines()
    started_at = spans["labelled"]["attributes"].pop("golibx.goroutine.started_at")
    assert started_at.endswith(f"program.py:{lines.index('        g = go(labelled)') + 1}")
    assert spans["labelled"]["attributes"] == {
        "golibx.goroutine.id": number,
        "golibx.goroutine.parent": 1,
        "golibx.goroutine.outcome": "returned",
        "golibx.labels.request": "17",
        "golibx.labels.user": "ada",
    }
    assert spans["labelled"]["status"] == "UNSET"
    assert not any("labels" in name for name in spans["work"]["attributes"])


def test_how_a_goroutine_has_ended(script: Script) -> None:
    program = """
class Unspeakable(Exception):
    def __str__(self): raise RuntimeError("no words")

def fails(): raise ValueError("no such user")
def joined(): raise KeyError("k")
def unspeakable(): raise Unspeakable
def waits(): Chan().recv()
def quits(): sys.exit(0)

raised = []

def main():
    go(fails)
    for function in joined, unspeakable, waits, quits:
        g = go(function)
        while function is waits and not g.waiting: sleep(0.001)
        if function is waits: g.cancel()
        try: g.result()
        except BaseException as exc: raised.append(type(exc).__name__)

traced(main)
assert raised == ["KeyError", "Unspeakable", "Cancelled", "SystemExit"], raised
"""
    result = script(HEADER + USE + program + "show()\n")
    assert result.returncode == 0, result.stderr
    spans = {span["name"]: span for span in json.loads(result.stdout)}
    # The plugin changes nothing about what is reported, and when.
    assert re.search(
        r"goroutine \d+ \[fails\] started at .*program.py:\d+ panicked:", result.stderr
    )
    outcomes = {n: span["attributes"]["golibx.goroutine.outcome"] for n, span in spans.items()}
    assert outcomes.pop("waits") == "cancelled"
    assert set(outcomes.values()) == {"raised"}
    assert {name: span["status"] for name, span in spans.items()} == {
        "fails": "ERROR",
        "joined": "ERROR",
        "unspeakable": "ERROR",
        "waits": "UNSET",
        "quits": "UNSET",
    }
    assert spans["fails"]["description"] == "ValueError: no such user"
    assert spans["fails"]["attributes"]["error.type"] == "ValueError"
    (event,) = spans["fails"]["events"]
    assert event["exception.type"] == "ValueError"
    assert "in fails" in event["exception.stacktrace"]
    assert spans["unspeakable"]["attributes"]["error.type"] == "__main__.Unspeakable"
    assert spans["unspeakable"]["description"] == "Unspeakable"


def test_who_learns_of_the_end_finds_the_span_ended(script: Script) -> None:
    program = """
def has_ended(name):
    return any(span.name == name for span in finished())

def main():
    for i in range(50):
        named(f"joined {i}").join()
        assert has_ended(f"joined {i}")
    group = WaitGroup()
    def in_group(): current().name = "in a group"
    group.go(in_group)
    group.wait()
    assert has_ended("in a group")
    def in_scope(): current().name = "in a scope"
    with scope() as s: s.go(in_scope)
    assert has_ended("in a scope")

traced(main)
"""
    script.passes(HEADER + USE + program)


def test_only_those_with_labels(script: Script) -> None:
    program = """
def inner():
    with opened("innermost"): pass

def outer():
    with labels(step="1"): go(inner).join()

def main():
    with opened("request"): go(outer).join()

traced(main, spans="labelled", scopes=False)
"""
    spans = spans_of(script, program)
    parents = {name: span["parent"] for name, span in spans.items()}
    assert parents == {"request": None, "inner": "request", "innermost": "inner"}


def test_off(script: Script) -> None:
    program = """
def main():
    with scope() as s: s.go(lambda: None)

traced(main, spans="off", scopes=False)
assert "golibx.spawns" in collected()
traced(main, spans="off")
"""
    assert list(spans_of(script, program)) == ["scope"]


def test_more_than_max_spans_are_counted(script: Script) -> None:
    program = """
def work():
    with opened("own"): pass

def main():
    with opened("request"):
        for g in [go(work) for _ in range(200)]: g.join()

traced(main, max_spans=1)
goroutines = [span.name for span in finished()].count("work")
request = next(span for span in finished() if span.name == "request").context.span_id
own = [span for span in finished() if span.name == "own"]
print(json.dumps([
    goroutines, len(own), sum(span.parent.span_id == request for span in own),
    value_of("golibx.spans_left_out")]))
"""
    result = script(HEADER + USE + program)
    assert result.returncode == 0, result.stderr
    begun, own, of_request, left_out = json.loads(result.stdout)
    assert begun >= 1
    assert left_out >= 1
    assert begun + left_out == own == 200
    assert of_request == left_out
    spans = "1 span" if left_out == 1 else f"{left_out} spans"
    assert result.stderr == (
        f"otel: {spans} left out: more than plugins.otel.max_spans = 1 in a second\n"
    )


def test_a_budget_is_of_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [5_000_000_000]
    monkeypatch.setattr(otel.time, "monotonic_ns", lambda: now[0])
    budget = otel._Budget(2)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    now[0] = 5_999_999_999
    assert not budget.take()
    now[0] = 6_000_000_000
    assert [budget.take() for _ in range(3)] == [True, True, False]
    now[0] = 5_500_000_000  # of one that has read the clock before, and comes late
    assert not budget.take()
    assert budget.left_out == 4
    endless = otel._Budget(0)
    assert all(endless.take() for _ in range(5000))
    assert endless.left_out == 0


def test_a_provider_may_be_set_in_the_run_or_not_at_all(script: Script) -> None:
    program = """
def main():
    go(lambda: None).join()
    with scope(): pass
    use()
    named("seen").join()
    assert value_of("golibx.spawns") >= 2

traced(main)
show()
"""
    (span,) = json.loads(script.passes(HEADER + program))
    assert span["name"] == "seen"
    without = HEADER + "traced(lambda: go(lambda: print('ran')).join())\nassert not finished()\n"
    assert script.passes(without) == "ran\n"


def test_what_an_exporter_starts_has_no_span(script: Script) -> None:
    program = """
def export(spans):
    go(lambda: exporter_of_memory(spans)).join()

exporter_of_memory = exporter.export
exporter.export = export
traced(lambda: go(lambda: None).join())
"""
    (span,) = spans_of(script, program).values()
    assert span["name"] == "<lambda>.<locals>.<lambda>"


def test_nothing_of_a_goroutine_stays_with_the_plugin(script: Script) -> None:
    program = """
import gc, weakref

class Thing: pass
things = weakref.WeakSet()

def work(thing): raise KeyError

def start():
    thing = Thing()
    things.add(thing)
    g = go(work, thing)
    g.join()
    assert isinstance(g.exception, KeyError)

def main():
    for _ in range(100): start()
    exporter.clear()
    gc.collect()
    assert len(things) == 0, len(things)

traced(main)
"""
    script.passes(HEADER + USE + program)


# ---- scopes ----


def test_a_scope_is_the_parent_of_what_is_in_it(script: Script) -> None:
    program = """
def child():
    with opened("in child"): pass

def main():
    with opened("request"):
        with scope() as s:
            s.go(child)
            with opened("in block"): pass
        with opened("after"): pass
        assert trace.get_current_span().name == "request"

traced(main)
"""
    spans = spans_of(script, program)
    parents = {name: span["parent"] for name, span in spans.items()}
    assert parents == {
        "request": None,
        "scope": "request",
        "child": "scope",
        "in child": "child",
        "in block": "scope",
        "after": "request",
    }
    assert spans["scope"]["attributes"] == {
        "golibx.goroutine.id": 1,
        "golibx.scope.outcome": "returned",
    }
    assert spans["child"]["times"][1] <= spans["scope"]["times"][1]


@pytest.mark.parametrize(
    ("block", "outcome", "error"),
    [
        ("with scope() as s: s.go(fails)", "raised", "ExceptionGroup"),
        ("with scope(): fails()", "raised", "ExceptionGroup"),
        ("with scope(timeout=0.001): Chan().recv()", "raised", "golibx.errors.DeadlineExceeded"),
        ("with scope() as s: s.cancel(); sleep(1)", "returned", None),
        ("with labels(a='1'), scope(): current().cancel(); sleep(1)", "cancelled", None),
        ("with scope(): sys.exit(3)", "raised", None),
    ],
)
def test_how_a_scope_has_ended(script: Script, block: str, outcome: str, error: str | None) -> None:
    program = f"""
def fails(): raise ValueError("no such user")

def main():
    try:
        {block}
    except BaseException: pass
    assert trace.get_current_span() is trace.INVALID_SPAN

traced(main)
"""
    span = spans_of(script, program)["scope"]
    assert span["attributes"]["golibx.scope.outcome"] == outcome
    assert span["attributes"].get("error.type") == error
    assert span["status"] == ("UNSET" if error is None else "ERROR")
    assert ("golibx.labels.a" in span["attributes"]) == ("labels" in block)


def test_a_scope_that_a_generator_has_begun_ends_elsewhere(script: Script) -> None:
    program = """
def generator():
    with scope(): yield trace.get_current_span()

def main():
    g = generator()
    next(g)
    ended = go(g.close)
    # golibx calls that a mistake, and says so. What waits in here is cancelled.
    while not ended.done(): time.sleep(0.001)
    assert trace.get_current_span().name == "scope"  # nobody could take it back here

traced(main)
"""
    span = spans_of(script, program)["scope"]
    assert span["attributes"]["golibx.scope.outcome"] == "raised"


# ---- metrics ----


def test_every_counter_has_a_metric(script: Script) -> None:
    program = """
def main():
    found = collected()
    print(json.dumps({name: [type(m.data).__name__, m.unit, m.description, len(m.data.data_points)]
                      for name, m in found.items()}))
    print(json.dumps(stats()))
traced(main, latency=True)
"""
    found, counted = map(json.loads, script.passes(HEADER + USE + program).splitlines())
    by_key = {key: name for name, (_, _, key) in otel.INSTRUMENTS.items()}
    for key in counted:
        if key.startswith(otel._REFUSED):
            assert otel._REFUSED_NAME in found
        elif key != "goroutines":
            assert by_key[key] in found, key
    assert len(by_key) == len(metrics.METRICS)
    for name, (kind, unit, key) in otel.INSTRUMENTS.items():
        data = "Sum" if kind == "counter" else "Gauge"
        assert found[name] == [data, unit, metrics.METRICS[key][2], 1]
    assert found["golibx.goroutines"][0] == "Gauge"
    assert found["golibx.stack_size"][1] == "By"
    assert documented().keys() >= {name for name in found if name.startswith("golibx.")}


def documented() -> dict[str, tuple[str, str]]:
    text = (ROOT / "docs" / "otel.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `(golibx\.[\w.]+)` \| (counter|gauge|histogram) \| (.+) \|$", text, re.M
    )
    found = {name: (kind, help_text) for name, kind, help_text in rows}
    assert len(found) == len(rows)
    return found


def test_every_metric_is_documented() -> None:
    expected = {
        name: (kind, metrics.METRICS[key][2]) for name, (kind, _, key) in otel.INSTRUMENTS.items()
    }
    others = {
        "golibx.goroutines": "gauge",
        otel._REFUSED_NAME: "counter",
        otel._SPANS_LEFT_OUT: "counter",
        otel._LATENCY: "histogram",
        otel._LATENCY_LEFT_OUT: "counter",
    }
    rows = documented()
    assert {name: rows[name] for name in expected} == expected
    assert {name: rows[name][0] for name in others} == others
    assert rows.keys() == expected.keys() | others


def test_names_are_the_published_ones_of_prometheus() -> None:
    """As OpenTelemetry writes them; its exporter for Prometheus makes those of them again."""
    published = {
        "counter": PUBLISHED_COUNTERS.split(),
        "gauge": [name.removesuffix("_bytes") for name in PUBLISHED_GAUGES.split()],
    }
    expected = {
        "golibx." + re.sub("^native_", "native.", name): kind
        for kind, names in published.items()
        for name in names
    }
    assert {name: kind for name, (kind, _, _) in otel.INSTRUMENTS.items()} == expected
    assert otel._REFUSED_NAME == "golibx.native.preempt_refused"


def test_every_attribute_is_documented(script: Script) -> None:
    program = """
def fails(): raise ValueError
def main():
    with labels(a="1"):
        try:
            with scope() as s: s.go(fails)
        except* ValueError: pass
traced(main)
"""
    text = (ROOT / "docs" / "otel.md").read_text(encoding="utf-8")
    for span in spans_of(script, program).values():
        for name in span["attributes"]:
            assert f"`{name.replace('labels.a', 'labels.NAME')}`" in text


def test_the_numbers_are_those_of_stats(script: Script) -> None:
    program = """
def main():
    chan = Chan()
    waiting = [go(chan.recv_ok) for _ in range(5)]
    while sum(g.state == "chan receive" for g in waiting) < 5: sleep(0.001)
    before = stats()["spawns"]
    found = collected()
    states = {p.attributes["state"]: p.value for p in found["golibx.goroutines"].data.data_points}
    (spawns,) = found["golibx.spawns"].data.data_points
    (stack,) = found["golibx.stack_size"].data.data_points
    assert states["chan receive"] == 5, states
    assert before <= spawns.value <= stats()["spawns"]
    assert stack.value == stats()["stack_bytes"]
    assert found["golibx.spawns"].data.is_monotonic
    chan.close()
traced(main)
"""
    assert script.passes(HEADER + USE + program) == ""


def test_counters_count_all_runs_of_a_process(script: Script) -> None:
    program = """
def main():
    for g in [go(sleep, 0) for _ in range(30)]: g.join()

traced(main, max_spans=1)
first, left_out = value_of("golibx.spawns"), value_of("golibx.spans_left_out")
assert first >= 30 and "golibx.threads" not in collected()
seen = [first]
def twice():
    seen.append(value_of("golibx.spawns"))
    main()
    seen.append(value_of("golibx.spawns"))
traced(twice, max_spans=1)
seen.append(value_of("golibx.spawns"))
assert seen == sorted(seen) and seen[-1] >= 60, seen
assert value_of("golibx.spans_left_out") >= left_out > 0
traced(main, metrics=False)
assert value_of("golibx.spawns") == seen[-1]
"""
    assert script.passes(HEADER + USE + program) == ""  # the SDK logs instruments that come twice


def test_sums_go_on_where_a_counter_begins_anew() -> None:
    sums = otel._Sums()
    assert [sums.note("a", value) for value in (2, 5, 1, 1, 0, 7)] == [2, 5, 6, 6, 6, 13]
    assert sums.of("a") == 13
    assert sums.of("b") == 0
    sums.note("refused_x", 3)
    assert sums.under("refused_") == {"x": 3}


def test_latencies_are_a_histogram(script: Script) -> None:
    program = """
def main():
    there, back = Chan(), Chan()
    go(lambda: [back.send(x) for x in there])
    while "golibx.sched_latency" not in collected():
        for _ in range(200): there.send(1); back.recv()
    there.close()

traced(main, latency=True)
(point,) = collected()["golibx.sched_latency"].data.data_points
assert len(point.explicit_bounds) == 26 and point.explicit_bounds[0] == 1.024e-06
assert sum(point.bucket_counts) == point.count > 0
assert point.count * 1e-9 < point.sum < 60
print(point.count, value_of("golibx.sched_latency_left_out"))
"""
    count, left_out = map(int, script.passes(HEADER + USE + program).split())
    assert count >= 1
    assert left_out == 0


def test_latencies_are_not_measured_unless_asked_for(script: Script) -> None:
    program = """
def main():
    there, back = Chan(), Chan()
    go(lambda: [back.send(x) for x in there])
    for _ in range(1000): there.send(1); back.recv()
    there.close()

traced(main)
assert "golibx.sched_latency" not in collected()
"""
    script.passes(HEADER + USE + program)


def test_of_too_many_latencies_some_of_each_length_are_left() -> None:
    counts = {100: 900_000, 200: 100_000, 300: 3}
    thinned = otel._thinned(counts, 1000)
    assert thinned == {100: 900, 200: 100, 300: 1}
    assert otel._thinned(counts, 2_000_000) == counts
    assert otel._thinned({}, 1000) == {}


def test_a_collection_while_goroutines_compute_and_while_the_run_ends(script: Script) -> None:
    program = """
import threading
has_ended = threading.Event()
seen = []

def collect():
    while not has_ended.wait(0.001): seen.append(value_of("golibx.spawns"))

def main():
    for g in [go(sum, range(20_000)) for _ in range(20)]: g.join()

traced(lambda: None)
thread = threading.Thread(target=collect)
thread.start()
for _ in range(3): traced(main)
has_ended.set()
thread.join()
assert seen == sorted(seen)
assert value_of("golibx.spawns") >= 60
"""
    script.passes(HEADER + USE + program)


# ---- settings ----


def refusal(**settings: object) -> str:
    config = Config.from_mapping({"plugins": {"otel": settings}}, environ={})
    with pytest.raises(ConfigError) as caught:
        otel.Plugin().golib_configure(config, "otel")
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"spans": "some"}, "plugins.otel.spans"),
        ({"max_spans": -1}, "plugins.otel.max_spans"),
        ({"span": "all"}, "did you mean plugins.otel.spans?"),
        ({"spans": "off", "scopes": False, "metrics": False}, "nothing is left to do"),
        ({"metrics": False, "latency": True}, "is of no effect where metrics is false"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], text: str) -> None:
    assert text in refusal(**settings)


def test_a_missing_package_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    text = refusal()
    assert "otel needs the package opentelemetry-api: pip install 'golibx[otel]'" in text
