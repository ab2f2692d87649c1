"""C functions on the native lane: goroutines that run in parallel, without the interpreter's lock.

    import ctypes, ctypes.util
    from golibx import go, native, run

    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    libm.cos.argtypes, libm.cos.restype = (ctypes.c_double,), ctypes.c_double

    def main() -> None:
        print(native.call(libm.cos, 0.0))

    run(main)

`call` calls a C function and parks the calling goroutine until it returns; calls of several
goroutines run on several processors at once. `go` starts one as a native goroutine, which may use
all of golibx.h. `Chan` is a channel of C values between the two worlds. All of them work in threads
too, which block without the interpreter's lock, and outside of a run.

A function is an address (an int), a function of ctypes or cffi, or a numba cfunc: anything whose
`address` is an int. It runs on a stack of `[stack] native_size`, and is preempted like everything
else. One that calls back into Python waits for the interpreter's lock as a thread does; what parks
goroutines, such as golibx.Chan, is refused there, Chan of this module works.

The native runtime starts with the first use, with the settings of the run, or outside of one with
those of the environment. It then stays: native goroutines cannot be cancelled. When a run ends, it
waits for those it has started as long as `[runtime] shutdown_timeout` says. docs/native.md has
the details.
"""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING, Any

from golibx import _core
from golibx._core import NativeGoroutine
from golibx.config import Config

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, Self

__all__ = ["Chan", "NativeGoroutine", "call", "counters", "go", "library", "run_queues"]

_SimpleData: Final[Any] = ctypes.c_int.__mro__[1]
_Pointer: Final[Any] = ctypes.POINTER(ctypes.c_int).__base__
_FunctionPointer: Final[Any] = ctypes.CFUNCTYPE(None).__base__
_CArgument: Final[Any] = type(ctypes.byref(ctypes.c_int()))
_Aggregate: Final[tuple[Any, ...]] = (ctypes.Structure, ctypes.Union)

# The letters of ctypes' simple types, as struct's of the same size: those of C's long are either.
_LONG = "iq"[ctypes.sizeof(ctypes.c_long) == 8]
_KINDS: Final = {letter: letter for letter in "?cbBhHiIqQdfP"} | {
    "l": _LONG,
    "L": _LONG.upper(),
    "z": "P",  # c_char_p
    "Z": "P",  # c_wchar_p
}
_UNDECLARED: Final[Any] = object()


def library() -> str:
    """The path of the shared library, which exports golibx.h: for ctypes.CDLL and ffi.dlopen."""
    from golibx import include

    return include.library()


def counters() -> dict[str, int]:
    """The native runtime's counters, as golibx_counters of golibx.h; zeroes before its start."""
    return _core.native_counters()


def run_queues() -> list[int]:
    """How many native goroutines wait in the queue of each processor; empty before the start.

    Those that wait in the queue of all processors are `counters()["queue_global"]`.
    """
    return _core.native_queues()


def go(function: object, arg: object = None, /) -> NativeGoroutine:
    """Starts `function(arg)` as a native goroutine: a C function `void f(void *arg)`.

    Args:
        function: an address, a function of ctypes or cffi, a numba cfunc.
        arg: the pointer: None, an int, a Chan, a pointer, array or structure of ctypes or cffi, or
            an object with contiguous memory, such as bytes, bytearray or a numpy array. It is kept
            alive until the function has returned.

    Raises:
        TypeError, ValueError: `function` or `arg` is not one of those. An address without code is
            refused on Linux, but not one inside of a function; elsewhere, one below 4096 is.
        MemoryError, RuntimeError: there is no memory, or the native runtime cannot be started.
    """
    address = _function_address(function)
    _, value, keep = _convert(1, arg, _UNDECLARED, is_pointer=True)
    _start()
    return _core.native_go(address, value, (function, arg, keep))


