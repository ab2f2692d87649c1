"""What the plugin logs: by events that it is fed, and in runs."""

from __future__ import annotations

import pytest
from golibx_slowwait import Plugin

from golibx import Chan, ConfigError, go, sleep
from golibx.hookspec import GoroutineExit, GoroutinePark, GoroutineReady
from golibx.testing.plugins import feed, run_with

MS = 1_000_000


def wait(ms: int, reason: str = "chan receive", lane: str = "python") -> tuple[object, ...]:
    """The two events of a wait that lasted so long."""
    return GoroutinePark(0, lane, 7, reason), GoroutineReady(ms * MS, lane, 7, 1)


@pytest.mark.parametrize(("ms", "late"), [(199, 0), (200, 1), (3000, 1)])
def test_a_wait_is_late_from_the_limit_on(ms: int, late: int) -> None:
    seen = feed(Plugin, *wait(ms), settings={"limit": "200ms"})
    assert seen.error is None
    assert seen.plugin.late == late


def test_what_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    feed(Plugin, *wait(1500, "select", "native"))
    assert caplog.messages == ["goroutine 7 (native) waited 1500 ms: select"]


def test_what_is_ignored() -> None:
    assert feed(Plugin, *wait(5000, "sleep")).plugin.late == 0
    settings = {"ignore": ["select"]}
    seen = feed(Plugin, *wait(5000, "sleep"), *wait(5000, "select"), settings=settings)
    assert seen.plugin.late == 1


def test_the_lanes_have_their_own_numbers() -> None:
    park, _ = wait(5000, lane="native")
    _, ready = wait(5000, lane="python")
    assert feed(Plugin, park, ready).plugin.late == 0


def test_nothing_is_kept_of_goroutines_that_have_ended() -> None:
    park, ready = wait(1)
    ended = GoroutineExit(2, "python", 7, 2, "cancelled")
    assert feed(Plugin, park, ready).plugin.waiting == {}
    assert feed(Plugin, park, ended, ready).plugin.waiting == {}


def test_a_run(caplog: pytest.LogCaptureFixture) -> None:
    def main() -> None:
        ch: Chan[int] = Chan()
        receiver = go(ch.recv)
        sleep(0.02)
        ch.send(1)
        receiver.join()

    seen = run_with(Plugin, main, settings={"limit": "10ms"})
    assert seen.error is None
    assert seen.stats.state == "active"
    (ready,) = [event for event in seen.of(GoroutineReady) if event.goroutine_id != 1]
    assert f"goroutine {ready.goroutine_id} (python) waited " in caplog.text
    assert caplog.messages[-1].endswith("longer than the limit")


def test_a_limit_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"limit = \"0\": out of range"):
        feed(Plugin, settings={"limit": "0"})
