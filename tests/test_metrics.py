"""The plugin metrics: what it tells Prometheus, which clients it answers, and the file."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families as families

import golibx
from conftest import Script
from golibx import ConfigError
from golibx.config import Config
from golibx.plugins import metrics
from test_dashboard import NEEDS_ROOT, as_another_user

ROOT = Path(__file__).parent.parent
REFUSED = "native_preempt_refused_"
# What dashboards and alerts were made with. Names are added here, never taken away or changed: see
# "Compatibility" in docs/plugins.md.
PUBLISHED_COUNTERS = """
    switches spawns preemptions preempt_requests handoffs retakes retakes_in_vain lock_offers
    threads_kept threads_not_kept threads_awaited steals netpolls netpoll_wakeups idle tunings
    events_recorded events_dropped native_spawns native_switches native_steals
    native_thread_limit_hits native_handoffs native_retakes native_netpolls
    native_netpoll_wakeups native_timer_fires native_timer_steals native_preempt_requests
    native_preempt_yields native_preempt_klt native_preempt_coop native_events_recorded
    native_events_dropped
"""
PUBLISHED_GAUGES = """
    threads threads_idle threads_blocked threads_waiting timers runnable_goroutines stacks
    stacks_free stack_size_bytes native_gomaxprocs native_goroutines native_threads
    native_threads_idle native_timers native_stacks native_stacks_free native_procs_idle
    native_threads_spinning native_queue_global native_queue_local
"""
KEYS_OF_OTHER_NAMES = {
    "runnable_goroutines": "runq",
    "stacks": "stacks_total",
    "stack_size_bytes": "stack_bytes",
}

HEADER = """
import json, socket, sys, threading, time
import golibx
from golibx import Chan, go, net, sleep, stats

with socket.socket() as any_port:
    any_port.bind(("127.0.0.1", 0))
    PORT = any_port.getsockname()[1]

def ask(head, host="127.0.0.1"):
    '''The status line, the headers as text, and the body.'''
    with net.dial((host, PORT), timeout=30) as conn:
        conn.settimeout(30)
        conn.sendall(head.replace("\\n", "\\r\\n").encode())
        answer = b""
        while part := conn.recv(65536):
            answer += part
    head, _, body = answer.decode().partition("\\r\\n\\r\\n")
    status, _, headers = head.partition("\\r\\n")
    return status, headers, body

def scrape(path="/metrics", more="", method="GET", host="localhost"):
    return ask(f"{method} {path} HTTP/1.1\\nHost: {host}:{PORT}\\n{more}\\n")

def measured(main, **settings):
    table = {"listen": f"127.0.0.1:{PORT}", **settings}
    golibx.run(main, config={"plugins": {"enabled": ["metrics"], "metrics": table}})
"""


def values_of(text: str) -> dict[str, float]:
    """The samples by name and labels."""
    return {
        sample.name + "".join(f"{{{key}={value}}}" for key, value in sample.labels.items()): (
            sample.value
        )
        for family in families(text)
        for sample in family.samples
    }


def test_every_counter_has_a_metric(script: Script) -> None:
    program = """
def main():
    print(scrape()[2])
