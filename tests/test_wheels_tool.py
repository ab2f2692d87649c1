"""tools/wheels.py: it finds nothing wrong with this machine's wheel, and what is planted in one."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import lief

ROOT = Path(__file__).resolve().parent.parent
DIST = os.environ.get("GOLIBX_DIST")

pytestmark = [
    pytest.mark.skipif(not DIST, reason="GOLIBX_DIST names no folder with a wheel"),
    pytest.mark.skipif(sys.platform != "linux", reason="the faults are planted in an ELF library"),
    pytest.mark.skipif(
        not str(DIST).endswith("fast"), reason="only a wheel of the mode fast is to be shipped"
    ),
]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """Imported here, not wherever tests are collected: it comes with a large library."""
    sys.path[:0] = [str(ROOT / "tools")]
    before = [*sys.path]
    try:
        import wheels
    finally:
        sys.path[:] = [each for each in before if each not in (str(ROOT / "tools"), str(ROOT))]
    import lief

    lief.disable_leak_warning()
    return wheels


def own_wheel(tool: ModuleType) -> tuple[Path, Any]:
    (path,) = Path(str(DIST)).glob("*.whl")
    (target,) = [each for each in tool.TARGETS.values() if each.platform_tag in path.name]
    return path, target


class Planted:
    """A wheel with a fault, and what is said of it."""

    def __init__(self, tool: ModuleType, folder: Path) -> None:
        self.tool = tool
        self.folder = folder
        self.old, self.target = own_wheel(tool)

    def wheel(self, change: Callable[[str, bytes], bytes | None]) -> str:
        """With each of its files as `change` has it; None leaves the file out."""
        copy = self.folder / self.old.name
        with zipfile.ZipFile(self.old) as old, zipfile.ZipFile(copy, "w") as new:
            for name in old.namelist():
                data = change(name, old.read(name))
                if data is not None:
                    new.writestr(name, data)
        return self.refusal(copy)

    def library(self, change: Callable[[lief.ELF.Binary], None]) -> str:
        """With the library as `change` has it."""
        import lief

        def changed(name: str, data: bytes) -> bytes:
            if not name.endswith(".so"):
                return data
            library = self.folder / "library.so"
            library.write_bytes(data)
            binary = lief.ELF.parse(str(library))
            assert binary is not None
            change(binary)
            binary.write(str(library))
            return library.read_bytes()

        return self.wheel(changed)

    def refusal(self, path: Path) -> str:
        with pytest.raises(self.tool.WheelError) as caught:
            list(self.tool.check(path, self.target))
        return str(caught.value)


@pytest.fixture
def planted(tool: ModuleType, tmp_path: Path) -> Planted:
    return Planted(tool, tmp_path)


def test_this_machines_wheel_is_right(tool: ModuleType) -> None:
    path, target = own_wheel(tool)
    lines = list(tool.check(path, target))
    assert path.name in lines[0]
    assert "libc.so" in lines[1]


def test_a_wheel_that_is_not_there(planted: Planted, tmp_path: Path) -> None:
    assert "there is no" in planted.refusal(tmp_path / "none.whl")


def test_another_tag(planted: Planted) -> None:
    said = planted.wheel(
        lambda name, data: data.replace(b"abi3", b"none") if name.endswith("/WHEEL") else data
    )
    assert "WHEEL has the tags ['cp311-none-" in said


def test_no_header(planted: Planted) -> None:
    said = planted.wheel(lambda name, data: None if name.endswith(".h") else data)
    assert said == "golibx/include/golibx.h is missing"


def test_a_library_of_another_processor(planted: Planted) -> None:
    import lief

    def change(binary: lief.ELF.Binary) -> None:
        binary.header.machine_type = lief.ELF.ARCH.RISCV

    assert "for the processor RISCV" in planted.library(change)


def test_an_export_that_no_header_declares(planted: Planted) -> None:
    def change(binary: lief.ELF.Binary) -> None:
        symbol = binary.get_symbol("golibx_go")
        assert symbol is not None
        symbol.name = "golibx_went"

    assert "golibx_go, golibx_went" in planted.library(change)


def test_another_library_and_a_path_of_its_own(planted: Planted) -> None:
    import lief

    def change(binary: lief.ELF.Binary) -> None:
        binary.add_library("libpython3.11.so.1.0")
        binary.add(lief.ELF.DynamicEntryRpath("/somewhere"))

    said = planted.library(change)
    assert "needs libpython3.11.so.1.0" in said
    assert "has RPATH" in said


def test_a_symbol_that_the_stable_abi_has_not(planted: Planted) -> None:
    def change(binary: lief.ELF.Binary) -> None:
        symbol = next(each for each in binary.imported_symbols if str(each.name) == "abort")
        symbol.name = "PyUnicode_AsUTF8"

    assert "outside the stable ABI: PyUnicode_AsUTF8" in planted.library(change)


def test_a_newer_glibc(planted: Planted) -> None:
    def change(binary: lief.ELF.Binary) -> None:
        for requirement in binary.symbols_version_requirement:
            for version in requirement.get_auxiliary_symbols():
                if version.name == "GLIBC_2.17":
                    version.name = "GLIBC_2.34"

    assert "needs GLIBC_2.34 of libc.so.6" in planted.library(change)


def test_one_that_is_not_stripped(planted: Planted) -> None:
    import lief

    def change(binary: lief.ELF.Binary) -> None:
        section = lief.ELF.Section(".debug_info")
        section.content = [0] * 16
        binary.add(section, loaded=False)

    assert "not stripped: .debug_info" in planted.library(change)


def test_a_stack_that_can_be_executed(planted: Planted) -> None:
    import lief

    def change(binary: lief.ELF.Binary) -> None:
        for segment in binary.segments:
            if segment.type == lief.ELF.Segment.TYPE.GNU_STACK:
                segment.flags = lief.ELF.Segment.FLAGS(7)

    assert "its stack can be executed" in planted.library(change)
