"""What channels and select do, as a model for tests: one operation at a time, on values.

A send or a receive is a select of one case. Those that wait are in the order in which they came.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

Case = tuple[str, int, Any]  # "send" or "recv", the channel, the value to send


class Waiter(NamedTuple):
    """An operation that waits."""

    number: int
    cases: tuple[Case | None, ...]
    timed: bool


class Channels(NamedTuple):
    """A state of the channels and of the operations on them."""

    capacities: tuple[int, ...]
    buffers: tuple[tuple[Any, ...], ...]
    closed: frozenset[int]
    waiters: tuple[Waiter, ...]
    outcomes: frozenset[tuple[int, Any]]

    @classmethod
    def new(cls, *capacities: int) -> Channels:
        return cls(capacities, ((),) * len(capacities), frozenset(), (), frozenset())

    def ended(self, number: int, outcome: Any) -> Channels:
        waiters = tuple(w for w in self.waiters if w.number != number)
        return self._replace(waiters=waiters, outcomes=self.outcomes | {(number, outcome)})

    def _with_buffer(self, ch: int, values: tuple[Any, ...]) -> Channels:
        return self._replace(buffers=(*self.buffers[:ch], values, *self.buffers[ch + 1 :]))

    def _partners(self, kind: str, ch: int) -> Iterator[tuple[Waiter, int, Any]]:
        """The first that waits to do that: with each of its cases that does."""
        for waiter in self.waiters:
            found = [
                (waiter, index, case[2])
                for index, case in enumerate(waiter.cases)
                if case is not None and case[:2] == (kind, ch)
            ]
            if found:
                yield from found
                return

    def select(self, number: int, cases: tuple[Case | None, ...], how: str) -> Iterator[Channels]:
        """`how` is "wait", "timed" or "try"."""
        ready = False
        for index, case in enumerate(cases):
            if case is not None:
                for after in self._do(number, index, *case):
                    ready = True
                    yield after
        if ready:
            return
        if how == "try":
            yield self.ended(number, "default")
        else:
            waiter = Waiter(number, cases, how == "timed")
            yield self._replace(waiters=(*self.waiters, waiter))

    def _do(self, number: int, index: int, kind: str, ch: int, value: Any) -> Iterator[Channels]:
        """Nothing if that would have to wait."""
        buffer = self.buffers[ch]
        if kind == "recv":
            if buffer:
                got = self.ended(number, (index, buffer[0], True))._with_buffer(ch, buffer[1:])
                senders = list(self._partners("send", ch))
                for waiter, at, sent in senders:
                    after = got.ended(waiter.number, (at, None, True))
                    yield after._with_buffer(ch, (*buffer[1:], sent))
                if not senders:
                    yield got
                return
            for waiter, at, sent in self._partners("send", ch):
                after = self.ended(waiter.number, (at, None, True))
                yield after.ended(number, (index, sent, True))
            if ch in self.closed:
                yield self.ended(number, (index, None, False))
        elif ch in self.closed:
            yield self.ended(number, "closed")
        else:
            receivers = list(self._partners("recv", ch))
            sent_it = self.ended(number, (index, None, True))
            for waiter, at, _ in receivers:
                yield sent_it.ended(waiter.number, (at, value, True))
            if not receivers and len(buffer) < self.capacities[ch]:
                yield sent_it._with_buffer(ch, (*buffer, value))

    def close(self, number: int, ch: int) -> Iterator[Channels]:
        if ch in self.closed:
            yield self.ended(number, "closed")
            return
        states = {self.ended(number, "ok")._replace(closed=self.closed | {ch})}
        for waiter in self.waiters:
            receives = [
                index
                for index, case in enumerate(waiter.cases)
                if case is not None and case[:2] == ("recv", ch)
            ]
            sends = any(case is not None and case[:2] == ("send", ch) for case in waiter.cases)
            if receives:
                states = {
                    state.ended(waiter.number, (index, None, False))
                    for state in states
                    for index in receives
                }
            elif sends:
                states = {state.ended(waiter.number, "closed") for state in states}
        yield from states

    def advance(self) -> Channels:
        after = self
        for waiter in self.waiters:
            if waiter.timed:
                after = after.ended(waiter.number, "timeout")
        return after

    def cancel(self, number: int, target: int) -> Channels:
        after = self.ended(number, "ok")
        if any(waiter.number == target for waiter in self.waiters):
            return after.ended(target, "cancelled")
        return after