measured(main)
"""
    text = script.passes(HEADER + program)
    names = {sample.partition("{")[0] for sample in values_of(text)}
    for key in golibx.stats():
        if key.startswith(REFUSED):
            reason = key.removeprefix(REFUSED)
            assert f"{metrics_name(REFUSED)}{{reason={reason}}}" in values_of(text)
        elif key != "goroutines":
            assert metrics_name(key) in names, key
    assert "golibx_goroutines" in names
    assert not any("latency" in name for name in names)
    assert set(metrics.METRICS) <= set(golibx.stats())
    for family in families(text):
        assert len(family.documentation.split()) >= 3, family.name


def metrics_name(key: str) -> str:
    if key == REFUSED:
        return "golibx_native_preempt_refused_total"
    kind, name, _ = metrics.METRICS[key]
    return f"golibx_{name}{'_total' if kind == 'counter' else ''}"


def test_every_metric_is_documented() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(golibx_\w+)` \| (\w+) \| (.+) \|$", text, re.M)
    documented = {name: (kind, help_text) for name, kind, help_text in rows}
    assert len(documented) == len(rows)
    expected = {
        metrics_name(key): (kind, help_text)
        for key, (kind, _, help_text) in metrics.METRICS.items()
    }
    others = {
        "golibx_goroutines",
        "golibx_native_preempt_refused_total",
        "golibx_sched_latency_seconds",
    }
    assert {name: documented[name] for name in expected} == expected
    assert documented.keys() == expected.keys() | others


class Numbered:
    """A runtime with counters that are all different."""

    def __init__(self) -> None:
        self.counted = {key: 1000 + number for number, key in enumerate(golibx.stats())}

    def stats(self) -> dict[str, int]:
        return self.counted

    def latencies(self) -> dict[int, int]:
        return {1023: 3, 2047: 5}


def test_published_metrics_have_their_numbers() -> None:
    runtime: Any = Numbered()
    families = {
        family.name: family for family in metrics._Collector(runtime, has_latency=True).collect()
    }
    published = {
        f"golibx_{name}": (kind, name)
        for kind, names in (("counter", PUBLISHED_COUNTERS), ("gauge", PUBLISHED_GAUGES))
        for name in names.split()
    }
    others = {"golibx_goroutines", "golibx_native_preempt_refused", "golibx_sched_latency_seconds"}
    assert families.keys() == published.keys() | others, "publish the new one here"
    for full, (kind, name) in published.items():
        (sample,) = families[full].samples
        assert families[full].type == kind
        assert sample.value == runtime.counted[KEYS_OF_OTHER_NAMES.get(name, name)], full
    refused = {
        s.labels["reason"]: s.value for s in families["golibx_native_preempt_refused"].samples
    }
    assert refused == {
        key.removeprefix(REFUSED): value
        for key, value in runtime.counted.items()
        if key.startswith(REFUSED)
    }
    latency = {s.name: s.value for s in families["golibx_sched_latency_seconds"].samples}
    assert latency["golibx_sched_latency_seconds_count"] == 8
    assert latency["golibx_sched_latency_seconds_sum"] == (3 * 1023 + 5 * 2047) / 1e9


def test_the_numbers_are_those_of_stats(script: Script) -> None:
    program = """
def main():
    chan = Chan()
    waiting = [go(chan.recv_ok) for _ in range(5)]
    while sum(g.state == "chan receive" for g in waiting) < 5:
        sleep(0.001)
    print(scrape()[2])
    print("# spawns", stats()["spawns"], "stack", stats()["stack_bytes"])
    chan.close()
measured(main)
"""
    text = script.passes(HEADER + program)
    values = values_of(text.partition("# spawns")[0])
    spawns, stack = re.findall(r"# spawns (\d+) stack (\d+)", text)[0]
    assert values["golibx_goroutines{state=chan receive}"] == 5
    assert 5 <= values["golibx_spawns_total"] <= int(spawns)
    assert values["golibx_stack_size_bytes"] == int(stack)


def test_latencies_are_a_histogram(script: Script) -> None:
    program = """
def main():
    there, back = Chan(), Chan()
    go(lambda: [back.send(x) for x in there])
    text = ""
    while "seconds_count 0.0" in text or not text:
        for _ in range(200): there.send(1); back.recv()
        text = scrape()[2]
    print(text)
    there.close()