def call(
    function: object,
    /,
    *args: object,
    restype: object = _UNDECLARED,
    argtypes: Sequence[object] | None = None,
) -> Any:
    """Calls `function(*args)` on the native lane, waits for it and returns its result.

    Goroutines park meanwhile; threads block without the interpreter's lock. One that is cancelled
    or interrupted raises at once: the function goes on then, and what it was given is kept alive
    until it returns.

    Args:
        function: as for go().
        *args: ints, floats, None, and what go() takes as a pointer. Structures cannot be passed
            by value; pass ctypes.byref() of them.
        restype: the ctypes type of the result, None for none. If it is not given: that of a ctypes
            or cffi function or a numba cfunc, else c_int, as in ctypes.
        argtypes: the ctypes types of the arguments. If it is not given: those of the function, else
            an int is passed as a 64 bit integer and a float as a double.

    Returns:
        What ctypes returns for `restype`; a cffi function's pointers are cffi's.

    Raises:
        TypeError, ValueError: an argument, or how many there are, does not fit its type.
        Cancelled, KeyboardInterrupt: the goroutine was told to raise them.
    """
    function = getattr(function, "ctypes", function)  # what numba offers beside the address
    address = _function_address(function)
    cffi_type = _cffi_function_type(function)
    if cffi_type is not None:
        if argtypes is None:
            argtypes = _cffi_argtypes(cffi_type)
        if restype is _UNDECLARED:
            restype = _cffi_restype(cffi_type.result)
    elif isinstance(function, _FunctionPointer):
        if argtypes is None:
            argtypes = function.argtypes
        if restype is _UNDECLARED:
            restype = function.restype
    kinds, values, keep = _convert_all(args, argtypes)
    letter, finish = _result(ctypes.c_int if restype is _UNDECLARED else restype)
    _start()
    result = _core.native_call(address, kinds, values, letter, (function, args, keep))
    return result if finish is None else finish(result)


class Chan(_core.NativeChan):
    """A channel of C values that native and Python goroutines share, with Chan's methods.

    Args:
        ctype: the type of the values: a simple type of ctypes such as c_int64 or c_double, whose
            values are Python's ints, floats, bools or bytes; c_void_p, whose are addresses; a
            Structure, Union or array, whose instances are copied. At most 64 KiB.
        capacity: how many values the buffer holds.

    C code gets it by its `address`, as a `golibx_chan *`. The channel goes with this object: keep
    it as long as C code may use it. As the argument of go() it is kept.

    on_recv() and on_send() are cases for golibx.select(), beside those of other channels.
    """

    __slots__ = ()

    def __new__(cls, ctype: Any, capacity: int = 0) -> Self:  # noqa: D102
        kind = _element_kind(ctype)
        return super().__new__(cls, kind, ctypes.sizeof(ctype), _capacity(capacity), ctype, 0)

    @classmethod
    def at(cls, address: int, ctype: Any) -> Self:
        """The channel that C code has made, a `golibx_chan *` at `address`.

        It belongs to that C code: it must not be freed as long as this object is used.
        """
        if not isinstance(address, int) or not 0 < address < 1 << 64:
            raise ValueError(f"the address of a channel, not {address!r}")
        return super().__new__(cls, _element_kind(ctype), ctypes.sizeof(ctype), 0, ctype, address)


def _capacity(capacity: int) -> int:
    if capacity.__index__() < 0 or capacity >= 1 << 40:
        raise ValueError(f"Chan capacity must be between 0 and {(1 << 40) - 1}, not {capacity}")
    return capacity


def _element_kind(ctype: Any) -> str:
    if isinstance(ctype, type):
        if issubclass(ctype, (*_Aggregate, ctypes.Array)):
            return "r"
        if _SimpleData in ctype.__bases__ and _is_native(ctype):
            letter: str = getattr(ctype, "_type_", "")
            if letter in _KINDS and letter not in "zZ":
                return _KINDS[letter]
    raise TypeError(
        "a native.Chan is of a simple type of ctypes (a bool, integer, float, c_char or c_void_p), "
        f"of a Structure, a Union or an array, not of {ctype!r}"
    )


def _is_native(ctype: Any) -> bool:
    """Whether a simple type has this machine's byte order."""
    other = "__ctype_be__" if sys.byteorder == "little" else "__ctype_le__"
    swapped: Any = getattr(ctype, other, None)
    return swapped is not ctype or ctypes.sizeof(ctype) == 1


def _start() -> None:
    if not _core.native_running():
        # A run has brought its own settings.
        _core.native_start(None if _core.active() else Config.load().core_options())


# ---- functions ----


