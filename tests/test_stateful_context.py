"""Contexts against a model, under seeded schedules: see stateful.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import rule

from golibx import Cancelled, Chan, DeadlineExceeded, context
from stateful import ANY, STEP, Machine, Op, check

KINDS = ("cancel", "cause", "timeout", "value", "without")
CANCELLABLE = ("cancel", "cause", "timeout")


class Node(NamedTuple):
    """A context, by the number of the operation that made it."""

    number: int
    kind: str
    parent: int | None
    deadline: float | None
    value: int | None
    done: str | None = None
    cause: int | None = None


class Tree(NamedTuple):
    """All contexts, which goroutine waits for which, and how long the run has taken."""

    now: float
    nodes: frozenset[Node]
    waiters: frozenset[tuple[int, int, str]]
    outcomes: frozenset[tuple[int, Any]]

    def node(self, number: int | None) -> Node | None:
        return next((node for node in self.nodes if node.number == number), None)

    def ended(self, number: int, outcome: Any) -> Tree:
        return self._replace(outcomes=self.outcomes | {(number, outcome)})

    def child(self, number: int, kind: str, parent: int | None, seconds: float) -> Tree:
        above = self.node(parent)
        node = Node(number, kind, parent, None, above and above.value)
        if kind == "value":
            node = node._replace(value=number)
        if above is not None and kind != "without":
            node = node._replace(deadline=above.deadline, done=above.done, cause=above.cause)
        if kind == "timeout" and (node.deadline is None or self.now + seconds < node.deadline):
            node = node._replace(deadline=self.now + seconds)
        after = self._replace(nodes=self.nodes | {node}).ended(number, "ok")
        return (
            after.finish(number, "deadline", None) if kind == "timeout" and not seconds else after
        )

    def finish(self, number: int, how: str, cause: int | None) -> Tree:
        """It and all below it are done, if they are not."""
        node = self.node(number)
        assert node is not None
        if node.done:
            return self
        after = self._replace(nodes=self.nodes - {node} | {node._replace(done=how, cause=cause)})
        for waiter in self.waiters:
            if waiter[1] == number:
                after = after._replace(waiters=after.waiters - {waiter})
                after = after.ended(waiter[0], how if waiter[2] == "under" else "done")
        for below in self.nodes:
            if below.parent == number and below.kind != "without":
                after = after.finish(below.number, how, cause)
        return after

    def wait(self, number: int, target: int, how: str) -> Tree:
        node = self.node(target)
        assert node is not None
        if node.done:
            return self.ended(number, node.done if how == "under" else "done")
        return self._replace(waiters=self.waiters | {(number, target, how)})

    def advance(self) -> Tree:
        after = self._replace(now=self.now + STEP)
        due = [n for n in self.nodes if n.deadline is not None and n.deadline <= after.now]
        for node in sorted(due, key=lambda n: n.deadline or 0):
            after = after.finish(node.number, "deadline", None)
        return after


class Reason(Exception):
    """A cause, with the number of the operation that gave it."""


class ContextMachine(Machine[Tree]):
    """A growing tree of contexts, some of which are cancelled or expire while goroutines wait."""

    @rule(
        kind=st.sampled_from(KINDS),
        parent=ANY,
        seconds=st.sampled_from([0, 0.25, 0.5, 1.25, 1.5, 2.25]),
    )
    def child(self, kind: str, parent: int, seconds: float) -> None:
        self.add("child", kind, self.earlier("child", parent), seconds)

    @rule(number=ANY)
    def cancel(self, number: int) -> None:
        target = self.earlier("child", number, CANCELLABLE)
        if target is not None:
            self.add("cancel", target, self.kind_of(target))

    @rule(number=ANY, how=st.sampled_from(["done", "under"]))
    def wait(self, number: int, how: str) -> None:
        target = self.earlier("child", number)
        if target is not None:
            self.add("wait", target, how)

    def kind_of(self, number: int) -> str:
        return next(op[2] for batch in self.batches for op in batch if op[0] == number)

    def set_up(self) -> None:
        self.contexts: dict[int, context.Context] = {}
        self.cancels: dict[int, Any] = {}
        self.began = self.now()

    def now(self) -> float:
        from golibx import _core

        return _core.now_ns() / 1e9

    def initial(self) -> Tree:
        return Tree(0.0, frozenset(), frozenset(), frozenset())

    def perform(self, number: int, name: str, *args: Any) -> Any:
        if name == "cancel":
            target, kind = args
            self.cancels[target](*([Reason(number)] if kind == "cause" else []))
            return "ok"
        if name == "child":
            self.make(number, *args)
            return "ok"
        ctx = self.contexts[args[0]]
        if args[1] == "done":
            return "done" if ctx.done().recv_ok() == (None, False) else "wrong"
        try:
            with ctx:
                Chan[int]().recv()
        except (Cancelled, DeadlineExceeded) as exc:
            if exc.context is None:
                raise  # the end of the run
            return "cancel" if isinstance(exc, Cancelled) else "deadline"

    def make(self, number: int, kind: str, parent: int | None, seconds: float) -> None:
        above = context.background() if parent is None else self.contexts[parent]
        if kind == "value":
            self.contexts[number] = context.with_value(above, "key", number)
        elif kind == "without":
            self.contexts[number] = context.without_cancel(above)
        else:
            made = {
                "cancel": lambda: context.with_cancel(above),
                "cause": lambda: context.with_cancel_cause(above),
                "timeout": lambda: context.with_timeout(above, seconds),
            }[kind]()
            self.contexts[number], self.cancels[number] = made

    def apply(self, state: Tree, op: Op) -> Iterator[Tree]:
        number, name, *args = op
        if name == "advance":
            yield state.advance()
        elif name == "child":
            yield state.child(number, *args)
        elif name == "cancel":
            cause = number if args[1] == "cause" else None
            yield state.finish(args[0], "cancel", cause).ended(number, "ok")
        else:
            yield state.wait(number, *args)

    def seen(self) -> Any:
        nodes = set()
        for number, ctx in self.contexts.items():
            err = ctx.err()
            cause = context.cause(ctx)
            deadline = ctx.deadline()
            how = err and ("deadline" if isinstance(err, DeadlineExceeded) else "cancel")
            reason = cause.args[0] if isinstance(cause, Reason) else None
            left = None if deadline is None else deadline - self.began
            nodes.add((number, how, reason, left, ctx.value("key")))
        return frozenset(self.outcomes.items()), frozenset(nodes)

    def shown(self, state: Tree) -> Any:
        nodes = {(n.number, n.done, n.cause, n.deadline, n.value) for n in state.nodes}
        return state.outcomes, frozenset(nodes)


def test_contexts_do_what_their_model_may() -> None:
    check(ContextMachine, max_examples=120, stateful_step_count=40)
