"""Labels, as Go's pprof labels: what a goroutine works on, for dumps, traces and logs.

    with golibx.labels(request="17", user="ada"):
        go(fetch, url)  # has them too

A label is a name and a str. Labels belong to the code that runs in the block, and so to its
goroutine, wherever that is switched to; and to the goroutines, calls of an executor and asyncio
tasks that are started in the block, which keep them when it has ended. They are a context variable
(contextvars): what starts with a copy of the context variables starts with the labels. A plain
thread has its own, and starts with none unless it is given a context.

What the variable holds is the innermost block. A block knows the one around it, so that blocks may
end in any order, as those in generators do: the code that ends one makes those above it anew. A
block that has ended lets go of the one around it: a goroutine that was started in it, and starts
others in blocks of its own, would else keep each block that there ever was.
"""

from __future__ import annotations

from contextvars import ContextVar
from functools import wraps
from types import MappingProxyType

from golibx import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, ParamSpec, TypeVar

    Params = ParamSpec("Params")
    Result = TypeVar("Result")

__all__ = ["labels"]


class _Block:
    """One that is open, or has been: then `opener` and `around` are None."""

    __slots__ = ("around", "labels", "notes", "opener", "owner")

    def __init__(
        self,
        opener: labels | None,
        around: _Block | None,
        labels: Mapping[str, str],
        owner: int = 0,
        notes: list[tuple[Callable[[Any], object], Any]] | None = None,
    ) -> None:
        self.opener = opener
        self.around = around
        self.labels = labels
        self.owner = owner
        self.notes = notes

    def let_go(self) -> None:
        """It is over. Goroutines that have started with it keep what they have of it."""
        # Where one that another goroutine has begun ends here, it still goes on there.
        if self.owner == _core.ident():
            self.opener = self.around = self.notes = None


_NO_BLOCK = _Block(None, None, MappingProxyType({}))
_innermost = ContextVar("golibx.labels", default=_NO_BLOCK)
_core.learn_labels(_innermost, _NO_BLOCK)
_watchers: tuple[tuple[Callable[[Mapping[str, str]], Any], Callable[[Any], object]], ...] = ()


class labels:  # noqa: N801  # it is used as a function
    """Gives the goroutine labels in a block, `with labels(request="17"):`, or a function's calls.

    Inner blocks add to the outer ones', and replace those of the same name. As a decorator,
    `@labels(job="mail")`, it is a block around each call. One object may be used many times, and by
    many goroutines at once. What the goroutine has is `current().labels`.

    Args:
        **labels: each a str.

    Raises:
        TypeError: a value is no str; what is decorated is a coroutine function or a generator, of
            which the call does nothing yet: write the block in it.
    """

    __slots__ = ("_own",)

    def __init__(self, /, **labels: str) -> None:
        for name, value in labels.items():
            if not isinstance(value, str):
                raise TypeError(
                    f"labels(): {name} must be a str, not {value!r}: use str() or repr()"
                )
            labels[name] = str.__str__(value)  # no subclass, which may be anything
        self._own = labels

    def __repr__(self) -> str:
        return f"labels({', '.join(f'{name}={value!r}' for name, value in self._own.items())})"

    @_core.whole_enter
    def __enter__(self) -> None:
        notes = [(end, begin(MappingProxyType(self._own))) for begin, end in _watchers] or None
        while True:
            around = _innermost.get()
            block = _Block(
                self, around, MappingProxyType({**around.labels, **self._own}), _core.ident(), notes
            )
            # The collector may have run a generator's end meanwhile, and that of its block.
            if _innermost.get() is around:
                _innermost.set(block)
                return

    @_core.whole
    def __exit__(self, *exc_info: object) -> None:
        while True:
            innermost = block = _innermost.get()
            ending = []
            while block.opener is not self:
                if block.around is None:
                    return  # It has begun elsewhere: in another goroutine, by a generator.
                ending.append(block)
                block = block.around
            now = block.around
            assert now is not None
            for each in reversed(ending):
                assert each.opener is not None
                labels = {**now.labels, **each.opener._own}  # noqa: SLF001
                now = _Block(each.opener, now, MappingProxyType(labels), each.owner, each.notes)
            if _innermost.get() is innermost:  # see __enter__
                _innermost.set(now)
                break
        notes = block.notes or ()
        for each in (block, *ending):
            each.let_go()
        for end, note in notes:
            end(note)

    def __call__(self, function: Callable[Params, Result], /) -> Callable[Params, Result]:
        """The function, each call of which is such a block."""
        callee = _core.async_callee(function)
        code = getattr(function, "__code__", None)
        if callee is not None or (code is not None and code.co_flags & _CO_GENERATOR):
            raise TypeError(
                f"{self!r} cannot decorate {function!r}: its call only makes a coroutine or "
                "generator, which runs later. Write `with labels(…):` in it"
            )

        @wraps(function)
        def labelled(*args: Params.args, **kwargs: Params.kwargs) -> Result:
            with self:
                return function(*args, **kwargs)

        return labelled

    @staticmethod
    def current() -> Mapping[str, str]:
        """The labels of the code that calls, a mapping that cannot be changed.

        Those of `golibx.current().labels`; and also outside of goroutines, on a plain thread and in
        an asyncio task.
        """
        return _innermost.get().labels

    @staticmethod
    def watch(
        begin: Callable[[Mapping[str, str]], Any], end: Callable[[Any], object]
    ) -> Callable[[], None]:
        """Has begin(labels) called at the beginning of each block, for plugins that show them.

        Args:
            begin: called with the block's own labels, by the goroutine or thread that enters the
                block. What it raises, the block raises.
            end: called when the block ends, with what begin() has returned for it.

        Returns:
            stop: begin() is called no more; end() is for blocks that have begun.
        """
        global _watchers
        watcher = (begin, end)
        _watchers = (*_watchers, watcher)

        def stop() -> None:
            global _watchers
            _watchers = tuple(each for each in _watchers if each is not watcher)

        return stop


_CO_GENERATOR = 0x20