def _function_address(function: object) -> int:
    if isinstance(function, int):
        address = int(function)
    elif isinstance(function, _FunctionPointer):
        address = _pointer_value(function)
    elif _is_cdata(function):
        address = _cdata_address(function)
    elif isinstance(found := getattr(function, "address", None), int):
        address = found
    elif _cffi_library_function(function) is not None:
        address = _cdata_address(_cffi_library_function(function))
    else:
        raise TypeError(
            "the function must be an address, a function of ctypes or cffi, or a numba cfunc, "
            f"not {function!r}"
        )
    if not 0 < address < 1 << 64:
        raise ValueError(f"the function is at address {address:#x}, where there can be none")
    return address


def _pointer_value(pointer: object) -> int:
    return ctypes.cast(pointer, ctypes.c_void_p).value or 0  # type: ignore[arg-type]


# ---- arguments ----


def _convert_all(
    args: tuple[object, ...], argtypes: Sequence[object] | None
) -> tuple[str, tuple[object, ...], list[object]]:
    if argtypes is None:
        types: tuple[object, ...] = (_UNDECLARED,) * len(args)
    else:
        types = tuple(argtypes)
        if len(types) != len(args):
            raise TypeError(f"the function takes {len(types)} arguments, not {len(args)}")
    converted = [_convert(i, *pair) for i, pair in enumerate(zip(args, types, strict=True), 1)]
    kinds = "".join(kind for kind, _, _ in converted)
    return kinds, tuple(value for _, value, _ in converted), [keep for _, _, keep in converted]


def _convert(
    number: int, value: Any, ctype: Any, *, is_pointer: bool = False
) -> tuple[str, Any, object]:
    """An argument's kind (see _core.native_call), its value, and what to keep for it."""
    if ctype is not _UNDECLARED:
        return _convert_to(number, value, ctype)
    if isinstance(value, bool | int):
        if not -(1 << 63) <= value < 1 << 64:
            raise _error(ValueError, number, value, "64 bits hold -2**63 to 2**64-1")
        return "i", value & (1 << 64) - 1, None
    if isinstance(value, float) and not is_pointer:
        return "d", value, None
    if isinstance(value, _SimpleData) and not is_pointer:
        return _simple_argument(number, value)
    if is_pointer and isinstance(value, _Aggregate):
        return "i", ctypes.addressof(value), value
    address = _address_of(number, value)
    if address is not None:
        return "i", address[0], address[1]
    if hasattr(value, "_as_parameter_"):
        return _convert(number, value._as_parameter_, ctype, is_pointer=is_pointer)
    numbers = "" if is_pointer else " a float,"
    raise _error(
        TypeError,
        number,
        value,
        f"allowed are an int,{numbers} None, a native.Chan, pointers, arrays and byref() of ctypes "
        "and cffi, and objects with contiguous memory such as bytes",
    )


def _error(kind: type[Exception], number: int, value: object, text: str) -> Exception:
    return kind(f"argument {number} is {value!r}: {text}")


def _simple_argument(number: int, value: Any) -> tuple[str, Any, object]:
    """An instance of a simple type of ctypes, such as c_float(1)."""
    letter = value._type_
    if letter in "df":
        return letter, value.value, None
    if letter in "zZP":
        return "i", _pointer_value(value), value
    if letter == "c":
        return "i", value.value[0], None
    if letter not in _KINDS:
        raise _error(TypeError, number, value, "values of this type cannot be passed")
    return "i", int(value.value) & (1 << 64) - 1, None


def _address_of(number: int, value: Any) -> tuple[int, object] | None:
    """The address that a pointer-like object stands for, and what keeps it valid."""
    if value is None:
        return 0, None
    if isinstance(value, _core.NativeChan):
        return value.address, value
    if isinstance(value, _SimpleData) and value._type_ not in "zZP":
        raise _error(TypeError, number, value, "a pointer to it is ctypes.byref()")
    if isinstance(value, (_Pointer, _FunctionPointer, _SimpleData)):
        return _pointer_value(value), value
    if isinstance(value, ctypes.Array):
        return ctypes.addressof(value), value
    if isinstance(value, _CArgument):
        return _byref_address(value), value
    if isinstance(value, _Aggregate):
        raise _error(TypeError, number, value, "a structure is passed by ctypes.byref()")
    if _is_cdata(value):
        return _cdata_address(value), value
    if isinstance(value, str):
        raise _error(TypeError, number, value, "C takes bytes, not a str: encode it")
    try:
        buffer = _core.NativeBuffer(value)
    except TypeError:
        return None
    except (BufferError, ValueError) as exc:
        raise _error(ValueError, number, value, f"its memory cannot be used: {exc}") from None
    return buffer.address, buffer


