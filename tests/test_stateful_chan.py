"""Chan against a model, under seeded schedules: see stateful.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from channel_model import Channels
from golibx import Chan, ChannelClosed, DeadlineExceeded
from stateful import ANY, STEP, Machine, Op, check

SENDS = st.sampled_from(["send", "timed send", "try_send", "send by its view"])
RECVS = st.sampled_from(["recv", "recv_ok", "timed recv", "try_recv", "next", "recv by its view"])


class ChanMachine(Machine[Channels]):
    """Goroutines that send, receive, give up, are cancelled, and close."""

    capacity = 0

    @rule(how=SENDS)
    def send(self, how: str) -> None:
        self.add("send", how)

    @rule(how=RECVS)
    def recv(self, how: str) -> None:
        self.add("recv", how)

    @rule(of=st.sampled_from(["send", "recv"]), number=ANY)
    def cancel(self, of: str, number: int) -> None:
        target = self.earlier(of, number)
        if target is not None:
            self.add("cancel", target)

    @rule(really=st.integers(0, 5))
    def close(self, really: int) -> None:
        if not really:  # much is over afterwards
            self.add("close")

    def set_up(self) -> None:
        self.ch: Chan[Any] = Chan(self.capacity)

    def initial(self) -> Channels:
        return Channels.new(self.capacity)

    def perform(self, number: int, name: str, *args: Any) -> Any:
        ch = self.ch
        if name == "close":
            try:
                ch.close()
            except ChannelClosed:
                return "closed"
            return "ok"
        if name == "cancel":
            self.goroutines[args[0]].cancel()
            return "ok"
        try:
            return self.send_value(number, args[0]) if name == "send" else self.receive(args[0])
        except DeadlineExceeded:
            return "timeout"

    def send_value(self, value: int, how: str) -> Any:
        ch = self.ch
        try:
            if how == "try_send":
                return (0, None, True) if ch.try_send(value) else "default"
            if how == "timed send":
                ch.send(value, timeout=STEP / 2)
            elif how == "send":
                ch.send(value)
            else:
                ch.sender().send(value)
        except ChannelClosed:
            return "closed"
        return (0, None, True)

    def receive(self, how: str) -> Any:
        ch = self.ch
        try:
            if how == "try_recv":
                value, ok = ch.try_recv()
                return (0, value, True) if ok else "default"
            if how == "recv_ok":
                return (0, *ch.recv_ok())
            if how == "next":
                return (0, next(ch), True)
            if how == "timed recv":
                return (0, ch.recv(timeout=STEP / 2), True)
            return (0, ch.recv() if how == "recv" else ch.receiver().recv(), True)
        except (ChannelClosed, StopIteration):
            return (0, None, False)

    def apply(self, state: Channels, op: Op) -> Iterator[Channels]:
        number, name, *args = op
        if name == "advance":
            yield state.advance()
        elif name == "cancel":
            yield state.cancel(number, args[0])
        elif name == "close":
            yield from state.close(number, 0)
        else:
            how = "timed" if "timed" in args[0] else "try" if "try" in args[0] else "wait"
            value = number if name == "send" else None
            yield from state.select(number, ((name, 0, value),), how)

    def seen(self) -> Any:
        return frozenset(self.outcomes.items()), len(self.ch), self.ch.closed

    def shown(self, state: Channels) -> Any:
        return state.outcomes, len(state.buffers[0]), 0 in state.closed


@pytest.mark.parametrize("capacity", [0, 1, 3])
def test_a_channel_does_what_its_model_may(capacity: int) -> None:
    machine = type("ChanMachine", (ChanMachine,), {"capacity": capacity})
    check(machine, max_examples=150)
