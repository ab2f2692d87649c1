"""The application that "module:app" or "module:factory()" names, and what keeps it from being one.

Whatever is wrong ends the program as it does under `golibx run`: with a line and exit code 1, or
with the traceback of what the module itself has raised.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from golibx import _core
from golibx.pluginfinder import nearest
from golibx.values import is_missing

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["is_reference", "load"]

_REFERENCE = re.compile(r"(\w+(?:\.\w+)*):(\w+(?:\.\w+)*)(\(\))?")


def is_reference(text: str) -> bool:
    """Whether it reads as package.module:app or package.module:factory()."""
    return _REFERENCE.fullmatch(text) is not None


def load(reference: str) -> Callable[..., Any]:
    """Imports the module and returns the application.

    Raises:
        SystemExit: there is no such module, attribute or application; with the text that says so.
        BaseException: what the module or the factory raises.
    """
    match = _REFERENCE.fullmatch(reference)
    assert match is not None
    module_name, path, is_factory = match.groups()
    found: Any = _imported(module_name)
    for name in path.split("."):
        if not hasattr(found, name):
            near = nearest(name, getattr(found, "__dict__", ()))
            hint = f": did you mean {near}?" if near else ""
            sys.exit(f"golibx: module {module_name} has no {path}{hint}")
        found = getattr(found, name)
    if is_factory:
        _refuse_what_is_none(found, f"{module_name}:{path}", "function that makes one")
        found = found()
    _refuse_what_is_none(found, reference, "WSGI application")
    application: Callable[..., Any] = found
    return application


def _imported(module_name: str) -> Any:
    try:
        __import__(module_name)
    except ModuleNotFoundError as exc:
        if not is_missing(module_name, exc):
            raise  # one that the module imports
        sys.exit(
            f"golibx: No module named {exc.name}: it is looked for in the current directory "
            "and on PYTHONPATH"
        )
    return sys.modules[module_name]


def _refuse_what_is_none(found: object, reference: str, what: str) -> None:
    if not callable(found):
        sys.exit(f"golibx: {reference} is {type(found).__name__} {found!r:.60}, no {what}")
    if _core.async_callee(found) is not None or _core.async_callee(_call_of(found)) is not None:
        sys.exit(
            f"golibx: {reference} is async, an application for ASGI: golibx serve is for WSGI, "
            "whose applications are plain functions"
        )


def _call_of(found: object) -> object:
    """What runs when an object is called that is no function."""
    return getattr(type(found), "__call__", None)  # noqa: B004