def _byref_address(argument: Any) -> int:
    """The address that byref() gives. The text alone has the offset: <cparam 'P' (0x7f…)>."""
    text = repr(argument)
    return int(text[text.rindex("(") + 1 : text.rindex(")")], 16)


def _convert_to(number: int, value: Any, ctype: Any) -> tuple[str, Any, object]:
    """As _convert, for an argument of a known type."""
    if not isinstance(ctype, type):
        raise TypeError(f"argument type {number} is no ctypes type: {ctype!r}")
    if issubclass(ctype, _SimpleData):
        return _convert_to_simple(number, value, ctype)
    if issubclass(ctype, _Aggregate):
        raise TypeError(f"argument {number}: {ctype.__name__} cannot be passed by value")
    if not issubclass(ctype, (_Pointer, _FunctionPointer, ctypes.Array)):
        raise TypeError(f"argument type {number} is no ctypes type: {ctype!r}")
    if not isinstance(value, int):
        address = _address_of(number, value)
        if address is not None and _points_to(value, ctype):
            return "i", address[0], address[1]
    raise _error(TypeError, number, value, f"it must be a {ctype.__name__}")


def _points_to(value: Any, ctype: Any) -> bool:
    """Whether ctypes would take `value` for the pointer type `ctype`."""
    if value is None or isinstance(value, ctype):
        return True
    try:
        ctype.from_param(value)
    except (TypeError, ctypes.ArgumentError):
        # What is none of ctypes' own has no type that could be wrong.
        return not isinstance(
            value, (_Pointer, _FunctionPointer, _SimpleData, _CArgument, ctypes.Array)
        )
    return True


def _convert_to_simple(number: int, value: Any, ctype: Any) -> tuple[str, Any, object]:
    letter = ctype._type_
    if not _is_native(ctype) or letter not in _KINDS:
        raise TypeError(f"argument {number}: a {ctype.__name__} cannot be passed")
    if isinstance(value, ctype):
        return _simple_argument(number, value)
    if letter in "zZP":
        address = None if isinstance(value, (int, str)) else _address_of(number, value)
        if letter == "Z" and isinstance(value, str):
            text = ctypes.create_unicode_buffer(value)
            address = ctypes.addressof(text), text
        if address is not None:
            return "i", address[0], address[1]
    try:
        if letter in "bBhHiIlLqQP":
            return "i", _in_range(value.__index__(), letter) & (1 << 64) - 1, None
        converted = ctype(value)
    except (TypeError, AttributeError):
        raise _error(TypeError, number, value, f"it must be a {ctype.__name__}") from None
    except ValueError as exc:
        raise _error(ValueError, number, value, f"a {ctype.__name__} holds {exc}") from None
    return _simple_argument(number, converted)


def _in_range(value: int, letter: str) -> int:
    kind = _KINDS[letter]
    bits = 8 * {"b": 1, "h": 2, "i": 4}.get(kind.lower(), 8)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if kind.islower() else (0, (1 << bits) - 1)
    if not low <= value <= high:
        raise ValueError(f"{low} to {high}")
    return value


# ---- results ----


def _result(restype: Any) -> tuple[str, Any]:
    """The kind of a result, and what makes the Python value of it (None: it is that already)."""
    if restype is None:
        return "v", None
    if isinstance(restype, _CffiPointer):
        return "Q", restype
    if isinstance(restype, type) and issubclass(restype, (_Pointer, _FunctionPointer)):
        return "Q", lambda address: ctypes.cast(ctypes.c_void_p(address), restype)
    if isinstance(restype, type) and issubclass(restype, _SimpleData) and _is_native(restype):
        kind = _KINDS.get(getattr(restype, "_type_", ""))
        if kind is not None:
            return _simple_result(restype, kind)
    if callable(restype) and not isinstance(restype, type):  # as ctypes: it is given a C int
        return "i", restype
    raise TypeError(
        "restype must be None, a pointer type or a simple type of ctypes (a bool, integer, float, "
        f"c_char, c_char_p or c_void_p), not {restype!r}"
    )