measured(main, latency=True)
"""
    (family,) = [
        family
        for family in families(script.passes(HEADER + program))
        if family.name == "golibx_sched_latency_seconds"
    ]
    assert family.type == "histogram"
    buckets = [s for s in family.samples if s.name.endswith("_bucket")]
    counts = [sample.value for sample in buckets]
    assert counts == sorted(counts)
    bounds = [float(sample.labels["le"]) for sample in buckets]
    assert bounds == [*(2**bits / 1e9 for bits in range(10, 36)), float("inf")]
    total = {s.name.rpartition("_")[2]: s.value for s in family.samples}
    assert total["count"] == counts[-1] > 0
    assert total["sum"] > 0


def test_buckets_hold_what_is_no_longer_than_their_bound() -> None:
    buckets, total_ns = metrics._buckets({7: 1, 1023: 2, 1151: 4, (1 << 40) - 1: 8})
    assert buckets[:2] == [("1.024e-06", 3), ("2.048e-06", 7)]
    assert buckets[-2:] == [(repr(2**35 / 1e9), 7), ("+Inf", 15)]
    assert total_ns == 7 + 2 * 1023 + 4 * 1151 + 8 * ((1 << 40) - 1)
    assert metrics._buckets({})[0][-1] == ("+Inf", 0)


def test_it_answers_while_goroutines_compute(script: Script) -> None:
    program = """
def main():
    answers = []
    def hog():
        while not answers: pass
    hogs = [go(hog) for _ in range(3)]
    answers.append(scrape()[0])
    for g in hogs: g.join()
    print(answers[0])
measured(main)
"""
    assert script.passes(HEADER + program) == "HTTP/1.1 200 OK\n"


def test_a_thread_and_a_client_of_openmetrics_are_answered(script: Script) -> None:
    program = """
import urllib.request
def main():
    url = f"http://127.0.0.1:{PORT}/metrics"
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    got = []
    def client():
        with urllib.request.urlopen(urllib.request.Request(url, headers=accept)) as answer:
            got.append((answer.headers["Content-Type"], answer.read().decode()))
    thread = threading.Thread(target=client)
    thread.start(); thread.join()
    assert got[0][0].startswith("application/openmetrics-text"), got
    print(got[0][1], end="")
measured(main)
"""
    text = script.passes(HEADER + program)
    assert "golibx_switches" in {family.name for family in openmetrics_families(text)}


SCRAPED = """
def main():
    chan = Chan()
    waiting = [go(chan.recv_ok) for _ in range(5)]
    while sum(g.state == "chan receive" for g in waiting) < 5:
        sleep(0.001)
    for _ in range(20):
        go(int).join()
    print(json.dumps([PORT, stats()]), flush=True)
    sys.stdin.read()
    print(json.dumps(stats()), flush=True)
    chan.close()
measured(main, latency=True)
"""
STEADY = ("spawns", "stack_bytes", "native_gomaxprocs", "events_dropped", "tunings")
"""Those that stay as they are while the program waits for its input."""


@contextmanager
def prometheus(folder: Path, port: int) -> Iterator[str]:
    """A real one that scrapes that port, and where it answers."""
    scrapes = {"job_name": "golibx", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    config = {"global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"}}
    (folder / "prometheus.yml").write_text(json.dumps({**config, "scrape_configs": [scrapes]}))
    command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    process = subprocess.Popen(
        [*command, "--web.listen-address=127.0.0.1:0"],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if found := re.search(r'"Listening on" address=(127\.0\.0\.1:\d+)', line):
            break
    else:
        pytest.fail(said)
    rest = threading.Thread(target=process.stderr.read)
    rest.start()
    try:
        yield f"http://{found[1]}/api/v1/query?query="
    finally:
        process.kill()
        process.wait()
        rest.join()
        process.stderr.close()


def last(metric: str) -> str:
    """A query for the last value there is, even if the scrape after it has failed."""
    return f"last_over_time({metric}[1h])"


def queried(address: str, query: str) -> dict[str, float]:
    """The values by their labels; empty as long as there are none."""
    try:
        with urllib.request.urlopen(address + quote(query), timeout=30) as answer:
            found = json.load(answer)["data"]["result"]
    except HTTPError as exc:
        if exc.code != 503:
            raise
        return {}  # it has not begun to answer
    own = ("__name__", "instance", "job")
    return {
        ",".join(f"{name}={value}" for name, value in each["metric"].items() if name not in own): (
            float(each["value"][1])
        )
        for each in found
    }


@pytest.mark.skipif(not which("prometheus"), reason="apt-get install prometheus, on Debian")
def test_a_real_prometheus_has_the_numbers_of_stats(script: Script) -> None:
    with script.start(HEADER + SCRAPED, limit=55) as process:
        assert process.stdout is not None
        port, counted = json.loads(process.stdout.readline())
        with prometheus(script.cwd, port) as address:
            while not (up := queried(address, "max_over_time(up[1h])")).get("", 0.0):
                assert process.poll() is None, up
            for key in STEADY:
                assert queried(address, last(metrics_name(key))) == {"": counted[key]}, key
            states = queried(address, last("golibx_goroutines"))
            assert states["state=chan receive"] == 5
            buckets = last("golibx_sched_latency_seconds_bucket")
            waits = queried(address, f"histogram_quantile(0.5, {buckets})")
            assert 0 < waits[""] < 60
            # The others have gone on, and are between what they were before and after.
            switches = queried(address, last("golibx_switches_total"))[""]
            out, _ = process.communicate("")
            assert counted["switches"] <= switches <= json.loads(out)["switches"]


def test_what_is_no_scrape_is_refused(script: Script) -> None:
    program = """
