"""leaks(): goroutines parked for ever, because only they can reach what they wait on.

The search itself is zsrc/python/run/leaks.zig. Its essay says what it can and cannot see. It has to
know every reference that a parked goroutine's stack holds. Before 3.14 the interpreter does not
store, of a frame that has called a C function such as Chan.recv, how many values lie on its value
stack; but that follows from the code: this module goes through it with the stack effects that dis
knows.
"""

from __future__ import annotations

import dis
import gc
import re
import sys
from types import CellType

from golibx import _core, inherited
from golibx.places import effect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, FrameType
    from typing import Any, TypeAlias

    from golibx import _core as core

    Goroutine: TypeAlias = core.Goroutine[Any]
    Depth: TypeAlias = tuple[int, int, int, int]
    Parameters: TypeAlias = tuple[int, int, int] | None
    Frames: TypeAlias = tuple[tuple[FrameType, int, int, int, int, int, Parameters], ...]
    Depths: TypeAlias = dict[CodeType, dict[int, Depth]]
    Known: TypeAlias = dict[CodeType, Parameters]

__all__ = ["leaks", "variables"]


def leaks() -> list[Goroutine]:
    """The goroutines that can't be woken any more, the oldest first: partial deadlocks.

    They are parked without a time-out on channels, WaitGroups, locks, stopped timers or other
    goroutines that no living part of the program can reach: no module, no goroutine that runs,
    sleeps or waits for something alive, no context with a deadline, no thread, and no C code. A
    goroutine that is found is certain to wait until it is cancelled; not all are found: what C code
    or weak references may hold counts as alive. A reference to a goroutine's Goroutine does not
    keep it from being found. Garbage is collected first, which takes most of the time.

    Raises:
        RuntimeError: the frames of this Python are not known (those of CPython 3.11 to 3.15 are).
    """
    if not _frames_are_known():
        version = ".".join(map(str, sys.version_info[:3]))
        raise RuntimeError(
            f"leaks() knows the frames of CPython 3.11 to 3.15, not those of {version}; "
            "golibx.stacks() shows what all goroutines wait for"
        )
    depths: Depths = {}
    known: Known = {}
    gc.collect()
    # Lest finalizers run while references are counted.
    collecting = gc.isenabled()
    gc.disable()
    try:
        waiting = [g for g in reversed(_core.goroutines()) if g.waiting and not g.system]
        stacks = tuple((g, _frames_of(g, depths, known)) for g in waiting)
        return _core.leaked(stacks, inherited.references())
    finally:
        if collecting:
            gc.enable()


def _frames_of(goroutine: Goroutine, depths: Depths, known: Known) -> Frames:
    """Its frames, the innermost first, as zsrc/python/run/frames.zig describes an Entry.

    Each has its instruction, the depth of its stack, and its parameters if its caller has it called
    by C code, maybe.
    """
    described = []
    frame = goroutine.frame
    while frame is not None:
        code, lasti = frame.f_code, frame.f_lasti
        back = frame.f_back
        below, owned, kind, taken = _depth(code, lasti, depths)
        parameters = None
        if back is not None and _depth(back.f_code, back.f_lasti, depths)[2] in _MAY_CALL_BY_C:
            if code not in known:
                known[code] = _parameters(code)
            parameters = known[code]
        described.append((frame, lasti, below, owned, kind, taken, parameters))
        frame = back
    return tuple(described)


def _parameters(code: CodeType) -> Parameters:
    """Where a frame has its positional arguments, None unless it has them at any time.

    The number of those that have a name, which variable has the others (-1 if there is none), and a
    bit for each of the former that lies in a cell.
    """
    count = code.co_argcount
    star = count + code.co_kwonlyargcount if code.co_flags & _HAS_STAR_ARGS else -1
    names = {*code.co_varnames[:count]}
    if star >= 0:
        names.add(code.co_varnames[star])
    cells = names.intersection(code.co_cellvars)
    if count > _MOST_PARAMETERS or (star >= 0 and code.co_varnames[star] in cells):
        return None
    if _changes(code, names):
        return None
    return count, star, sum(1 << i for i in range(count) if code.co_varnames[i] in cells)


