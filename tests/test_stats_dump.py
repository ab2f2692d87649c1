"""stats(), stacks() and the text of a deadlock: what tells people what the goroutines do."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

import golibx
from golibx import (
    Chan,
    DeadlineExceeded,
    Deadlock,
    Timer,
    WaitGroup,
    _core,
    current,
    dump,
    go,
    gosched,
    native,
    net,
    num_goroutine,
    select,
    sleep,
    stacks,
    stats,
)
from golibx.testing import wait_until, wait_until_parked

# Without preemption, so that a slow machine does not change which goroutine runs when.
pytestmark = pytest.mark.goroutine(preempt={"async": False})

KEYS = {
    "goroutines",
    "threads",
    "threads_waiting",
    "switches",
    "spawns",
    "preemptions",
    "preempt_requests",
    "handoffs",
    "retakes",
    "retakes_in_vain",
    "lock_offers",
    "threads_kept",
    "threads_not_kept",
    "threads_awaited",
    "steals",
    "netpolls",
    "netpoll_wakeups",
    "timers",
    "runq",
    "idle",
    "events_dropped",
    "stacks_total",
    "stacks_free",
    "stack_bytes",
} | {f"native_{name}" for name in native.counters() if name != "steals"}


# ---- stats ----


def test_keys_and_types() -> None:
    found = stats()
    assert set(found) >= KEYS
    assert all(type(value) is int and value >= 0 for value in found.values())


@pytest.mark.goroutine(False)
def test_outside_a_run() -> None:
    golibx.run(lambda: None)
    found = stats()
    assert set(found) >= KEYS
    assert found["goroutines"] == found["threads"] == found["timers"] == found["runq"] == 0
    assert stacks() == ""


def test_goroutines_are_listed_the_oldest_first() -> None:
    chan: Chan[int] = Chan()
    first, second = go(chan.recv), go(chan.recv)
    wait_until_parked(first, second)
    assert golibx.goroutines() == [current(), first, second]
    assert set(golibx.goroutines(system=True)) >= {current(), first, second}
    assert re.fullmatch(
        rf"goroutine {second.id} \[chan receive\] Chan.recv:\n(    .+\n)+", stacks([second])
    )
    assert stacks([]) == ""
    for each in (first, second):
        each.cancel()
        each.join()
    assert golibx.goroutines() == [current()]


def test_spawns_and_switches_are_counted() -> None:
    before = stats()
    for _ in range(10):
        go(gosched).join()
    after = stats()
    assert after["spawns"] - before["spawns"] == 10
    assert after["switches"] - before["switches"] >= 20


def test_goroutines_runq_and_timers() -> None:
    ch: Chan[int] = Chan()
    before = stats()
    goroutines = [go(ch.recv) for _ in range(5)] + [go(ch.recv, 1000) for _ in range(3)]
    now = stats()
    assert now["goroutines"] - before["goroutines"] == 8 == num_goroutine() - 1
    assert now["runq"] - before["runq"] == 8
    gosched()
    now = stats()
    assert now["runq"] == before["runq"]
    assert now["timers"] - before["timers"] == 3
    for i in range(8):
        ch.send(i)
    for g in goroutines:
        g.join()
    assert stats()["goroutines"] == before["goroutines"]
    assert stats()["timers"] == before["timers"]


@pytest.mark.goroutine(stack={"size": "256KiB"}, preempt={"async": False})
def test_stacks_are_used_again() -> None:
    assert stats()["stack_bytes"] == 256 * 1024
    for _ in range(20):
        group = WaitGroup()
        for _ in range(10):
            group.go(gosched)
        group.wait()
    found = stats()
    assert found["stacks_total"] <= 64
    assert found["stacks_free"] >= 9


def test_network_wakeups_are_counted() -> None:
    with net.listen(("127.0.0.1", 0)) as listener:
        accepting = go(listener.accept)
        gosched()
        before = stats()
        net.dial(("127.0.0.1", listener.address[1])).close()
        accepting.result()[0].close()
        after = stats()
    assert after["netpolls"] > before["netpolls"]
    assert after["netpoll_wakeups"] > before["netpoll_wakeups"]


@pytest.mark.goroutine(False)
def test_counters_start_anew_with_each_run() -> None:
    def main() -> int:
        go(gosched).join()
        return stats()["spawns"]

    assert golibx.run(main) == golibx.run(main)


@pytest.mark.goroutine(preempt={})
def test_info() -> None:
    found = _core.info()
    assert all(isinstance(k, str) and isinstance(v, str) for k, v in found.items())
    assert found["preempt"] in ("trace", "monitoring")
    assert found["preempt_reason"] == ""
    assert found["retake"] != "none"


# ---- stacks ----


def wait_in(ch: Chan[int]) -> int:
    return ch.recv()


def test_a_goroutines_stack() -> None:
    ch: Chan[int] = Chan()
    g = go(wait_in, ch)
    gosched()
    me = current()
    assert me is not None
    text = stacks()
    blocks = text.split("\n\n")
    [own] = [b for b in blocks if b.startswith(f"goroutine {me.id} ")]
    assert own.startswith(f"goroutine {me.id} [running]")
    assert "test_a_goroutines_stack at " in own.splitlines()[1]
    assert "golibx/dump.py" not in own
    [other] = [b for b in blocks if b.startswith(f"goroutine {g.id} ")]
    lines = other.splitlines()
    assert re.fullmatch(rf"goroutine {g.id} \[chan receive\] wait_in:", lines[0])
    assert re.fullmatch(rf"    wait_in at {re.escape(__file__)}:\d+", lines[1])
    assert lines[2] == f"    waits on {ch!r}"
    created = rf"    created by goroutine {me.id} at {re.escape(__file__)}:\d+"
    assert re.fullmatch(created, lines[3])
    assert blocks.index(own) < blocks.index(other)
    ch.send(1)


@pytest.mark.goroutine(False)
def test_the_main_goroutines_stack_begins_with_the_program() -> None:
    """Nothing of golibx lies below it."""

    def main() -> str:
        return golibx.stacks()

    (entry,) = [e for e in golibx.run(main).split("\n\n") if e.startswith("goroutine 1 ")]
    frames = [line for line in entry.splitlines() if line.startswith("    ")]
    assert len(frames) == 1
    assert ".main at " in frames[0]


@pytest.mark.goroutine(leaks=False)
def test_wait_reasons() -> None:
    ch: Chan[int] = Chan()
    group = WaitGroup()
    group.add()
    names = {
        "receives": go(ch.recv),
        "sends": go(Chan[int]().send, 1),
        "selects": go(lambda: select(ch.on_recv())),
        "sleeps": go(sleep, 100),
        "waits": go(group.wait),
    }
    for name, g in names.items():
        g.name = name
    names["joins"] = go(names["sleeps"].join)
    names["joins"].name = "joins"
    gosched()
    gosched()
    text = stacks()
    reasons = {name: re.search(rf"\[(.+)\] {name}:", text) for name in names}
    assert all(reasons.values()), text
    assert len({m[1] for m in reasons.values() if m}) == len(names)


def test_equal_goroutines_are_grouped() -> None:
    ch: Chan[int] = Chan()
    goroutines = [go(wait_in, ch) for _ in range(20)]
    gosched()
    text = stacks()
    [headline] = [line for line in text.splitlines() if "wait_in:" in line]
    ids = ", ".join(str(g.id) for g in goroutines[:8])
    assert headline == f"20 goroutines [chan receive] wait_in: {ids}, …"
    assert text.count("wait_in at") == 1
    for i in range(20):
        ch.send(i)


def test_different_places_are_not_grouped() -> None:
    ch: Chan[int] = Chan()

    def other_place() -> int:
        return ch.recv()

    go(wait_in, ch)
    go(other_place)
    gosched()
    text = stacks()
    assert "] wait_in:" in text
    assert "other_place:" in text
    assert "2 goroutines" not in text
    ch.close()
    for g in _core.goroutines():
        if g is not current():
            g.join()
            assert g.exception is not None


@pytest.mark.goroutine(preempt={"async": False})  # it would have started
@pytest.mark.goroutine(leaks=False)
def test_goroutines_that_have_not_started() -> None:
    g = go(wait_in, Chan[int]())
    text = stacks()
    [block] = [b for b in text.split("\n\n") if b.startswith(f"goroutine {g.id} ")]
    assert "[runnable] wait_in:" in block
    assert "created by goroutine" in block
    assert "wait_in at" not in block


def test_system_goroutines_are_hidden() -> None:
    ch: Chan[int] = Chan()
    _core.go_system(wait_in, ch)
    gosched()
    assert "wait_in" not in stacks()
    assert "wait_in" in stacks(system=True)
    ch.send(1)


def test_blocked_goroutines_are_shown_with_their_stack() -> None:
    r, w = os.pipe()

    def reads() -> bytes:
        return os.read(r, 1)

    g = go(reads)
    wait_until(lambda: g.state == "syscall")
    [block] = [b for b in stacks().split("\n\n") if b.startswith(f"goroutine {g.id} ")]
    assert "[syscall]" in block
    assert "reads at" in block
    os.write(w, b"x")
    g.join()
    os.close(r)
    os.close(w)


def test_many_goroutines() -> None:
    start: Chan[None] = Chan()
    for _ in range(3000):
        go(start.recv_ok)
    gosched()
    assert "3000 goroutines" in stacks()
    start.close()


def test_stacks_from_a_thread() -> None:
    ch: Chan[int] = Chan()
    go(wait_in, ch)
    gosched()
    out: list[str] = []
    thread = threading.Thread(target=lambda: out.append(stacks()))
    thread.start()
    thread.join()
    assert "wait_in at" in out[0]
    ch.send(1)


def test_a_group_may_wait_on_different_objects() -> None:
    channels = [Chan[int]() for _ in range(3)]
    ids = [go(wait_in, ch).id for ch in channels]
    gosched()
    [block] = [b for b in stacks().split("\n\n") if "wait_in:" in b]
    assert f"3 goroutines [chan receive] wait_in: {', '.join(map(str, ids))}" in block
    assert all(f"    waits on {ch!r}\n" in block for ch in channels)
    for ch in channels:
        ch.send(1)


def test_others_that_wait_on_the_same_object_are_named() -> None:
    ch: Chan[int] = Chan()

    def selects() -> None:
        select(ch.on_recv(), Chan[int]().on_recv(), ch.on_recv())

    a, b = go(wait_in, ch), go(selects)
    gosched()
    text = stacks()
    assert f"    waits on {ch!r}, as goroutine {a.id}\n" in text
    assert f"    waits on {ch!r}, as goroutine {b.id}\n" in text
    [block] = [block for block in text.split("\n\n") if "selects:" in block]
    assert block.count(repr(ch)) == 1, "it has two cases"
    for g in (a, b):
        ch.send(1)
        g.join()


def test_how_long_a_goroutine_has_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    ch: Chan[int] = Chan()
    for _ in range(3):
        go(wait_in, ch)
    gosched()
    member = dump._Member
    waits = iter([61.0, 59.9, 725.0])

    class Later(member):  # type: ignore[valid-type,misc]
        __slots__ = ()

        def __init__(self, goroutine: golibx.Goroutine[object]) -> None:
            super().__init__(goroutine)
            if self.state == "chan receive":
                self.waited = next(waits)

    monkeypatch.setattr(dump, "_Member", Later)
    assert "3 goroutines [chan receive, 0~12 minutes] wait_in:" in stacks()
    ch.close()
    for g in _core.goroutines():
        if g is not current():
            g.join()
            assert g.exception is not None


def test_waited_grows_while_a_goroutine_waits() -> None:
    ch: Chan[int] = Chan()
    g = go(wait_in, ch)
    assert g.waited == 0.0
    gosched()
    first = g.waited
    wait_until(lambda: g.waited >= first + 0.02)
    h = go(wait_in, ch)
    gosched()
    assert 0.0 <= h.waited < g.waited
    ch.send(1)
    ch.send(1)
    g.join()
    assert g.waited == 0.0


def test_what_a_goroutine_waits_on() -> None:
    ch: Chan[int] = Chan()
    other: Chan[int] = Chan(1)
    group = WaitGroup()
    group.add()
    many = [Chan[int]() for _ in range(20)]
    sleeps = go(sleep, 1000)
    expected: list[tuple[golibx.Goroutine[Any], object]] = [
        (go(ch.recv), ch),
        (go(ch.recv, 1000), ch),
        (go(lambda: next(ch)), ch),
        (go(select, ch.on_recv(), None, other.on_recv()), (ch, None, other)),
        (go(select, *(each.on_recv() for each in many)), tuple(many)),
        (go(select), None),
        (go(group.wait), group),
        (go(sleeps.join), sleeps),
        (sleeps, None),
    ]
    gosched()
    for g, on in expected:
        assert g.waiting
        assert g.waiting_on == on
    me = current()
    assert me is not None
    assert not me.waiting
    assert me.waiting_on is None
    for g, _ in expected:
        g.cancel()
        g.join()
        assert not g.waiting
        assert g.waiting_on is None


@pytest.mark.parametrize("woken", ["served", "timed out"])
def test_what_was_waited_on_before_is_not_named(woken: str) -> None:
    ch: Chan[int] = Chan()

    def wait_in() -> None:
        try:
            ch.recv(timeout=None if woken == "served" else 0.001)
        except DeadlineExceeded:
            pass
        sleep(1000)

    g = go(wait_in)
    if woken == "served":
        wait_until(lambda: g.waiting_on is ch)
        ch.send(1)
    wait_until_parked(g, state="sleep")
    assert g.waiting_on is None
    [block] = [b for b in stacks().split("\n\n") if b.startswith(f"goroutine {g.id} ")]
    assert "waits on" not in block
    g.cancel()
    g.join()


def test_sockets_and_native_objects_are_waited_on() -> None:
    with net.listen(("127.0.0.1", 0)) as listener:
        g = go(listener.accept)
        numbers = native.Chan(ctypes.c_int)
        h = go(numbers.recv)
        gosched()
        assert g.waiting_on is listener
        assert h.waiting_on is numbers
        for each in (g, h):
            each.cancel()
            each.join()


@pytest.mark.goroutine(leaks=False)
def test_cases_of_all_kinds_are_waited_on() -> None:
    ch: Chan[int] = Chan()
    other: Chan[int] = Chan()
    timer = Timer(1000)
    numbers = native.Chan(ctypes.c_int)
    sleeps = go(sleep, 1000)
    with net.listen(("127.0.0.1", 0)) as listener:
        cases = (
            ch.receiver().on_recv(),
            ch.sender().on_send(1),
            timer.on_fire(),
            listener.on_accept(),
            numbers.on_recv(),
            sleeps.on_done(),
            None,
        )
        expected: list[tuple[golibx.Goroutine[Any], object]] = [
            (go(select, *cases), (ch, ch, timer.c, listener, numbers, sleeps, None)),
            (go(timer.c.recv), timer.c),
            (go(lambda: next(iter(timer.c))), timer.c),
            (go(other.receiver().recv), other),
        ]
        gosched()
        for g, on in expected:
            assert g.waiting
            assert g.waiting_on == on
        assert "<TimeChan" in golibx.stacks()
        for g, _ in expected:
            g.cancel()
            g.join()
            assert g.waiting_on is None


# ---- native goroutines ----


def test_native_goroutines_are_shown_while_they_run() -> None:
    libc = ctypes.CDLL(None)
    r, w = os.pipe()
    buffer = ctypes.create_string_buffer(1)
    g = go(lambda: native.call(libc.read, r, buffer, 1, restype=ctypes.c_ssize_t))
    numbers = native.Chan(ctypes.c_int64)
    wait_until(lambda: any("read" in row[2] for row in _core.native_goroutines()))
    text = stacks()
    assert re.search(
        r"^native goroutine \d+ \[\w+\]:\n    (__|_)?(libc_)?read$", text, re.MULTILINE
    ), text
    os.write(w, b"x")
    assert g.result() == 1
    os.close(r)
    os.close(w)
    numbers.close()
    wait_until(lambda: not any("read" in row[2] for row in _core.native_goroutines()))


def test_native_goroutines_say_which_lock_they_wait_for() -> None:
    lib = ctypes.CDLL(_core.__file__)
    mutex, taken, cond, semaphore = ((ctypes.c_uint64 * 4)() for _ in range(4))
    forever = ctypes.c_int64((1 << 63) - 1)
    lib.golibx_mutex_lock(taken)

    def waits_for_a_signal() -> None:
        native.call(lib.golibx_mutex_lock, mutex, restype=None)
        assert native.call(lib.golibx_cond_wait, cond, mutex, forever) == 0

    waiting = [
        go(native.call, lib.golibx_mutex_lock, taken, restype=None),
        go(native.call, lib.golibx_sem_acquire, semaphore, forever),
        go(waits_for_a_signal),
    ]
    expected = {"sync.Mutex.Lock", "semacquire", "sync.Cond.Wait"}
    wait_until(lambda: expected == {row[1] for row in _core.native_goroutines()})
    lib.golibx_mutex_unlock(taken)
    lib.golibx_sem_release(semaphore)
    lib.golibx_cond_signal(cond)
    ok = 0
    assert [g.result() for g in waiting] == [None, ok, None]


# ---- deadlock ----


def forever() -> None:
    Chan[int]().recv()


@pytest.mark.goroutine(False)
def test_main_alone() -> None:
    with pytest.raises(Deadlock, match="all goroutines are asleep - deadlock!") as info:
        golibx.run(forever)
    text = str(info.value)
    assert "(1 goroutine)" in text
    assert "goroutine 1 [chan receive]" in text
    assert "forever at" in text


@pytest.mark.goroutine(False)
def test_every_goroutine_is_in_the_text() -> None:
    def main() -> None:
        a: Chan[int] = Chan()
        b: Chan[int] = Chan()
        group = WaitGroup()
        group.go(wait_in, a).name = "first"
        group.go(lambda: b.send(1)).name = "second"
        group.wait()

    with pytest.raises(Deadlock) as info:
        golibx.run(main)
    text = str(info.value)
    assert "(3 goroutines)" in text
    assert re.search(r"goroutine 1 \[.*wait.*\]", text)
    assert "[chan receive] first:" in text
    assert "wait_in at" in text
    assert "[chan send] second:" in text
    assert text.count("waits on <Chan 0x") == 2
    assert "waits on <WaitGroup 0x" in text
    assert text.count(f"created by goroutine 1 at {__file__}:") == 2


@pytest.mark.goroutine(False)
def test_who_has_what_is_waited_on() -> None:
    out: list[Chan[int]] = []

    def has(ch: Chan[int]) -> None:
        Chan[int]().recv()
        ch.send(1)

    def has_it_in_a_closure(ch: Chan[int]) -> None:
        def inner() -> None:
            Chan[int]().recv()
            ch.send(1)

        inner()

    def main() -> None:
        ch: Chan[int] = Chan()
        out.append(ch)
        go(has, ch)
        go(has_it_in_a_closure, ch)
        ch.recv()

    with pytest.raises(Deadlock) as info:
        golibx.run(main)
    held = f"waits on {out[0]!r}, which is also a variable in goroutines 2, 3\n"
    assert held in str(info.value)


@pytest.mark.goroutine(False)
@pytest.mark.parametrize("how", ["recv", "send", "select", "join", "wait", "none"])
def test_every_way_to_wait_for_ever(how: str) -> None:
    def main() -> None:
        ch: Chan[int] = Chan()
        group = WaitGroup()
        group.add()
        stuck = go(forever)
        {
            "recv": ch.recv,
            "send": lambda: ch.send(1),
            "select": lambda: select(ch.on_recv(), ch.on_send(1)),
            "join": stuck.join,
            "wait": group.wait,
            "none": select,
        }[how]()

    with pytest.raises(Deadlock):
        golibx.run(main)


@pytest.mark.goroutine(False)
def test_a_deadlock_can_be_caught() -> None:
    def main() -> list[str]:
        log = []
        ch: Chan[int] = Chan(1)
        for _ in range(3):
            try:
                ch.recv()
            except Deadlock:
                log.append("caught")
        go(ch.send, 1)
        log.append(str(ch.recv()))
        return log

    assert golibx.run(main) == ["caught"] * 3 + ["1"]


@pytest.mark.goroutine(False)
def test_others_are_cancelled_after_a_deadlock() -> None:
    log: list[str] = []

    def f() -> None:
        try:
            forever()
        finally:
            log.append("ended")

    def main() -> None:
        go(f)
        forever()

    with pytest.raises(Deadlock):
        golibx.run(main)
    assert log == ["ended"]


@pytest.mark.goroutine(False)
def test_main_not_waiting_is_no_deadlock() -> None:
    def main() -> int:
        go(forever)
        gosched()
        return sum(range(10))

    assert golibx.run(main) == 45


@pytest.mark.goroutine(False)
def test_waiting_for_a_timer_is_no_deadlock() -> None:
    def main() -> str:
        ch: Chan[str] = Chan()
        go(lambda: (sleep(0.02), ch.send("timer")))
        return ch.recv()

    assert golibx.run(main) == "timer"


@pytest.mark.goroutine(False)
def test_waiting_for_the_network_is_no_deadlock() -> None:
    def main() -> bytes:
        ch: Chan[bytes] = Chan()
        with net.listen(("127.0.0.1", 0)) as listener:
            port = listener.address[1]

            def accept() -> None:
                conn, _ = listener.accept()
                with conn:
                    ch.send(conn.recv(10))

            go(accept)
            # In another process, so that no goroutine of this one is runnable meanwhile.
            connects = (
                "import socket, sys\n"
                "socket.create_connection(('127.0.0.1', int(sys.argv[1]))).sendall(b'net')"
            )
            with subprocess.Popen([sys.executable, "-c", connects, str(port)]):
                return ch.recv()

    assert golibx.run(main) == b"net"


@pytest.mark.goroutine(False)
def test_a_system_goroutine_does_not_hide_a_deadlock() -> None:
    def main() -> None:
        _core.go_system(sleep, 1000)
        _core.go_system(forever)
        forever()

    with pytest.raises(Deadlock):
        golibx.run(main)


@pytest.mark.goroutine(False)
def test_a_thread_may_still_wake_main() -> None:
    def main() -> int:
        ch: Chan[int] = Chan()
        me = current()
        assert me is not None

        def in_thread() -> None:
            wait_until(lambda: "receive" in me.state)
            time.sleep(0.02)
            assert ch.try_send(5)

        thread = threading.Thread(target=in_thread)
        thread.start()
        try:
            return ch.recv()
        finally:
            thread.join()

    assert golibx.run(main) == 5


@pytest.mark.goroutine(False)
def test_a_deadlock_is_seen_once_the_last_thread_has_ended() -> None:
    def main() -> None:
        thread = threading.Thread(target=time.sleep, args=(0.02,))
        thread.start()
        forever()

    with pytest.raises(Deadlock):
        golibx.run(main)


@pytest.mark.goroutine(False)
def test_a_run_on_another_thread_finds_its_deadlocks() -> None:
    out: list[BaseException] = []

    def in_thread() -> None:
        try:
            golibx.run(forever)
        except Deadlock as exc:
            out.append(exc)

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert len(out) == 1
