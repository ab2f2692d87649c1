"""How the values of golib.toml are written: durations, sizes, lists, paths, and the like.

Every `golibx run` imports this module, schema and config before the program starts, so they import
only what the interpreter has loaded anyway.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing costs more to import than this whole module
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

    from golibx.schema import Key

__all__ = [
    "current_directory",
    "format_duration",
    "format_size",
    "is_file_reference",
    "is_missing",
    "is_module_function",
    "parse_duration",
    "parse_size",
    "parse_value",
    "split_file_reference",
    "toml_literal",
]

_DURATION_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5, what most keyboards give
    "μs": 1_000,  # U+03BC, what Unicode normalises it to
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DURATION: Final = 'a number with a unit (ns, us, ms, s, m, h), such as "10ms"'
_SIZE_UNITS: Final = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "B": 1}
_SIZE: Final = 'a number with a unit (B, KiB, MiB, GiB, TiB), such as "1MiB"'


def parse_duration(text: str) -> int:
    """The nanoseconds of a duration such as "10ms", "1.5 s" or "0"; units ns, us, ms, s, m, h.

    Raises ValueError for anything else.
    """
    if text == "0":
        return 0
    return _quantity(text, _DURATION_UNITS, _DURATION)


def parse_size(text: str) -> int:
    """The bytes of a size such as "64KiB", "1.5 MiB" or "4096"; units B, KiB, MiB, GiB, TiB.

    Raises ValueError for anything else.
    """
    if text.isascii() and text.isdigit():
        return int(text)
    return _quantity(text, _SIZE_UNITS, _SIZE)


def _quantity(text: str, units: Mapping[str, int], expected: str) -> int:
    for unit, scale in units.items():
        if text.endswith(unit):
            whole, _, fraction = text.removesuffix(unit).strip().partition(".")
            digits = whole + fraction
            if digits.isascii() and digits.isdigit():
                # In integers: 0.1 s are 100 000 000 ns, not 100 000 000.00000001 of them.
                divisor: int = 10 ** len(fraction)
                return (int(digits) * scale + divisor // 2) // divisor
            break
    raise ValueError(f"not {expected}")


def format_duration(ns: int) -> str:
    """`ns` nanoseconds in the largest unit that needs no fraction: 10_000_000 is "10ms"."""
    return _format(ns, _DURATION_UNITS, "s")


def format_size(size: int) -> str:
    """`size` bytes in the largest unit that needs no fraction: 65536 is "64KiB"."""
    return _format(size, _SIZE_UNITS, "B")


def _format(value: int, units: Mapping[str, int], unit_of_zero: str) -> str:
    if value == 0:
        return f"0{unit_of_zero}"
    scale, unit = max((scale, unit) for unit, scale in units.items() if value % scale == 0)
    return f"{value // scale}{'us' if unit in ('µs', 'μs') else unit}"


_TRUE: Final = ("true", "1", "yes", "on")
_FALSE: Final = ("false", "0", "no", "off")


def parse_value(key: Key, value: object, directory: str, *, is_text: bool) -> object:
    """The value as a Section holds it.

    Args:
        key: says what kind of value it is, and its range or choices.
        value: what was given.
        directory: what a relative path in it is relative to.
        is_text: the value is a string from outside of TOML, to be read as what the key's kind says.

    Raises:
        ValueError: it is not allowed; the text says why, for a ConfigError.
    """
    kind = key.kind
    if is_text:
        value = _from_text(key, str(value))
    if kind == "bool":
        return _expect(bool, value)
    if kind in ("int", "duration", "size"):
        return _parse_number(key, value)
    if kind == "choices":
        return _parse_choices(key, value)
    if kind in ("strings", "plugins"):
        return _parse_strings(value, directory if kind == "plugins" else None)
    text = _expect(str, value)
    if kind == "choice" and text not in key.choices:
        raise ValueError("not one of the choices")
    if text and (kind == "path" or (kind == "program" and not is_module_function(text))):
        return _absolute(text, directory)
    return text


def _parse_number(key: Key, value: object) -> int:
    read = {"int": _read_int, "duration": _read_duration, "size": _read_size}[key.kind]
    number = read(value)
    if number == 0 and key.zero:
        return number
    if not read(key.low) <= number <= read(key.high):
        raise ValueError("out of range")
    return number


def _parse_choices(key: Key, value: object) -> tuple[str, ...]:
    """Those that are meant, in the order in which they are declared."""
    if isinstance(value, bool):
        return key.choices if value else ()
    wanted = _parse_strings(value, None)
    for item in wanted:
        if item not in key.choices:
            raise ValueError(f"{item!r} is not one of the choices")
    return tuple(choice for choice in key.choices if choice in wanted)


def _parse_strings(value: object, directory: str | None) -> tuple[str, ...]:
    """A tuple of strings; with a directory, of plugin references, the files relative to it."""
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ValueError("not a list of strings")
    if directory is None:
        return tuple(value)
    return tuple(_absolute(item, directory) if is_file_reference(item) else item for item in value)


def _expect(wanted: type[Any], value: object) -> Any:
    # A bool is an int to Python, but no user who writes `idle_rounds = true` means 1.
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise ValueError(f"not {_TYPE_NAMES[wanted]}")
    return value


_TYPE_NAMES: Final = {bool: "a boolean", int: "an integer", str: "a string"}


def _read_int(value: object) -> int:
    return int(_expect(int, value))


def _read_duration(value: object) -> int:
    if isinstance(value, str):
        return parse_duration(value)
    if value == 0 and value is not False:
        return 0
    raise ValueError(f"not {_DURATION}")


def _read_size(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        return parse_size(value)
    raise ValueError(f"not {_SIZE}")


def _from_text(key: Key, text: str) -> object:
    """What TOML would have held, for a value given as text by the environment or --set."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":  # as it stands in a file
        literal = toml_literal(text)
        text = literal if isinstance(literal, str) else text
    if key.kind == "bool":
        if text.lower() not in _TRUE + _FALSE:
            raise ValueError("not a boolean")
        return text.lower() in _TRUE
    if key.kind == "int":
        try:
            return int(text)
        except ValueError:
            raise ValueError("not an integer") from None
    if key.kind == "choices" and text.lower() in _TRUE + _FALSE:
        return text.lower() in _TRUE
    if key.kind in ("strings", "plugins", "choices"):
        if text.lstrip().startswith("["):
            return toml_literal(text)
        return [item.strip() for item in text.split(",") if item.strip()]
    return text