def _simple_result(restype: Any, kind: str) -> tuple[str, Any]:
    if restype.__bases__[0] is not _SimpleData:  # ctypes returns such a type's instances
        return kind.replace("P", "Q").replace("c", "B"), _instance_maker(restype)
    if restype is ctypes.c_char_p:
        return "Q", lambda address: ctypes.string_at(address) if address else None
    if restype is ctypes.c_wchar_p:
        return "Q", lambda address: ctypes.wstring_at(address) if address else None
    if kind == "P":
        return "Q", lambda address: address or None
    if kind == "c":
        return "B", lambda byte: bytes((byte,))
    return kind, None


def _instance_maker(restype: Any) -> Any:
    if restype._type_ == "c":
        return lambda byte: restype(bytes((byte,)))
    if restype._type_ in "zZ":
        return lambda address: ctypes.cast(ctypes.c_void_p(address), restype)
    return restype


# ---- cffi, where the program uses it ----


def _cffi() -> Any:
    return sys.modules.get("_cffi_backend")


def _is_cdata(value: object) -> bool:
    backend = _cffi()
    return backend is not None and isinstance(value, backend.FFI.CData)


def _cdata_address(value: Any) -> int:
    """Of a pointer, array or function; the number itself if it is one."""
    backend = _cffi()
    kind = backend.typeof(value).kind
    if kind in ("struct", "union"):
        raise TypeError(f"{value!r} is a structure: pass its address, ffi.addressof()")
    return int(backend.FFI().cast("uintptr_t", value))


def _cffi_library_function(function: Any) -> Any:
    """A pointer to `lib.function` of a compiled cffi module."""
    backend = _cffi()
    library = getattr(function, "__self__", None)
    if backend is None or type(library).__name__ != "Lib":
        return None
    return backend.FFI().addressof(library, function.__name__)


def _cffi_function_type(function: Any) -> Any:
    if not _is_cdata(function):
        function = _cffi_library_function(function)
        if function is None:
            return None
    ctype = _cffi().typeof(function)
    if ctype.kind == "pointer" and ctype.item.kind == "function":
        ctype = ctype.item
    return ctype if ctype.kind == "function" else None


_CFFI_FLOATS: Final = {"float": ctypes.c_float, "double": ctypes.c_double}


class _CffiPointer:
    """The result of a cffi function that returns a pointer."""

    def __init__(self, ctype: Any) -> None:
        self.ctype = ctype

    def __call__(self, address: int) -> Any:
        backend = _cffi()
        return backend.cast(self.ctype, backend.FFI().cast("uintptr_t", address))


def _cffi_simple(ctype: Any) -> Any:
    """The ctypes type that is passed as a primitive type or enum of cffi is."""
    name = ctype.cname
    if ctype.kind == "primitive":
        if name in _CFFI_FLOATS:
            return _CFFI_FLOATS[name]
        if name in ("_Bool", "bool"):
            return ctypes.c_bool
        if name == "char":
            return ctypes.c_char
    if (
        ctype.kind not in ("primitive", "enum")
        or "complex" in name.lower()
        or "long double" in name
    ):
        raise TypeError(f"a {name} cannot be passed to or from a native call")
    backend = _cffi()
    size = backend.sizeof(ctype)
    is_signed = ctype.kind == "enum" or int(backend.cast(ctype, -1)) < 0
    signed = {1: ctypes.c_int8, 2: ctypes.c_int16, 4: ctypes.c_int32, 8: ctypes.c_int64}
    unsigned = {1: ctypes.c_uint8, 2: ctypes.c_uint16, 4: ctypes.c_uint32, 8: ctypes.c_uint64}
    return (signed if is_signed else unsigned)[size]


def _cffi_argtypes(function: Any) -> list[object]:
    return [
        ctypes.c_void_p if each.kind in ("pointer", "array", "function") else _cffi_simple(each)
        for each in function.args
    ]


def _cffi_restype(ctype: Any) -> object:
    if ctype.kind == "void":
        return None
    if ctype.kind == "pointer":
        return _CffiPointer(ctype)
    return _cffi_simple(ctype)
