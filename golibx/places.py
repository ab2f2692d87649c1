"""Where in the code something happens: the line, and what is called there, by its name in the code.

The name follows from the instructions alone. What the value stack holds by then is not looked at,
since in most versions the interpreter does not store how high it is while C code runs.
"""

from __future__ import annotations

import dis
import sys
from functools import lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType

__all__ = ["effect", "line_of", "name_of_call"]

_CALLS = {"CALL": 0, "CALL_KW": 1, "PRECALL": 0}
"""What lies on the stack above the arguments."""
_NOTHING = {"CACHE", "COPY_FREE_VARS", "EXTENDED_ARG", "KW_NAMES", "NOP", "NOT_TAKEN", "PRECALL"}
_ENTERING = {"COPY", "LOAD_SPECIAL", "SWAP"}
"""Since 3.14: what a `with` does with its manager before it calls __enter__."""
_ATTRIBUTES = {"LOAD_ATTR", "LOAD_METHOD"}
_VARIABLES = ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FAST", "LOAD_DEREF", "LOAD_CLASSDEREF")
_MORE_VARIABLES = ("LOAD_FROM_DICT_OR_", "STORE_FAST_LOAD_FAST")


@lru_cache(maxsize=1024)
def line_of(code: CodeType, instruction: int) -> int:
    """The line of the instruction at that offset in bytes; the first one where it has none."""
    for start, end, line in code.co_lines():
        if start <= instruction < end and line is not None:
            return line
    return code.co_firstlineno


@lru_cache(maxsize=1024)
def name_of_call(code: CodeType, instruction: int) -> str:
    """What the instruction at that offset calls, as the code names it.

    "time.sleep", "self.lock.acquire", or "lock.__enter__" for a `with`. Of `open(name).read()` it
    is "read". "" where it is no call, or what it calls comes from more than names: `calls[0]()`, or
    arguments that have branches.
    """
    instructions = [each for each in dis.get_instructions(code) if each.opname != "CACHE"]
    at = -1
    for each in instructions:
        if each.offset > instruction:
            break
        at += 1
    if at < 0:
        return ""
    call = instructions[at]
    if call.opname == "BEFORE_WITH":
        return _joined(_expression(instructions, at - 1), "__enter__")
    if call.opname == "CALL_FUNCTION_EX":
        above = 2 if sys.version_info >= (3, 14) else 1 + ((call.arg or 0) & 1)
    elif call.opname in _CALLS:
        above = (call.arg or 0) + _CALLS[call.opname]
    else:
        return ""
    made = _where_height_was(instructions, at, above)
    if made is None:
        return ""
    if instructions[made].opname == "LOAD_SPECIAL":
        return _entered(instructions, made)
    return _expression(instructions, made)


def _where_height_was(instructions: Sequence[dis.Instruction], call: int, above: int) -> int | None:
    """The last instruction before the call after which the stack had `above` values less."""
    at = call
    while at > 0:
        if instructions[at].is_jump_target:
            return None  # it is not known what came before
        at -= 1
        before = instructions[at]
        if before.opname in _NOTHING:
            continue
        if above == 0:
            return at
        if before.opcode in dis.hasjrel or before.opcode in dis.hasjabs:
            return None
        above -= effect(before, jump=False)
        if above < 0:
            return None
    return None


def _expression(instructions: Sequence[dis.Instruction], at: int) -> str:
    """What the instructions up to this one have put on the stack, if it is names and dots."""
    while at >= 0 and not instructions[at + 1].is_jump_target:
        each = instructions[at]
        if each.opname in _ATTRIBUTES:
            return _joined(_expression(instructions, at - 1), str(each.argval))
        if each.opname == "LOAD_SUPER_ATTR":
            return f"super().{each.argval}"
        if each.opname.startswith((*_VARIABLES, *_MORE_VARIABLES)):
            name = each.argval[-1] if isinstance(each.argval, tuple) else each.argval
            return str(name)
        if each.opname not in _NOTHING and each.opname != "PUSH_NULL":
            return ""
        at -= 1
    return ""


def _entered(instructions: Sequence[dis.Instruction], at: int) -> str:
    if "__enter__" not in instructions[at].argrepr:
        return ""
    while instructions[at].opname in _ENTERING or instructions[at].opname in _NOTHING:
        at -= 1
    return _joined(_expression(instructions, at), "__enter__")


def _joined(left: str, name: str) -> str:
    return f"{left}.{name}" if left else name


def effect(instruction: dis.Instruction, *, jump: bool) -> int:
    """How many values the stack has more after the instruction than before."""
    argument = instruction.arg
    if instruction.opname == "PRECALL":
        return 0  # CALL, which follows it, takes what dis says that this does
    if instruction.opname == "CALL" and sys.version_info < (3, 12):
        return -(argument or 0) - 1
    return dis.stack_effect(instruction.opcode, argument, jump=jump)
