"""An extension of griffe, which reads the sources for the documentation site.

The stub golibx/_core.pyi has the signatures of the native core, and the library has the docstrings.
This puts them together.
"""

from __future__ import annotations

import inspect
from typing import Any

import griffe

from golibx import _core


class CoreDocstrings(griffe.Extension):
    """Gives what is loaded from golibx/_core.pyi the docstrings of the library."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        if pkg.path != "golibx":
            return
        core = pkg["_core"]
        for name, overloads in core.overloads.items():
            if not overloads:
                continue
            function = griffe.Function(name, parameters=overloads[-1].parameters)
            function.returns = overloads[-1].returns
            function.overloads = overloads
            core.set_member(name, function)
        self._describe(core, _core)

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        self._show_new(cls)

    def _show_new(self, cls: griffe.Class) -> None:
        """Shows the signature of `__new__` where the class has no `__init__`."""
        new = cls.members.get("__new__")
        if isinstance(new, griffe.Function) and "__init__" not in cls.members:
            init = griffe.Function("__init__", parameters=new.parameters, runtime=False)
            cls.set_member("__init__", init)

    def _describe(self, described: griffe.Module | griffe.Class, real: object) -> None:
        for name, member in described.members.items():
            if member.is_alias or name.startswith("_"):
                continue
            found = inspect.getattr_static(real, name, None)
            docstring = getattr(found, "__doc__", None)
            if member.docstring is None and docstring:
                member.docstring = griffe.Docstring(inspect.cleandoc(docstring), parent=member)
            if isinstance(member, griffe.Class):
                self._show_new(member)
                self._describe(member, found)
