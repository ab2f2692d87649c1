"""The exceptions of golibx.

They live in a module that imports nothing of golibx, so that every layer, the native core included,
can raise them without a cycle. Only ConfigError has behaviour of its own: it knows how to say where
a setting came from.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from golibx._core import Context

__all__ = [
    "Cancelled",
    "ChannelClosed",
    "ConfigError",
    "DeadlineExceeded",
    "Deadlock",
    "GolibxError",
]


class GolibxError(Exception):
    """Base of the errors that golibx raises; catch it to catch any of them (Cancelled excepted)."""


class ChannelClosed(GolibxError):
    """A send on a closed channel, or a receive from one that is closed and drained."""


class Deadlock(GolibxError):
    """All goroutines are asleep: no timer, socket or blocking call is left that could wake one.

    Its text holds every goroutine's stack, what it waits for, and the object it waits on.
    """


class Cancelled(BaseException):
    """Raised inside a goroutine that was cancelled, where it waits or at its next wait.

    It derives from BaseException, as asyncio.CancelledError and GeneratorExit do: an `except
    Exception` that means "whatever goes wrong with this request, log it and take the next" must not
    keep a goroutine alive that was told to end. Clean up in `finally`; if it is caught, raise it
    again.

    Attributes:
        context: the Context that was cancelled, or None: Goroutine.cancel(), the program's end.
    """

    context: Context | None = None


class DeadlineExceeded(GolibxError, TimeoutError):
    """A timeout or deadline passed before the operation could complete.

    Also a TimeoutError (hence an OSError), so that code written for sockets handles it unchanged.

    Attributes:
        context: the Context whose deadline it was, or None: a call's own timeout.
    """

    context: Context | None = None


class ConfigError(GolibxError):
    """A configuration that golibx refuses to run with.

    str() is one line: where the setting came from, its key and value, what is wrong with it, what
    is allowed, and the nearest known name, as far as each is known:

        golib.toml:7: preempt.slice = "10m": out of range (allowed: 10us to 1m)
        golib.toml:8: preempt.slize = "1ms": unknown key; did you mean preempt.slice? (allowed: …)

    Attributes:
        problem: what is wrong, without the context.
        key: path of the key, such as "preempt.slice"; empty when the error concerns a whole file.
        value: the offending value as it was given; None when there is none.
        allowed: what is allowed, in words; may be empty.
        nearest: the known name that resembles an unknown one most, or None.
        source: the file, environment variable or "--set" that the value came from; empty if none.
        line: line number in the file, counted from 1, or None when it can't be told.
        column: column in that line, counted from 1, or None; known only when the file is not TOML.
    """

    def __init__(
        self,
        problem: str,
        *,
        key: str = "",
        value: object = None,
        allowed: str = "",
        nearest: str | None = None,
        source: str = "",
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.key = key
        self.value = value
        self.allowed = allowed
        self.nearest = nearest
        self.source = source
        self.line = line
        self.column = column

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.source, self.line, self.column) if part)
        setting = self.key
        if self.key and self.value is not None:
            setting = f"{self.key} = {toml_value(self.value)}"
        text = ": ".join(part for part in (where, setting, self.problem) if part)
        if self.nearest is not None:
            text += f"; did you mean {self.nearest}?"
        if self.allowed:
            text += f" (allowed: {self.allowed})"
        return text


def toml_value(value: object) -> str:
    """`value` as one would write it in golib.toml: true, 50, "10ms", ["a", "b"]."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {toml_value(item)}' for key, item in value.items())}}}"
    return str(value)
