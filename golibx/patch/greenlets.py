"""greenlet in goroutines, and gevent beside them."""

from __future__ import annotations

import functools
import sys

from golibx import _core
from golibx.patch.imports import when_imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["check", "install"]

_installed: list[bool] = []


def install() -> None:
    """Gives a goroutine that uses greenlets a thread of its own, and keeps gevent off a run."""
    if not _installed:
        _installed.append(True)
        when_imported("greenlet", lambda _module: _core.lock_for_greenlets())
        when_imported("gevent.monkey", _guard)


def check() -> None:
    """Raises RuntimeError where gevent has replaced what the runtime stands on."""
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        raise RuntimeError(
            "gevent.monkey has patched threading in this process: golibx cannot run there; "
            "start it in a process of its own, or leave patch_all() out"
        )


def _guard(monkey: Any) -> None:
    for name, function in list(vars(monkey).items()):
        if name.startswith("patch_") and callable(function):
            setattr(monkey, name, _refusing(name, function))


def _refusing(name: str, function: Any) -> Any:
    @functools.wraps(function)
    def refuses(*args: Any, **kwargs: Any) -> Any:
        if _core.num_goroutine() > 0:
            raise RuntimeError(
                f"gevent.monkey.{name}() inside golibx.run(): goroutines need the standard "
                "library as it is; leave gevent out, since blocking calls give way there without "
                "it, or start a program that stands on gevent with python"
            )
        return function(*args, **kwargs)

    return refuses
