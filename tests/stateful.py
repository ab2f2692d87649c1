"""Programs that hypothesis makes up, run under a seed and compared with a model of what may be.

A machine collects operations: those of one batch are started together, each in a goroutine of its
own, and the batch is over when all goroutines wait or have ended. Then what can be seen must be
what the model gives for one order of the batch's operations at least. So the model is sequential,
and a set: of the states that the program may be in, in the light of all that was seen.

The program runs when it is complete, in virtual time, under a seed that is part of the example,
with preemption at every call: what fails once fails again, and is made smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from itertools import permutations
from typing import Any, Generic, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from golibx import Cancelled, Goroutine, go, gosched, sleep, testing

State = TypeVar("State", bound=Hashable)
Op = tuple[Any, ...]

WIDEST = 3
ANY = st.sampled_from(range(24))
MOST_STATES = 300
STEP = 1.0  # seconds that pass in an ("advance",)
SETTINGS = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def settle() -> None:
    """Lets goroutines run until all of them wait, or have ended."""
    while any(g.state in ("runnable", "running") for g in others()):
        gosched()


def others() -> list[Goroutine[Any]]:
    from golibx import _core

    main = _core.current()
    return [g for g in _core.goroutines() if g is not main and not g.system]


class Machine(RuleBasedStateMachine, Generic[State]):
    """What the four have in common."""

    count = 0  # Hypothesis may give up before it begins

    @initialize(seed=st.integers(1, 2**40), width=st.integers(1, WIDEST))
    def begin(self, seed: int, width: int) -> None:
        self.seed = seed
        self.width = width
        self.batches: list[list[Op]] = [[]]
        self.count = 0

    @rule()
    def settle(self) -> None:
        if self.batches[-1]:
            self.batches.append([])

    @rule(really=st.integers(0, 2))
    def advance(self, really: int) -> None:
        if not really:
            self.settle()
            self.add("advance")
            self.settle()

    def add(self, *op: Any) -> int:
        """The number of the operation."""
        if len(self.batches[-1]) == self.width:
            self.settle()
        self.batches[-1].append((self.count, *op))
        self.count += 1
        return self.count - 1

    def earlier(self, of: str, number: int, kinds: tuple[str, ...] = ()) -> int | None:
        """The number of an operation of an earlier batch, by any number."""
        operations = [op for batch in self.batches[:-1] for op in batch if op[1] == of]
        found = [op[0] for op in operations if not kinds or op[2] in kinds]
        return found[number % len(found)] if found else None

    def teardown(self) -> None:
        if self.count:
            testing.run(
                self.play,
                seed=self.seed,
                preempt_every_call=True,
                virtual_time=True,
                early_timers=False,
                leaks=False,
            )

    def play(self) -> None:
        self.outcomes: dict[int, Any] = {}
        self.goroutines: dict[int, Goroutine[None]] = {}
        self.set_up()
        states = {self.initial()}
        for batch in self.batches:
            for op in batch:
                if op[1] == "advance":
                    sleep(STEP)
                else:
                    self.goroutines[op[0]] = go(self.perform_one, op)
            settle()
            seen = self.seen()
            before, states = states, set()
            for order in permutations(batch):
                states |= self.after(before, order)
            may_be = {self.shown(state) for state in states}
            assert seen in may_be, f"{batch} after {before}:\nseen {seen}\nmay be {may_be}"
            states = {state for state in states if self.shown(state) == seen}
            if len(states) > MOST_STATES:
                return  # which came first cannot be seen: the rest says little, and takes long

    def perform_one(self, op: Op) -> None:
        number, name, *args = op
        try:
            outcome = self.perform(number, name, *args)
        except Cancelled:
            outcome = "cancelled"
        self.outcomes[number] = outcome

    def after(self, states: Iterable[State], order: Iterable[Op]) -> set[State]:
        found = set(states)
        for op in order:
            found = {after for state in found for after in self.apply(state, op)}
        return found

    # ---- what a machine says ----

    def set_up(self) -> None:
        """Makes the objects, in the run."""

    def initial(self) -> State:
        raise NotImplementedError

    def perform(self, number: int, name: str, *args: Any) -> Any:
        """Does the operation, in its goroutine; returns its outcome."""
        raise NotImplementedError

    def apply(self, state: State, op: Op) -> Iterable[State]:
        """The states that the operation may lead to."""
        raise NotImplementedError

    def seen(self) -> Hashable:
        """What can be seen of the objects and the outcomes."""
        raise NotImplementedError

    def shown(self, state: State) -> Hashable:
        """The same, of a state."""
        raise NotImplementedError


def check(machine: Callable[[], RuleBasedStateMachine], **options: Any) -> None:
    """Runs the machine with these settings."""
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(machine, settings=settings(SETTINGS, **options))