def toml_literal(text: str) -> object:
    """What `text` is as a TOML value, and the text itself where it is none."""
    import tomli

    try:
        return tomli.loads(f"value = {text}")["value"]
    except (tomli.TOMLDecodeError, RecursionError):
        return text


def is_module_function(text: str) -> bool:
    """Whether `text` reads as package.module:function."""
    module, colon, function = text.partition(":")
    names = [*module.split("."), *function.split(".")]
    return bool(colon) and all(name.isidentifier() for name in names)


def is_missing(name: str, error: ModuleNotFoundError) -> bool:
    """Whether importing `name` has failed because that module does not exist, or its package.

    If the one that is missing is another module, then this one exists but does not work.
    """
    return error.name is not None and f"{name}.".startswith(f"{error.name}.")


def is_file_reference(text: str) -> bool:
    """Whether a plugin is named by its file (./plugin.py, ../plugin.py:object), not as a module."""
    path, _ = split_file_reference(text)
    return path.endswith(".py") or "/" in path or os.sep in path


def split_file_reference(text: str) -> tuple[str, str]:
    """The path and the object of "path/to/file.py:object"; without an object it is empty."""
    path, mark, name = text.rpartition(".py:")
    return (path + ".py", name) if mark and name.isidentifier() else (text, "")


def current_directory() -> str:
    """os.getcwd(), or "." where there is none."""
    try:
        return os.getcwd()
    except OSError:  # it was removed, which need not keep a program from running
        return os.curdir


def _absolute(path: str, directory: str) -> str:
    return os.path.normpath(os.path.join(directory, os.path.expanduser(path)))