def _changes(code: CodeType, names: set[str]) -> bool:
    """Whether it, or a function in it, gives variables of these names other values."""
    if any(
        each.opname.startswith(_STORES) and not names.isdisjoint(re.findall(r"\w+", each.argrepr))
        for each in dis.get_instructions(code)
    ):
        return True
    return any(
        _changes(inner, names.intersection(inner.co_freevars))
        for inner in code.co_consts
        if isinstance(inner, type(code)) and not names.isdisjoint(inner.co_freevars)
    )


def variables(frame: FrameType) -> list[object]:
    """What the local variables of a frame hold, closures' included; nothing if that is not known.

    Unlike frame.f_locals it leaves the frame as it is: that keeps what it gives before Python 3.13.
    """
    if not _frames_are_known():
        return []
    found = _core.frame_slots(frame) or ()
    return [_contents(value) if isinstance(value, CellType) else value for value in found]


def _contents(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None


# ---- how deep the value stack is ----

# What kind of instruction it is: zsrc/python/run/frames.zig knows them by these numbers.
_PLAIN, _CALL, _CALL_STAR, _WITH, _CALL_LIST, _FOR_ITER, _EXTEND = range(7)
_MAY_CALL_BY_C = {_CALL, _CALL_STAR, _CALL_LIST, _FOR_ITER, _EXTEND}
_KINDS = {
    "BEFORE_WITH": _WITH,
    "FOR_ITER": _FOR_ITER,
    "LIST_EXTEND": _EXTEND,
    "SET_UPDATE": _EXTEND,
}

# Instructions that may run other code: how many values they take off the stack, and how many of
# those, from the lowest, they still own meanwhile. What is not here may own nothing of its stack.
_OPERANDS = {
    "BEFORE_WITH": (1, 0),
    "BINARY_OP": (2, 2),
    "BINARY_SLICE": (3, 1),
    "BINARY_SUBSCR": (2, 2),
    "COMPARE_OP": (2, 2),
    "CONTAINS_OP": (2, 2),
    "CONVERT_VALUE": (1, 1),
    "DELETE_ATTR": (1, 1),
    "DELETE_FAST": (0, 0),
    "DELETE_SUBSCR": (2, 2),
    "DICT_MERGE": (1, 1),
    "DICT_UPDATE": (1, 1),
    "FORMAT_SIMPLE": (1, 1),
    "FORMAT_WITH_SPEC": (2, 2),
    "FOR_ITER": (1, 1),
    "GET_ITER": (1, 1),
    "GET_LEN": (1, 1),
    "IMPORT_NAME": (2, 0),
    "LIST_EXTEND": (1, 1),
    "LOAD_ATTR": (1, 1),
    "LOAD_METHOD": (1, 1),
    "LOAD_SUPER_ATTR": (3, 0),
    "POP_TOP": (1, 1),
    "SEND": (1, 1),  # the value sent; the generator stays
    "SET_UPDATE": (1, 1),
    "STORE_ATTR": (2, 2),
    "STORE_FAST": (1, 0),
    "STORE_SLICE": (4, 2),
    "STORE_SUBSCR": (3, 3),
    "TO_BOOL": (1, 1),
    "UNARY_INVERT": (1, 1),
    "UNARY_NEGATIVE": (1, 1),
    "UNARY_NOT": (1, 1),
    "UNARY_POSITIVE": (1, 1),
    "UNPACK_SEQUENCE": (1, 1),
    "WITH_EXCEPT_START": (0, 0),
}
_CALLS = {"CALL": 2, "CALL_KW": 3, "PRECALL": 2}  # what there is beside the arguments
_TAKES_A_CONDITION = ("POP_JUMP_", "JUMP_IF_")
_NEVER_GOES_ON = {
    "JUMP_BACKWARD",
    "JUMP_BACKWARD_NO_INTERRUPT",
    "JUMP_FORWARD",
    "RAISE_VARARGS",
    "RERAISE",
    "RETURN_CONST",
    "RETURN_VALUE",
}
_GENERATORS = 0x20 | 0x80 | 0x200  # inspect's CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR
_HAS_STAR_ARGS = 0x04  # CO_VARARGS
_STORES = ("STORE_FAST", "DELETE_FAST", "LOAD_FAST_AND_CLEAR", "STORE_DEREF", "DELETE_DEREF")
_MOST_PARAMETERS = 60


def _depth(code: CodeType, lasti: int, depths: Depths) -> Depth:
    """What the value stack surely owns while the instruction runs.

    How many values lie below what it takes off the stack, how many of those that it takes it still
    owns, its kind, and how many it takes.
    """
    if code not in depths:
        depths[code] = _depths_of(code)
    return depths[code].get(lasti, (0, 0, _PLAIN, 0))


def _depths_of(code: CodeType) -> dict[int, Depth]:
    """By the offset of an instruction, what _depth() says of it."""
    if sys.version_info >= (3, 14):  # the frame itself says how deep the stack is
        return {
            each.offset: (0, *operands, operands[0])
            for each in dis.get_instructions(code)
            if (operands := _operands_of_call(each)) is not None
        }
    instructions = list(dis.get_instructions(code))
    index = {instruction.offset: i for i, instruction in enumerate(instructions)}
    before: dict[int, int] = {}
    # A generator begins with the value sent on its stack; since 3.13 RETURN_GENERATOR says so.
    starts_with = 1 if code.co_flags & _GENERATORS and sys.version_info < (3, 13) else 0
    todo = [(0, starts_with)]
    handlers = _handlers_of(code)
    while todo:
        i, depth = todo.pop()
        while i < len(instructions) and i not in before:
            before[i] = depth
            instruction = instructions[i]
            for start, end, target, handler_depth in handlers:
                if start <= instruction.offset < end:
                    todo.append((index[target], handler_depth))
            if instruction.opcode in dis.hasjrel or instruction.opcode in dis.hasjabs:
                todo.append((index[instruction.argval], depth + effect(instruction, jump=True)))
            if instruction.opname in _NEVER_GOES_ON:
                break
            depth += effect(instruction, jump=False)
            i += 1
    found = {}
    reached = [(instructions[i], before[i]) for i in sorted(before)]
    for i, (instruction, depth) in enumerate(reached):
        if (operands := _operands(instruction)) is not None:
            taken, owned, kind = operands
            if instruction.opname == "CALL_FUNCTION_EX" and not _calls_with_a_tuple(
                code, reached[: i + 1]
            ):
                # A list is replaced by a tuple that the stack knows nothing of.
                owned = 2
                kind = _CALL_LIST
            found[instruction.offset] = (depth - taken, owned, kind, taken)
    return found


def _operands_of_call(instruction: dis.Instruction) -> tuple[int, int] | None:
    """Since 3.14: how many values it takes off the stack, and its kind."""
    if instruction.opname in _CALLS:
        return (instruction.arg or 0) + _CALLS[instruction.opname], _CALL
    if instruction.opname in {"FOR_ITER", "LIST_EXTEND", "SET_UPDATE"}:
        # Since 3.15 an iterator has another value above it.
        operands = 2 if instruction.opname == "FOR_ITER" and sys.version_info >= (3, 15) else 1
        return operands, _KINDS[instruction.opname]
    return (4, _CALL_STAR) if instruction.opname == "CALL_FUNCTION_EX" else None


def _operands(instruction: dis.Instruction) -> tuple[int, int, int] | None:
    """How many values it takes off the stack, how many of those it owns meanwhile, and its kind."""
    name, argument = instruction.opname, instruction.arg or 0
    if name in _OPERANDS:
        return (*_OPERANDS[name], _KINDS.get(name, _PLAIN))
    if name in _CALLS:
        values = argument + _CALLS[name]
        return values, values, _CALL
    if name == "CALL_FUNCTION_EX":
        values = 3 + (argument & 1)
        return values, values, _CALL_STAR
    if name == "FORMAT_VALUE":
        has_spec = (argument & 4) >> 2
        # A value that is converted may be replaced before it is formatted.
        return 1 + has_spec, 0 if has_spec and argument & 3 else 1 + has_spec, _PLAIN
    if name.startswith(_TAKES_A_CONDITION):
        return 1, 1, _PLAIN
    return None


def _calls_with_a_tuple(code: CodeType, before: list[tuple[dis.Instruction, int]]) -> bool:
    """Whether the arguments of a CALL_FUNCTION_EX, the last of `before`, surely are a tuple.

    `before` has each instruction up to it, with the depth that the stack has there.
    """
    call, depth = before[-1]
    height = depth - ((call.arg or 0) & 1)
    follows = call
    for instruction, depth in reversed(before[:-1]):
        # The arguments were made when they last were on top.
        if depth + effect(instruction, jump=False) == height:
            break
        follows = instruction
    else:
        return False
    if follows.is_jump_target:  # or somewhere else
        return False
    if instruction.opname == "CALL_INTRINSIC_1":
        return bool(instruction.argrepr == "INTRINSIC_LIST_TO_TUPLE")
    if instruction.opname in {"BUILD_TUPLE", "LIST_TO_TUPLE"}:
        return True
    if instruction.opname == "LOAD_CONST":
        return type(instruction.argval) is tuple
    if instruction.opname != "LOAD_FAST" or not code.co_flags & _HAS_STAR_ARGS:
        return False
    # The function's own *args, if that name never gets another value.
    star = code.co_varnames[code.co_argcount + code.co_kwonlyargcount]
    return bool(instruction.argval == star) and not any(
        each.opname.startswith(("STORE_FAST", "DELETE_FAST")) and star in each.argrepr
        for each in dis.get_instructions(code)
    )


def _handlers_of(code: CodeType) -> list[tuple[int, int, int, int]]:
    """The exception table: (start, end, handler, depth there), offsets in bytes."""
    numbers = iter(_varints(code.co_exceptiontable))
    handlers = []
    for start in numbers:
        length, target, depth_and_lasti = next(numbers), next(numbers), next(numbers)
        # The depth at the start, the instruction for RERAISE if it is wanted, and the exception.
        depth = (depth_and_lasti >> 1) + (depth_and_lasti & 1) + 1
        handlers.append((start * 2, (start + length) * 2, target * 2, depth))
    return handlers


def _varints(table: bytes) -> list[int]:
    """The numbers of an exception table: six bits a byte, the highest ones first."""
    numbers = []
    value = 0
    for byte in table:
        value = value << 6 | byte & 63
        if not byte & 64:
            numbers.append(value)
            value = 0
    return numbers


# ---- whether the interpreter is as supposed ----

_known: bool | None = None


def _frames_are_known() -> bool:
    global _known
    if _known is None:
        _known = _probe()
    return _known


def _probe() -> bool:
    """Looks at a frame with known variables."""
    # 300 variables, 277 cells and 200 free variables: a number that no other field has.
    plain = "; ".join(f"a{i} = 0" for i in range(300))
    cells = "; ".join(f"b{i} = 0" for i in range(277))
    free = ", ".join(f"c{i}" for i in range(200))
    used = ", ".join(f"b{i}" for i in range(277))
    source = (
        f"def outer({free}):\n"
        f"    def many():\n        {plain}\n        {cells}\n"
        f"        return lambda: ({used}), {free}\n"
        "    return many\n"
    )
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    many = namespace["outer"](*range(200))
    first, second = object(), object()
    cell = None

    def inside() -> object:
        return cell

    frame = sys._getframe()
    try:
        raise LookupError
    except LookupError as exc:
        measured = _core.measure_frames(many.__code__, 777, exc)
    if not measured or (found := _core.frame_slots(frame)) is None:
        return False
    code = frame.f_code
    names = [*code.co_varnames, *code.co_cellvars, *code.co_freevars]
    values = dict(zip(names, found, strict=False))
    return (
        len(found) == len(names)
        and values["first"] is first
        and values["second"] is second
        and values["inside"] is inside
        and getattr(values["cell"], "cell_contents", inside) is None
    )