def main():
    print(scrape("/other")[0])
    print(scrape(method="POST")[0])
    print(scrape(method="HEAD")[::2])
    print(scrape(host="attacker.example")[0])
    print(scrape(host="attacker.example", method="POST")[0])
    print(scrape(more="Origin: http://attacker.example\\n")[0])
    print(scrape(more="Sec-Fetch-Site: cross-site\\n")[0])
    print(scrape(more=f"Origin: http://localhost:{PORT}\\nSec-Fetch-Site: same-origin\\n")[0])
    print(scrape(host="[::1]")[0], scrape(host="127.0.0.1")[0])
    print(ask("nonsense\\n\\n")[0])
    print(ask("GET /metrics HTTP/1.1\\n" + "X: y\\n" * 3000)[0])
    with net.dial(("127.0.0.1", PORT)): pass
    print(scrape()[0])
measured(main)
"""
    assert script.passes(HEADER + program).splitlines() == [
        "HTTP/1.1 404 Not Found",
        "HTTP/1.1 405 Method Not Allowed",
        "('HTTP/1.1 200 OK', '')",
        "HTTP/1.1 403 Forbidden",
        "HTTP/1.1 403 Forbidden",
        "HTTP/1.1 403 Forbidden",
        "HTTP/1.1 403 Forbidden",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200 OK HTTP/1.1 200 OK",
        "HTTP/1.1 400 Bad Request",
        "HTTP/1.1 431 Request Header Fields Too Large",
        "HTTP/1.1 200 OK",
    ]


ANOTHER_USER = """
import encodings.idna, os, sys, urllib.request
os.setgroups([])
os.setuid(65534)
for ask in (lambda: urllib.request.urlopen(sys.argv[1], timeout=30), lambda: open(sys.argv[2])):
    try:
        with ask() as file:
            print("# EOF" in str(file.read()))
    except OSError as exc:
        print(type(exc).__name__)
"""
TOLD = """
import os
def main():
    print(PORT, flush=True)
    sys.stdin.read()
os.umask(int(sys.argv[2], 8))
measured(main, file=sys.argv[1], **({"listen": ""} if sys.argv[3:] else {}))
"""


@NEEDS_ROOT
@pytest.mark.parametrize(
    ("umask", "more", "said"),
    [
        ("022", [], ["False", "True"]),  # over HTTP what asks for no OpenMetrics has no such end
        ("077", [], ["False", "PermissionError"]),
        ("077", ["listens nowhere"], ["URLError", "PermissionError"]),
    ],
)
def test_what_another_user_reads(
    script: Script, umask: str, more: list[str], said: list[str]
) -> None:
    """As the page says: at an address all users; a file those that the program's umask lets."""
    with TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = os.path.join(folder, "golibx.prom")
        with script.start(HEADER + TOLD, path, umask, *more, limit=55) as process:
            assert process.stdout is not None
            url = f"http://127.0.0.1:{int(process.stdout.readline())}/metrics"
            assert as_another_user(ANOTHER_USER, url, path).split() == said
            process.communicate("")


