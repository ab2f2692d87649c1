"""Structured concurrency: goroutines that end before the block does that started them.

    with scope() as s:
        for url in urls:
            s.go(fetch, url)
    # here all of them have ended

The first error, of a child or of the block itself, cancels the rest: what waits in the block or in
a child raises Cancelled. When all have ended, the errors are raised together, as ExceptionGroup.

A scope is a context (golibx.context): the ambient one of its block and of its children.
"""

from __future__ import annotations

from golibx import context, watchers
from golibx._core import Chan, go_child, notify_end, open_to_signals, whole, whole_enter
from golibx.errors import Cancelled, DeadlineExceeded, Deadlock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import ParamSpec, Self, TypeVar

    from golibx._core import Context, Goroutine

    Params = ParamSpec("Params")
    Result = TypeVar("Result")
    Item = TypeVar("Item")

__all__ = ["Scope", "as_completed", "scope"]

_ENDS_PROGRAM = (KeyboardInterrupt, SystemExit)


def scope(*, limit: int | None = None, timeout: float | None = None, shield: bool = False) -> Scope:
    """A block that its goroutines do not outlive: `with scope() as s: s.go(fn, …)`.

    Args:
        limit: how many children may live at once; go() waits for a place. None: any number.
        timeout: seconds, from the beginning of the block, after which what waits in it and in its
            children raises DeadlineExceeded; so does the block then. None: for ever.
        shield: the contexts around the block do not cancel it.

    Raises, at the end of the block:
        ExceptionGroup: what children raised, and the block itself; a BaseExceptionGroup if one of
            them is no Exception. Cancelled in a child is no error.
        DeadlineExceeded: the time was up, and nothing else went wrong.
        Cancelled: the block was cancelled from outside, and nothing else went wrong.
        KeyboardInterrupt, SystemExit: as they are, whatever else went wrong.
    """
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool)):
        raise TypeError(f"the limit of a scope must be an int or None, not {limit!r}")
    if limit is not None and limit < 1:
        raise ValueError(f"the limit of a scope must be at least 1, not {limit}")
    return Scope(limit, timeout, shield)


