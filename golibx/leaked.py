"""leaks(): goroutines parked for ever, because only they can reach what they wait on.

The search itself is zsrc/python/leaks.zig, whose essay says what it can and cannot see. It has to
know every reference that a parked goroutine's stack holds. Of a frame that has called a C function,
such as Chan.recv, the interpreter does not store how many values lie on its value stack; but that
follows from the code: this module goes through it with the stack effects that dis knows.
"""

from __future__ import annotations

import dis
import gc
import sys
from types import CellType

from golibx import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, FrameType
    from typing import Any, TypeAlias

    from golibx import _core as core

    Goroutine: TypeAlias = core.Goroutine[Any]
    Frames: TypeAlias = tuple[tuple[FrameType, int, int], ...]
    Depths: TypeAlias = dict[CodeType, dict[int, int]]

__all__ = ["leaks", "variables"]


def leaks() -> list[Goroutine]:
    """The goroutines that nobody can wake any more, the oldest first: partial deadlocks.

    They are parked without a time-out on channels, WaitGroups, locks or other goroutines that no
    living part of the program can reach: no module, no goroutine that runs, sleeps or waits for
    something alive, no thread, and no C code. A goroutine that is found is certain to wait until it
    is cancelled; not all are found: what C code, generators or weak references may hold counts as
    alive. That somebody has a goroutine's Goroutine does not keep it from being found. It takes as
    long as a full garbage collection.

    Raises:
        RuntimeError: the frames of this Python are not known (3.11, 3.12 and 3.13 are).
    """
    if not _frames_are_known():
        version = ".".join(map(str, sys.version_info[:3]))
        raise RuntimeError(
            f"leaks() knows the frames of CPython 3.11, 3.12 and 3.13, not those of {version}; "
            "golibx.stacks() shows what all goroutines wait for"
        )
    depths: Depths = {}
    # Lest finalizers run while references are counted.
    collecting = gc.isenabled()
    gc.disable()
    try:
        waiting = [g for g in reversed(_core.goroutines()) if g.waiting and not g.system]
        return _core.leaked(tuple((g, _frames_of(g, depths)) for g in waiting))
    finally:
        if collecting:
            gc.enable()


def _frames_of(goroutine: Goroutine, depths: Depths) -> Frames:
    """Its frames, the innermost first, each with its instruction and the depth of its stack."""
    frames = []
    frame = goroutine.frame
    while frame is not None:
        frames.append((frame, frame.f_lasti, _depth(frame.f_code, frame.f_lasti, depths)))
        frame = frame.f_back
    return tuple(frames)


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

# While these run, what they will take off the stack still lies there and is owned by it.
_KEEPS_OPERANDS = {"CALL", "CALL_KW", "CALL_FUNCTION_EX", "FOR_ITER", "PRECALL"}
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


def _depth(code: CodeType, lasti: int, depths: Depths) -> int:
    """How many values the stack owns while the instruction runs; 0 where that is not certain."""
    if code.co_flags & _GENERATORS:
        return 0
    if code not in depths:
        depths[code] = _depths_of(code)
    return depths[code].get(lasti, 0)


def _depths_of(code: CodeType) -> dict[int, int]:
    """The depth before each instruction that keeps its operands, by its offset."""
    instructions = list(dis.get_instructions(code))
    index = {instruction.offset: i for i, instruction in enumerate(instructions)}
    before: dict[int, int] = {}
    todo = [(0, 0)]
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
                todo.append((index[instruction.argval], depth + _effect(instruction, jump=True)))
            if instruction.opname in _NEVER_GOES_ON:
                break
            depth += _effect(instruction, jump=False)
            i += 1
    return {
        instructions[i].offset: depth - _taken_before(instructions[i])
        for i, depth in before.items()
        if instructions[i].opname in _KEEPS_OPERANDS
    }


def _taken_before(instruction: dis.Instruction) -> int:
    """What the instruction takes off the stack before it calls."""
    if instruction.opname == "CALL_FUNCTION_EX":
        return 1 + ((instruction.arg or 0) & 1)  # the arguments, which may become another tuple
    return 0


def _effect(instruction: dis.Instruction, *, jump: bool) -> int:
    argument = instruction.arg
    if instruction.opname == "PRECALL":
        return 0  # CALL, which follows it, takes what dis says that this does
    if instruction.opname == "CALL" and sys.version_info < (3, 12):
        return -(argument or 0) - 1
    return dis.stack_effect(instruction.opcode, argument, jump=jump)


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
    """Looks at a frame whose variables are known."""
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
    if not _core.measure_frames(many.__code__, 777) or (found := _core.frame_slots(frame)) is None:
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
