"""Signals at every point of golibx's own Python code at which the interpreter may handle one.

The interpreter looks for signals after calls, at the starts of functions and at jumps back. All of
these in golibx's files are found by tracing a body opcode by opcode: before the n-th of them a
signal is marked as come, as the system's handler would mark it, for n = 1, 2, … until the body has
none any more. The trace function is in C: one in Python would be interrupted itself.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import golibx
from conftest import c_library
from golibx import gosched, run

State = TypeVar("State")
Raised: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]

_SOURCE = """
#include <string.h>
#include <stddef.h>

typedef void object;
extern object *PyFrame_GetCode(object *frame);
extern object *PyObject_GetAttrString(object *o, const char *name);
extern int PyObject_SetAttrString(object *o, const char *name, object *value);
extern const char *PyUnicode_AsUTF8AndSize(object *o, ptrdiff_t *size);
extern object *PyBool_FromLong(long value);
extern void Py_DecRef(object *o);
extern int PyErr_SetInterruptEx(int number);

enum { CALL = 0, OPCODE = 7 };

static const char *folder;
static long left;
static int number;

static int is_own(object *frame) {
    object *code = PyFrame_GetCode(frame);
    object *name = PyObject_GetAttrString(code, "co_filename");
    const char *text = PyUnicode_AsUTF8AndSize(name, NULL);
    int own = strncmp(text, folder, strlen(folder)) == 0;
    Py_DecRef(name);
    Py_DecRef(code);
    return own;
}

int trace(object *self, object *frame, int what, object *arg) {
    if (what == CALL && is_own(frame)) {
        object *yes = PyBool_FromLong(1);
        PyObject_SetAttrString(frame, "f_trace", yes); /* not called, but asked for from 3.13 on */
        PyObject_SetAttrString(frame, "f_trace_opcodes", yes);
        Py_DecRef(yes);
    }
    if (what == OPCODE && left > 0 && --left == 0 && number > 0) PyErr_SetInterruptEx(number);
    return 0;
}

void aim(const char *own_folder, long opcode, int signal_number) {
    folder = own_folder;
    left = opcode;
    number = signal_number;
}

long missing(void) {
    return left;
}
"""


class Interrupts:
    """Has a signal come at any point."""

    def __init__(self, folder: Path) -> None:
        self._library = ctypes.PyDLL(str(c_library(folder, "interrupts", _SOURCE)))
        self._library.missing.restype = ctypes.c_long
        self._package = os.path.dirname(golibx.__file__).encode() + os.fsencode(os.sep)
        self._trace = ctypes.cast(self._library.trace, ctypes.c_void_p)
        self._set_trace = ctypes.pythonapi.PyEval_SetTrace
        self._set_trace.argtypes = [ctypes.c_void_p, ctypes.py_object]
        self._set_trace.restype = None
        # 3.12 has opcodes traced only by what is set when some frame has asked for that.
        sys._getframe().f_trace_opcodes = True

    def once(self, n: int, number: int, body: Callable[[], object]) -> bool:
        """Calls body() with the signal at the n-th opcode; returns whether it has so many."""
        self._library.aim(self._package, ctypes.c_long(n), number)
        self._set_trace(self._trace, None)
        try:
            body()
        finally:
            self._set_trace(None, None)
        return bool(self._library.missing() == 0)

    def everywhere(
        self,
        make: Callable[[], State],
        body: Callable[[State], object],
        check: Callable[[State, BaseException | None], object],
        *,
        number: int = signal.SIGINT,
        raises: Raised = KeyboardInterrupt,
        step: int = 1,
    ) -> int:
        """In a run for each point: state = make(), body(state) with a signal, check(state, …).

        The check gets what the body raised as well: one of `raises`, or None where the signal came
        after the body. Returns the number of points.
        """
        n = 1
        while run(self._one, n, number, raises, make, body, check, config=CONFIG):
            n += step
        assert n > 1, "the body runs none of golibx's Python code"
        return n

    def _one(
        self,
        n: int,
        number: int,
        raises: Raised,
        make: Callable[[], Any],
        body: Callable[[Any], object],
        check: Callable[[Any, BaseException | None], object],
    ) -> bool:
        state = make()
        raised: list[BaseException] = []
        reached = False
        try:
            try:
                reached = self.once(n, number, lambda: body(state))
            except raises as error:
                raised.append(error.with_traceback(None))  # which holds what is to go
                reached = True
            gosched()
        except raises as error:  # it came behind the body
            raised.append(error.with_traceback(None))  # which holds what is to go
            reached = True
        try:
            check(state, raised[0] if raised else None)
        except BaseException as error:
            error.add_note(f"with the signal at opcode {n}: {raised!r}")
            raise
        return reached


CONFIG = {"preempt": {"async": False}}
