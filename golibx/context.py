"""Contexts, as Go's package context: cancellation and deadlines for everything that waits.

    with context.with_timeout(context.current(), 1.0):
        conn = net.dial("example.org:80")  # DeadlineExceeded once the second is over, in here
        go(read, conn)  # and in the goroutines that are started here

A context is passed on as an argument, as in Go, or made the ambient one by `with`: each call of
golibx's that waits then raises `Cancelled` or `DeadlineExceeded` once the context is done. It
raises where it waits; code that does not wait is not interrupted, and what could be done at once,
such as a receive from a channel that holds a value, is done. A context that is done stays so: what
waits under it afterwards raises at once, in `finally` blocks too, unless they use without_cancel().

A goroutine begins with the ambient context of the one that started it.
"""

from __future__ import annotations

from golibx import _core
from golibx._core import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol, TypeAlias

    class CancelCause(Protocol):
        """What with_cancel_cause() returns beside the context."""

        def __call__(self, cause: BaseException | None = None) -> None: ...

    _WithCancel: TypeAlias = tuple[Context, Callable[[], None]]
    _WithCancelCause: TypeAlias = tuple[Context, CancelCause]
else:
    _WithCancel = _WithCancelCause = tuple

__all__ = [
    "Context",
    "after_func",
    "background",
    "cause",
    "current",
    "with_cancel",
    "with_cancel_cause",
    "with_deadline",
    "with_timeout",
    "with_value",
    "without_cancel",
]


background = _core.context_background
cause = _core.context_cause
current = _core.context_current


class Cancellable(_WithCancel):
    """A context and the function that cancels it: `ctx, cancel = with_cancel(parent)`.

    `with with_cancel(parent) as (ctx, cancel):` makes the context the ambient one in the block, and
    cancels it at the end.
    """

    __slots__ = ()

    @_core.whole_enter
    def __enter__(self) -> _WithCancel:
        self[0].__enter__()
        return self

    @_core.whole
    def __exit__(self, *exc_info: object) -> None:
        self[1]()
        self[0].__exit__(*exc_info)


class CancellableCause(_WithCancelCause):
    """As Cancellable, with a cancel function that takes the reason, an exception."""

    __slots__ = ()

    @_core.whole_enter
    def __enter__(self) -> _WithCancelCause:
        self[0].__enter__()
        return self

    @_core.whole
    def __exit__(self, *exc_info: object) -> None:
        self[1]()
        self[0].__exit__(*exc_info)


def with_cancel(parent: Context) -> Cancellable:
    """Returns (ctx, cancel): a child of `parent`, and the function that cancels it.

    cancel() also cancels all contexts derived from ctx; calling it again does nothing. It may be
    called from any goroutine or thread.
    """
    ctx = _core.context_with_cancel(parent)
    return Cancellable((ctx, ctx._cancel))  # noqa: SLF001


def with_cancel_cause(parent: Context) -> CancellableCause:
    """As with_cancel(), with a function cancel(cause=None).

    The cause is an exception. cause(ctx) returns it, and it is the `__cause__` of what is raised.
    """
    ctx = _core.context_with_cancel(parent)
    return CancellableCause((ctx, ctx._cancel_cause))  # noqa: SLF001


def with_timeout(parent: Context, seconds: float, /) -> Cancellable:
    """As with_cancel(); after `seconds` the context is done with DeadlineExceeded.

    An earlier deadline of the parent's goes first. Zero or less: it is done from the beginning.

    Raises:
        TypeError, ValueError: `seconds` is no number.
    """
    ctx = _core.context_with_timeout(parent, seconds)
    return Cancellable((ctx, ctx._cancel))  # noqa: SLF001


def with_deadline(parent: Context, t: float, /) -> Cancellable:
    """As with_timeout(), at the time `t`, in seconds of time.monotonic()."""
    ctx = _core.context_with_deadline(parent, t)
    return Cancellable((ctx, ctx._cancel))  # noqa: SLF001


def with_value(parent: Context, key: object, value: object, /) -> Context:
    """A child of `parent` whose value(key) is `value`.

    Keys are compared by ==. For data of a request that crosses functions which know nothing of it,
    not for arguments. A key that only its module knows, such as an object(), collides with none.
    """
    return _core.context_with_value(parent, key, value)


def without_cancel(parent: Context, /) -> Context:
    """A child of `parent` with its values, which neither ends with it nor has its deadline.

    As the ambient one it is a shield, for what has to wait when all else has been cancelled:

        finally:
            with context.without_cancel(context.current()):
                conn.sendall(b"bye")
    """
    return _core.context_without_cancel(parent)


def after_func(ctx: Context, fn: Callable[[], object], /) -> Callable[[], bool]:
    """Has fn() called in a goroutine of its own once `ctx` is done, or now if it is.

    The goroutine's ambient context is without_cancel(ctx).

    Returns:
        stop: keeps fn from being called; returns False if it was, or stop() was before.

    Raises:
        RuntimeError: no runtime is running.
    """
    return _core.after_func(ctx, fn).stop