class Scope:
    """What scope() returns. Of use while its block lasts, to children and others too.

    Attributes:
        context: the Context of the block and its children. None before the block.
    """

    __slots__ = (
        "_errors",
        "_interrupted",
        "_limit",
        "_live",
        "_notes",
        "_places",
        "_quits",
        "_shield",
        "_timed_out",
        "_timeout",
        "context",
    )

    context: Context | None

    def __init__(self, limit: int | None, timeout: float | None, shield: bool) -> None:
        self.context = None
        self._limit = limit
        self._timeout = timeout
        self._shield = shield
        self._places: Chan[None] | None = None if limit is None else Chan(limit)
        # Those that have not ended; with the key None it takes no more.
        self._live: dict[Goroutine[object] | None, None] = {}
        self._errors: list[BaseException] = []
        self._quits: list[BaseException] = []  # what ends the program
        self._timed_out = False
        self._interrupted = False  # a child was, by a context around the scope
        self._notes: watchers.Notes | None = None  # of its watchers

    def __repr__(self) -> str:
        if self.context is None:
            return "<Scope not entered>"
        return "<Scope ended>" if None in self._live else f"<Scope {len(self._live)} children>"

    def go(
        self, fn: Callable[Params, Result], /, *args: Params.args, **kwargs: Params.kwargs
    ) -> Goroutine[Result]:
        """Starts fn(*args, **kwargs) as a child; with a limit, waits until there is a place.

        Raises:
            RuntimeError: the block has not begun or has ended.
        """
        ctx = self._open_context()
        if self._places is None:
            return go_child(ctx, self._ended, self._live, None, fn, *args, **kwargs)
        return self._go_in_place(ctx, self._places, fn, *args, **kwargs)

    @whole
    def _go_in_place(
        self,
        ctx: Context,
        places: Chan[None],
        fn: Callable[Params, Result],
        /,
        *args: Params.args,
        **kwargs: Params.kwargs,
    ) -> Goroutine[Result]:
        places.send(None)
        try:
            return go_child(ctx, self._ended, self._live, places, fn, *args, **kwargs)
        except BaseException:
            places.try_recv()
            raise

    def map(
        self,
        fn: Callable[[Item], Result],
        items: Iterable[Item],
        /,
        *,
        limit: int | None = None,
    ) -> Iterator[Result]:
        """The results of fn(item) for each item, in the items' order, from children of the scope.

        The children are started as the results are taken. An error is the scope's, as of any child.

        Args:
            limit: how many may have been started whose results were not taken; None: all are
                started at once.

        Raises:
            TypeError, ValueError: the limit is not an int from 1.
        """
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool)):
            raise TypeError(f"the limit of map() must be an int or None, not {limit!r}")
        if limit is not None and limit < 1:
            raise ValueError(f"the limit of map() must be at least 1, not {limit}")
        source = iter(items)
        started: list[Goroutine[Result]] = []
        if limit is None:
            started = [self.go(fn, item) for item in source]
        return _ordered(self, fn, source, started, limit or 0)

    def cancel(self, cause: BaseException | None = None) -> None:
        """Cancels the block and all children. The block ends without an error of its own for it.

        Args:
            cause: why; the `__cause__` of each Cancelled.
        """
        self._open_context()._cancel_cause(cause)  # noqa: SLF001

    def _open_context(self) -> Context:
        ctx = self.context
        if ctx is None:
            raise RuntimeError("the scope has not begun: use it by `with scope() as s:`")
        return ctx

    @whole_enter
    def __enter__(self) -> Self:
        if self.context is not None:
            raise RuntimeError("a scope can be entered only once")
        parent = context.current()
        if self._shield:
            parent = context.without_cancel(parent)
        if self._timeout is None:
            ctx, _ = context.with_cancel(parent)
        else:
            # The program's number may be of a class of its own.
            ctx, _ = open_to_signals(context.with_timeout, parent, self._timeout)
        ctx.__enter__()
        self.context = ctx
        if watchers.scopes.present:
            self._notes = watchers.begin(watchers.scopes, self)
        return self

    @whole
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        ctx = self._open_context()
        try:
            ctx.__exit__(exc_type, exc, traceback)
        except RuntimeError as misuse:  # a context that was entered in the block was not left
            self._errors.append(misuse)
            self.cancel(misuse)
        # What ends the block without being an error of it; passed on as it is, if it is alone.
        passing: list[BaseException] = []
        if exc is not None:
            self._note_end_of_block(exc, passing)
        with context.background():
            while not self._wait_for_children(passing):
                pass
        ctx._cancel()  # noqa: SLF001
        try:
            swallows = self._raise(exc, passing)
            self._tell_end(None if swallows else exc)
            return swallows
        except BaseException as raised:
            self._tell_end(raised)
            raise
        finally:
            # An exception's traceback leads to this frame and so to the scope.
            self._errors = []
            self._quits = []
            del passing, exc

    def _tell_end(self, raised: BaseException | None) -> None:
        """Tells the watchers, once."""
        if self._notes:
            watchers.end(watchers.scopes, self._notes, raised)

    def _note_end_of_block(self, exc: BaseException, passing: list[BaseException]) -> None:
        if isinstance(exc, _ENDS_PROGRAM):
            self._quits.append(exc)
        elif self._is_own(exc):
            if isinstance(exc, DeadlineExceeded):
                passing.append(exc)
        # A deadline of a context around the scope is not the block's error, but what ended it.
        elif isinstance(exc, Cancelled | Deadlock) or self._is_echo(exc):
            passing.append(exc)
        else:
            self._errors.append(exc)
        self.cancel(exc)

    def _wait_for_children(self, passing: list[BaseException]) -> bool:
        """False if there may be more. What is thrown at this goroutine meanwhile cancels them."""
        try:
            # Others change the dict at any time: a copy is made in one step.
            while children := [*self._live]:
                for child in children:
                    assert child is not None
                    child.join()
                    self._ended(child)
            # Another goroutine may have started one just now.
            self._live[None] = None
            if len(self._live) == 1:
                return True
            del self._live[None]
        except BaseException as thrown:
            self._live.pop(None, None)
            (self._quits if isinstance(thrown, _ENDS_PROGRAM) else passing).append(thrown)
            self.cancel(thrown)
        return False

    def _raise(self, exc: BaseException | None, passing: list[BaseException]) -> bool:
        """Raises what it has to raise; returns whether the block's exception is swallowed."""
        if self._quits:
            first = self._quits[0]
        elif self._errors:
            if self._timed_out and not any(each is exc for each in passing):
                passing.append(self._error())
            # Of what is thrown in one goroutine and raised in others it holds one.
            errors = list({id(error): error for error in (*passing, *self._errors)}.values())
            number = f"{len(errors)} errors" if len(errors) > 1 else "1 error"
            raise BaseExceptionGroup(f"{number} in a scope", errors) from None
        elif passing:
            first = passing[0]
        elif self._timed_out or self._interrupted:
            raise self._error()
        else:
            return True
        if first is exc:
            return False
        raise first

    def _error(self) -> BaseException:
        error = self._open_context().err()
        assert error is not None
        return error

    def _is_echo(self, exc: BaseException) -> bool:
        """Whether it was raised because the scope's context, or one around it, is done."""
        if not isinstance(exc, Cancelled | DeadlineExceeded) or exc.context is None:
            return False
        return exc.context is self._open_context()._origin  # noqa: SLF001

    def _is_own(self, exc: BaseException) -> bool:
        """Whether it was raised because of the scope's own cancellation or deadline."""
        if not self._is_echo(exc) or self._open_context()._origin is not self.context:  # noqa: SLF001
            return False
        self._timed_out |= isinstance(exc, DeadlineExceeded)
        return True

    def _ended(self, child: Goroutine[object]) -> None:
        """Called once or more for each child that has ended; by others as `_note_end`."""
        if self._live.pop(child, child) is child:
            return
        exc = child.exception
        if exc is None or self._is_own(exc):
            return
        if isinstance(exc, _ENDS_PROGRAM):
            self._quits.append(exc)
        elif self._is_echo(exc):
            self._interrupted = True
            return
        elif isinstance(exc, Cancelled):
            return
        else:
            self._errors.append(exc)
        self.cancel(exc)

    _note_end = whole(_ended)


