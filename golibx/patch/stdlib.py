"""The standard library's functions that block a thread: having them park goroutines instead.

What a C function or method does is replaced where it is (zsrc/python/patch), so that it does not
matter which code has imported it before. Only goroutines notice.
"""

from __future__ import annotations

import io

from golibx import _core
from golibx.patch import drivers
from golibx.patch.imports import when_imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

__all__ = ["patch_all", "patched", "unpatch"]

_reasons: dict[str, str] = {}
"""Why a module that was asked for is left as it is."""


def patch_all(modules: Iterable[str] | None = None) -> dict[str, str]:
    """Has what would block a thread park the goroutine that calls, from now on.

    That is a matter of speed: what is not patched blocks its thread, and another thread goes on
    with the other goroutines. Threads that run no goroutine have the functions as they were. It may
    be called at any time, and again: objects that were made before, and functions that were
    imported by name, are patched too.

    Args:
        modules: those whose functions are meant, such as "time" and "socket". By default all that
            golibx knows, as patched() has them.

    Returns:
        For each of them that is left as it is, why.

    Raises:
        ValueError: golibx patches nothing of a module of that name. Nothing is changed then.
    """
    wanted = _names() if modules is None else _known(modules)
    for module in wanted:
        _wanted.add(module)
        if module == "ssl":
            # To import it takes longer than all else here, and most programs do without.
            when_imported("ssl", _patch_ssl)
        else:
            _patch(module)
        if module == "socket":
            _Probe()
        if module == "select":
            drivers.install()
    return {module: _reasons[module] for module in wanted if module in _reasons}


def _patch(module: str) -> None:
    reason = _core.patch(module)
    if reason is None:
        _reasons.pop(module, None)
    else:
        _reasons[module] = reason


class _Probe(io.RawIOBase):
    """Has the interpreter's own buffered reader look for the owner of its lock, while it is taken.

    Where it is found, a goroutine that waits for a socket within one, as http.client's do, needs no
    thread meanwhile.
    """

    def __init__(self) -> None:
        self._reader = io.BufferedReader(self)
        self._reader.read(1)

    def readable(self) -> bool:
        return True

    def readinto(self, _: object) -> int:
        _core.find_buffered_owner(self._reader)
        return 0


def _patch_ssl(_: ModuleType) -> None:
    if "ssl" in _wanted:
        _patch("ssl")


_wanted: set[str] = set()
"""The modules to patch, now or when they are imported."""


def unpatch(modules: Iterable[str] | None = None) -> None:
    """Takes patch_all() back: the functions are the interpreter's own again.

    Args:
        modules: those that are meant. By default all.

    Raises:
        ValueError: golibx patches nothing of a module of that name. Nothing is changed then.
        RuntimeError: a goroutine waits in one of the functions.
    """
    for module in _names() if modules is None else _known(modules):
        _core.unpatch(module)
        if module == "select":
            drivers.uninstall()
        _wanted.discard(module)
        _reasons.pop(module, None)


def patched() -> dict[str, str]:
    """For each module that golibx can patch: "patched", "native", or why it is left as it is.

    One that is patched as soon as the program imports it is "when imported".
    """
    is_patched = _core.patchable()
    return {module: _state(module, is_patched[module]) for module in _names()}


def _state(module: str, is_patched: bool) -> str:
    if is_patched:
        return "patched"
    return _reasons.get(module, "when imported" if module in _wanted else "native")


def _names() -> list[str]:
    # Threads are a program's, and only in its run: see goroutine_threads.py.
    return [module for module in _core.patchable() if module != "threads"]


def _known(modules: Iterable[str]) -> list[str]:
    known = _names()
    wanted = list(modules)
    for module in wanted:
        if module not in known:
            raise ValueError(
                f"golibx patches nothing of a module {module!r}; it knows {', '.join(known)}"
            )
    return wanted
