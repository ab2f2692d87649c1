"""scope() against what it promises, under seeded schedules: see stateful.py.

Which children fail before the first error has cancelled them depends on the schedule. So the model
is what must be true whenever all goroutines wait.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from golibx import Cancelled, Chan, Goroutine, context, go, scope
from stateful import ANY, Machine, Op, check, settle


class Fault(Exception):
    """What a child or the block raises, with its number."""


BLOCK = -1


class ScopeMachine(Machine[None]):
    """A scope. Its block and children wait until they are let go, to return or to fail."""

    @rule(kind=st.sampled_from(["return", "fail", "linger"]))
    def spawn(self, kind: str) -> None:
        self.add("spawn", kind)

    @rule(number=ANY)
    def let_go(self, number: int) -> None:
        target = self.earlier("spawn", number)
        if target is not None:
            self.add("let go", target)

    @rule(fails=st.booleans(), really=st.integers(0, 3))
    def end_block(self, fails: bool, really: int) -> None:
        if not really:
            self.add("end block", fails)

    @rule(how=st.sampled_from(["scope", "around"]), really=st.integers(0, 5))
    def cancel(self, how: str, really: int) -> None:
        if not really:
            self.add("cancel", how)

    def play(self) -> None:
        self.children: dict[int, Goroutine[int]] = {}
        self.kinds: dict[int, str] = {}
        self.gates: dict[int, Chan[bool]] = {BLOCK: Chan(1)}
        self.let: set[int] = set()
        self.cancelled: set[str] = set()
        self.faults: dict[int, Fault] = {}
        self.refused: set[int] = set()
        self.result: Any = None
        self.around, self.cancel_around = context.with_cancel(context.background())
        block = go(self.block)
        settle()
        for batch in self.batches:
            for op in batch:
                go(self.do, op)
            ended = block.done()
            settle()
            self.judge(batch, block, ended)

    def block(self) -> None:
        try:
            with self.around, scope() as self.scope:
                if self.gates[BLOCK].recv():
                    self.fail(BLOCK)
            self.result = "ended"
        except BaseException as exc:
            self.result = exc

    def fail(self, number: int) -> None:
        self.faults[number] = Fault(number)
        raise self.faults[number]

    def child(self, number: int, kind: str) -> int:
        try:
            self.gates[number].recv()
        except Cancelled:
            if kind == "linger":  # cleans up, for which it has to wait
                with context.without_cancel(context.current()):
                    Chan[int](1).send(1)
            raise
        if kind == "fail":
            self.fail(number)
        return number

    def do(self, op: Op) -> None:
        number, name, *args = op
        if name == "spawn":
            self.gates[number] = Chan(1)
            self.kinds[number] = args[0]
            try:
                self.children[number] = self.scope.go(self.child, number, args[0])
            except RuntimeError:
                self.refused.add(number)
        elif name == "let go":
            self.let.add(args[0])
            self.gates[args[0]].try_send(False)
        elif name == "end block":
            self.let.add(BLOCK)
            self.gates[BLOCK].try_send(args[0])
        elif name == "cancel":
            self.cancelled.add(args[0])
            self.scope.cancel() if args[0] == "scope" else self.cancel_around()

    def judge(self, batch: list[Op], block: Goroutine[None], ended: bool) -> None:
        cancelled = bool(self.cancelled or self.faults)
        for number, child in self.children.items():
            if not child.done():
                assert number not in self.let
                assert not cancelled, f"child {number} was not cancelled"
                continue
            if number in self.faults:
                assert child.exception is self.faults[number]
            elif child.exception is None:
                assert number in self.let
                assert child.result() == number
            else:
                assert isinstance(child.exception, Cancelled)
                assert cancelled, f"child {number} was cancelled without a cause"
        is_over = all(child.done() for child in self.children.values())
        assert block.done() == (is_over and (BLOCK in self.let or cancelled))
        if ended:
            assert {op[0] for op in batch if op[1] == "spawn"} <= self.refused
        if not block.done():
            assert not self.refused
        elif self.faults:
            assert isinstance(self.result, ExceptionGroup)
            assert {*map(id, self.result.exceptions)} >= {*map(id, self.faults.values())}
            others = [exc for exc in self.result.exceptions if not isinstance(exc, Fault)]
            assert len(self.result.exceptions) == len(self.faults) + len(others)
            assert not others or "around" in self.cancelled
        elif "around" in self.cancelled:
            assert self.result == "ended" or isinstance(self.result, Cancelled)
        else:
            assert self.result == "ended"


def test_a_scope_keeps_its_promises() -> None:
    check(ScopeMachine, max_examples=150)
