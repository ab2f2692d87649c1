"""Memory faults: golibx is told first, since it knows goroutines' stacks from other memory.

The program's disposition is what golibx passes all other faults on to. One that the program sets
while a run lasts has to become that, and must not take golibx's place.
"""

from __future__ import annotations

import functools

from golibx import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec, TypeVar

    Params = ParamSpec("Params")
    Result = TypeVar("Result")

__all__ = ["put_below"]


def put_below(function: Callable[Params, Result]) -> Callable[Params, Result]:
    """The function, which changes dispositions of faults, called with golibx's out of its way."""

    @functools.wraps(function)
    def changed(*args: Params.args, **kwargs: Params.kwargs) -> Result:
        handled = _core.handle_faults(False)
        try:
            return function(*args, **kwargs)
        finally:
            if handled:
                _core.handle_faults(True)

    return changed