def test_who_sends_slowly_keeps_nobody_waiting(script: Script) -> None:
    program = """
def main():
    silent = [net.dial(("127.0.0.1", PORT)) for _ in range(40)]
    for conn in silent[20:]: conn.sendall(b"GET /metrics HT")
    print(scrape()[0])  # within its 30 seconds: 40 times 2 are more
    for conn in silent: conn.close()
measured(main)
"""
    assert script.passes(HEADER + program) == "HTTP/1.1 200 OK\n"


def test_other_hosts_only_where_it_is_said(script: Script) -> None:
    program = """
def main():
    print(scrape(host="metrics.example")[0])
try:
    measured(main, listen=f"0.0.0.0:{PORT}")
except golibx.ConfigError as exc:
    print(exc)
measured(main, listen=f"0.0.0.0:{PORT}", remote=True)
"""
    refusal, answer = script.passes(HEADER + program).splitlines()
    assert "plugins.metrics.listen = " in refusal
    assert "other hosts reach it: set remote = true if they are to" in refusal
    assert answer == "HTTP/1.1 200 OK"


def test_nothing_listens_where_there_is_no_address(script: Script) -> None:
    program = """
def main():
    try:
        net.dial(("127.0.0.1", PORT))
    except ConnectionRefusedError:
        print("refused")
measured(main, listen="", file="m.txt")
"""
    assert script.passes(HEADER + program) == "refused\n"


def test_the_file_is_complete_whenever_it_is_read(script: Script) -> None:
    program = """
def main():
    seen = set()
    while len(seen) < 4:
        with open("m.txt") as file: text = file.read()
        assert text.rstrip().endswith("# EOF"), text[-100:]
        seen.add(text)
        sleep(0.01)
    import os
    print(os.listdir("."))
measured(main, listen="", file="m.txt", interval="100ms")
"""
    assert script.passes(HEADER + program) == "['m.txt']\n"
    text = (script.cwd / "m.txt").read_text()
    assert "golibx_switches" in {family.name for family in openmetrics_families(text)}


def test_a_deadlock_is_still_found(script: Script) -> None:
    program = """
try:
    measured(lambda: Chan().recv(), file="m.txt")
except golibx.Deadlock as exc:
    print(str(exc).splitlines()[0])
"""
    expected = "all goroutines are asleep - deadlock! (1 goroutine)\n"
    assert script.passes(HEADER + program) == expected


def refusal(**settings: object) -> str:
    config = Config.from_mapping({"plugins": {"metrics": settings}}, environ={})
    with pytest.raises(ConfigError) as caught:
        metrics.Plugin().golib_configure(config, "metrics")
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"listen": "9464"}, 'plugins.metrics.listen = "9464": not "host:port"'),
        ({"listen": "127.0.0.1:65536"}, 'not "host:port"'),
        ({"listen": "::1:9464"}, 'not "host:port"'),
        ({"listen": "[::]:9464"}, "other hosts reach it"),
        ({"listen": ":9464"}, "other hosts reach it"),
        ({"listen": ""}, "is empty, as `file` is: the metrics would go nowhere"),
        ({"listen": "192.0.2.7:9464", "remote": True}, "can't be listened on: Cannot assign"),
        ({"file": "no/such/folder/m.txt"}, "can't be written"),
        ({"interval": "1ms"}, "out of range (allowed: 100ms to 1h)"),
        ({"lisen": "x"}, "did you mean plugins.metrics.listen?"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], text: str) -> None:
    assert text in refusal(**settings)


def test_a_port_in_use_is_said_before_the_run() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        text = refusal(listen=f"127.0.0.1:{port}")
    assert f'plugins.metrics.listen = "127.0.0.1:{port}": can\'t be listened on: Address' in text


def test_a_missing_package_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    text = refusal()
    assert "metrics needs the package prometheus-client: pip install 'golibx[metrics]'" in text
