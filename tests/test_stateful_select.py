"""select() against a model, under seeded schedules: see stateful.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from channel_model import Channels
from golibx import Chan, ChannelClosed, DeadlineExceeded, select
from stateful import ANY, STEP, Machine, Op, check

CAPACITIES = (0, 0, 2)
CHANNELS = st.integers(0, len(CAPACITIES) - 1)
CASES = st.one_of(st.none(), st.tuples(st.sampled_from(["send", "recv"]), CHANNELS))


class SelectMachine(Machine[Channels]):
    """Selects with any cases, the same channel twice and None among them, and plain operations."""

    @rule(
        cases=st.lists(CASES, min_size=1, max_size=4),
        how=st.sampled_from(["wait", "timed", "try"]),
    )
    def select(self, cases: list[tuple[str, int] | None], how: str) -> None:
        self.add("select", tuple(cases), how)

    @rule(case=st.tuples(st.sampled_from(["send", "recv"]), CHANNELS))
    def plain(self, case: tuple[str, int]) -> None:
        self.add("plain", (case,), "wait")

    @rule(number=ANY)
    def cancel(self, number: int) -> None:
        target = self.earlier("select", number)
        if target is not None:
            self.add("cancel", target)

    @rule(ch=CHANNELS, really=st.integers(0, 5))
    def close(self, ch: int, really: int) -> None:
        if not really:
            self.add("close", ch)

    def set_up(self) -> None:
        self.channels: list[Chan[Any]] = [Chan(capacity) for capacity in CAPACITIES]

    def initial(self) -> Channels:
        return Channels.new(*CAPACITIES)

    def perform(self, number: int, name: str, *args: Any) -> Any:
        if name == "cancel":
            self.goroutines[args[0]].cancel()
            return "ok"
        try:
            if name == "close":
                self.channels[args[0]].close()
                return "ok"
            if name == "plain":
                return self.do(number, *args[0][0])
            return self.do_select(number, *args)
        except ChannelClosed:
            return "closed"
        except DeadlineExceeded:
            return "timeout"

    def do(self, number: int, kind: str, ch: int) -> Any:
        if kind == "recv":
            return (0, *self.channels[ch].recv_ok())
        self.channels[ch].send((number, 0))
        return (0, None, True)

    def do_select(self, number: int, cases: tuple[tuple[str, int] | None, ...], how: str) -> Any:
        made = []
        for index, case in enumerate(cases):
            if case is None:
                made.append(None)
                continue
            ch = self.channels[case[1]]
            made.append(ch.on_recv() if case[0] == "recv" else ch.on_send((number, index)))
        timeout = STEP / 2 if how == "timed" else None
        found = select(*made, default=how == "try", timeout=timeout)
        return "default" if found[0] == -1 else found

    def apply(self, state: Channels, op: Op) -> Iterator[Channels]:
        number, name, *args = op
        if name == "advance":
            yield state.advance()
        elif name == "cancel":
            yield state.cancel(number, args[0])
        elif name == "close":
            yield from state.close(number, args[0])
        else:
            cases = tuple(
                None if case is None else (*case, (number, index) if case[0] == "send" else None)
                for index, case in enumerate(args[0])
            )
            yield from state.select(number, cases, args[1])

    def seen(self) -> Any:
        closed = frozenset(i for i, ch in enumerate(self.channels) if ch.closed)
        return frozenset(self.outcomes.items()), tuple(map(len, self.channels)), closed

    def shown(self, state: Channels) -> Any:
        return state.outcomes, tuple(map(len, state.buffers)), state.closed


def test_select_does_what_its_model_may() -> None:
    check(SelectMachine, max_examples=100)
