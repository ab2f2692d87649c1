"""The exceptions of golibx.

They live in a module that imports nothing of golibx, so that every layer, the native core included,
can raise them without a cycle. Only ConfigError has behaviour of its own: it knows how to say where
a setting came from.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

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
        context: the Context that had the deadline, or None: a call's own timeout.
    """

    context: Context | None = None


class ConfigError(GolibxError):
    """A configuration that golibx refuses to run with.

    str() is one line: where the setting came from, its key and value, what is wrong with it, what
    is allowed, and the nearest known name, as far as each is known:

        golib.toml:7: preempt.slice = "10m": out of range (allowed: 10us to 1m)
        golib.toml:8: preempt.slize = "1ms": unknown key; did you mean preempt.slice? (allowed: …)

    All mistakes of a configuration are raised as one: it has the first one's attributes, all of
    them in `errors`, and str() has a line for each.

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

    _errors: tuple[ConfigError, ...] = ()

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

    @classmethod
    def of(cls, errors: Sequence[ConfigError]) -> ConfigError:
        """One that stands for all of `errors`, of which there is one at least."""
        every = [error for given in errors for error in given.errors]
        first = every[0]
        if len(every) == 1:
            return first
        one = cls(
            first.problem,
            key=first.key,
            value=first.value,
            allowed=first.allowed,
            nearest=first.nearest,
            source=first.source,
            line=first.line,
            column=first.column,
        )
        one._errors = tuple(every)
        return one

    @property
    def errors(self) -> tuple[ConfigError, ...]:
        """All mistakes, each a ConfigError; where there is only one, that is this one itself."""
        return self._errors or (self,)

    def __str__(self) -> str:
        if self._errors:
            return "\n".join(map(str, self._errors))
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


_DEEPEST = 4
"""Of lists and tables in a message."""


def toml_value(value: object, depth: int = 0) -> str:
    """`value` as one would write it in golib.toml: true, 50, "10ms", ["a", "b"]; on one line.

    Of what is nested deeply the inside is left out, as "…".
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{"".join(map(_escaped, value))}"'
    if isinstance(value, list | tuple | dict) and depth == _DEEPEST:
        return "…"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item, depth + 1) for item in value)}]"
    if isinstance(value, dict):
        items = (f"{_key(key)} = {toml_value(item, depth + 1)}" for key, item in value.items())
        return f"{{{', '.join(items)}}}"
    return str(value)


def _key(name: object) -> str:
    text = str(name)
    is_bare = text.isascii() and text.replace("-", "_").isidentifier()
    return text if is_bare else toml_value(text)


def _escaped(character: str) -> str:
    if character in '\\"':
        return f"\\{character}"
    if character == " " or character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
