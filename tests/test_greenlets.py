"""greenlet in goroutines, and gevent beside them."""

from __future__ import annotations

import pytest

from conftest import Script

pytest.importorskip("greenlet")

WORK = """
import time
from golibx import go, run, sleep
def work(greenlet, make):
    made = []
    for _ in range(20):
        def a():
            for i in range(5):
                made.append(greenlet.getcurrent())
                g2.switch()
                sleep(0)
        def b():
            for i in range(5):
                g1.switch()
                time.sleep(0.0001)
        g1, g2 = make(a), make(b)
        g1.switch()
        sleep(0.0001)
    return len(made)
"""

BEFORE = """
import greenlet
class Own(greenlet.greenlet):
    pass
"""


@pytest.mark.parametrize("make", ["greenlet.greenlet", "Own"])
def test_greenlets_in_goroutines(script: Script, make: str) -> None:
    """They were made, and classes of them too, before golibx was imported."""
    program = f"""
{BEFORE}{WORK}
def main():
    return [g.result() for g in [go(work, greenlet, {make}) for _ in range(20)]]
print(set(run(main)), set(run(main)))
"""
    assert script.passes(program) == "{100} {100}\n"


def test_greenlet_is_imported_in_a_goroutine(script: Script) -> None:
    program = f"""
{WORK}
def each():
    import greenlet
    return work(greenlet, greenlet.greenlet)
def main():
    return [g.result() for g in [go(each) for _ in range(20)]]
print(set(run(main)))
"""
    assert script.passes(program) == "{100}\n"


def test_a_goroutine_with_greenlets_has_a_thread_of_its_own(script: Script) -> None:
    program = """
import greenlet
from golibx import current, go, run
def uses():
    before = current().locked
    greenlet.getcurrent()
    return before, current().locked
def main():
    print(go(uses).result(), go(lambda: current().locked).result())
run(main)
"""
    assert script.passes(program) == "(False, True) False\n"


def test_another_goroutines_greenlet_is_refused(script: Script) -> None:
    program = """
import greenlet
from golibx import Chan, go, run
def main():
    ch, done = Chan(), Chan()
    def makes():
        g = greenlet.greenlet(lambda: 1)
        ch.send(g)
        done.recv()
        return g.switch()
    owner = go(makes)
    g = ch.recv()
    def other():
        greenlet.getcurrent()
        try:
            greenlet.greenlet(lambda: 1).switch()
            g.switch()
        except greenlet.error as e:
            return str(e)
    print("different thread" in str(go(other).result()))
    done.send(1)
    print(owner.result())
run(main)
"""
    assert script.passes(program) == "True\n1\n"


def test_gevent_does_not_patch_inside_a_run(script: Script) -> None:
    pytest.importorskip("gevent")
    program = """
from gevent import monkey
from golibx import go, run
def main():
    for patch in (monkey.patch_all, monkey.patch_thread):
        try:
            patch()
        except RuntimeError as e:
            print(str(e).split(":")[0])
run(main)
monkey.patch_all()
try:
    run(main)
except RuntimeError as e:
    print(str(e).split(":")[0])
"""
    assert script.passes(program).splitlines() == [
        "gevent.monkey.patch_all() inside golibx.run()",
        "gevent.monkey.patch_thread() inside golibx.run()",
        "gevent.monkey has patched threading in this process",
    ]