def _ordered(
    owner: Scope,
    fn: Callable[[Item], Result],
    source: Iterator[Item],
    started: list[Goroutine[Result]],
    limit: int,
) -> Iterator[Result]:
    started.reverse()  # the next one last
    while True:
        if limit:
            for item in source:
                started.insert(0, owner.go(fn, item))
                if len(started) >= limit:
                    break
        if not started:
            return
        yield _result(owner, started.pop())


def _result(owner: Scope, child: Goroutine[Result]) -> Result:
    child.join()
    if child.exception is not None and owner.context is not None:
        owner._note_end(child)  # noqa: SLF001
        # The error is the scope's, which has cancelled what is in it: this, too.
        if (error := owner.context.err()) is not None:
            raise error
    return child.result()


def as_completed(goroutines: Iterable[Goroutine[Result]], /) -> Iterator[Goroutine[Result]]:
    """The goroutines, each once it has ended, the first to end first.

        for g in as_completed([s.go(fetch, url) for url in urls]):
            print(g.result())

    Raises:
        TypeError: not all of them are goroutines.
    """
    waited_for = list(goroutines)
    ended: Chan[Goroutine[Result]] = Chan(len(waited_for))
    for goroutine in waited_for:
        notify_end(goroutine, ended)
    return _received(ended, len(waited_for))


def _received(ended: Chan[Goroutine[Result]], count: int) -> Iterator[Goroutine[Result]]:
    for _ in range(count):
        yield ended.recv()
