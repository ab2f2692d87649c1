"""Builds the wheels for all platforms on this one, checks them, and makes the bare libraries.

    python tools/wheels.py                        all wheels, into build/wheels
    python tools/wheels.py --only musl --twice    those whose tag contains that, each built again
                                                  from a copy elsewhere: it must be the same bytes
    python tools/wheels.py --prebuilt             the bare libraries too, with golibx.h, checksums
                                                  and an SBOM for each, into build/prebuilt
    python tools/wheels.py --check build/wheels   only looks at the wheels that are there

What is checked of each: its tag; that the library is for that system and processor, and exports
what golibx.h declares and nothing else; which libraries it needs, and which versions of glibc; that
it asks for no CPython symbol outside the stable ABI of 3.11; that it has no symbols besides, no
path of its own, no stack that can be executed, and no note of shadow stacks or of branch targets,
which its switches of stacks do not keep to. The exit code is 1 if anything is wrong, or differs.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path

import lief
from abi3info import DATAS, FUNCTIONS

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from hatch_build import TARGETS, Target, own_version  # noqa: E402

WHEELS = ROOT / "build" / "wheels"
PREBUILT = ROOT / "build" / "prebuilt"
HEADER = ROOT / "zsrc" / "golibx.h"

FORMATS = {
    "linux": lief.Binary.FORMATS.ELF,
    "macos": lief.Binary.FORMATS.MACHO,
    "windows": lief.Binary.FORMATS.PE,
}
PROCESSORS = {
    "x86_64": {"X86_64", "AMD64"},
    "aarch64": {"AARCH64", "ARM64"},
}
# By a pattern of the target: what its library may need.
NEEDS = {
    "linux-gnu": r"(libc|libpthread|libdl|libm|librt)\.so\.\d|ld-linux-[\w-]+\.so\.\d",
    "linux-musl": r"libc\.so",
    "macos": r"/usr/lib/libSystem\.B\.dylib",
    "windows": r"(?i)(python3|kernel32|ntdll|ws2_32|mswsock|bcrypt|api-ms-win-[\w-]+)\.dll",
}
OLDEST_GLIBC = (2, 17)  # that manylinux_2_17 has
OLDEST_PYTHON = (3, 11)
STABLE = {
    symbol.name
    for table in (FUNCTIONS, DATAS)
    for symbol, entry in table.items()
    if (entry.added.major, entry.added.minor) <= OLDEST_PYTHON
}


class WheelError(Exception):
    """Something is wrong with a wheel; the message says what."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="whose tag contains that")
    parser.add_argument("--twice", action="store_true", help="build each again and compare")
    parser.add_argument("--prebuilt", action="store_true", help="the bare libraries too")
    parser.add_argument("--check", type=Path, metavar="FOLDER", help="build nothing")
    arguments = parser.parse_args()
    targets = [each for each in TARGETS.values() if arguments.only in each.platform_tag]
    if not targets:
        tags = ", ".join(each.platform_tag for each in TARGETS.values())
        parser.error(f"--only: no tag contains {arguments.only!r}: there are {tags}")

    if arguments.check is None:
        WHEELS.mkdir(parents=True, exist_ok=True)
    passed = failed = 0
    for i, target in enumerate(targets, 1):
        print(f"--- {i}/{len(targets)} {target.platform_tag}", flush=True)
        began = time.monotonic()
        try:
            if arguments.check is None:
                wheel = build(ROOT, target, WHEELS)
            else:
                wheel = arguments.check / name_of(target)
            for line in check(wheel, target):
                print(f"    {line}")
            if arguments.twice:
                build_again(wheel, target)
                print("    built again elsewhere: the same bytes")
            if arguments.prebuilt:
                print(f"    {make_prebuilt(wheel, target).relative_to(ROOT)}")
        except WheelError as exc:
            print(f"    FAILED: {exc}", file=sys.stderr)
            failed += 1
        else:
            passed += 1
            print(f"    {time.monotonic() - began:.0f} s", flush=True)
    if arguments.prebuilt:
        write_checksums(PREBUILT)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def name_of(target: Target) -> str:
    return f"golibx-{own_version()}-cp311-abi3-{target.platform_tag}.whl"


def build(root: Path, target: Target, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    environment = {
        **os.environ,
        "GOLIBX_ZIG_TARGET": target.triple,
        "GOLIBX_ZIG_OPTIMIZE": "fast",
        "SOURCE_DATE_EPOCH": str(date_of(root)),
    }
    result = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    wheel = folder / name_of(target)
    if result.returncode != 0 or not wheel.exists():
        raise WheelError(f"it does not build:\n{result.stdout}{result.stderr}")
    return wheel


def date_of(root: Path) -> int:
    """What its files are dated: the last commit's time, or what build_again() wrote."""
    found = subprocess.run(
        ["git", "log", "-1", "--format=%ct"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode == 0 and found.stdout.strip():
        return int(found.stdout)
    stamp = root / "build" / "source-date"
    if stamp.exists():
        return int(stamp.read_text())
    return int((root / "golibx" / "version.py").stat().st_mtime)


def build_again(wheel: Path, target: Target) -> None:
    """From a copy of the sources at another path, with empty caches of this project's."""
    with tempfile.TemporaryDirectory(prefix="golibx-wheel-") as name:
        copy = Path(name) / "elsewhere"
        for path in sources():
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, copy / path)
        (copy / "build").mkdir()
        (copy / "build" / "source-date").write_text(str(date_of(ROOT)))
        again = build(copy, target, Path(name))
        if again.read_bytes() != wheel.read_bytes():
            with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
                differing = [
                    each
                    for each in sorted({*one.namelist(), *other.namelist()})
                    if content(one, each) != content(other, each)
                ]
            raise WheelError(
                f"built again elsewhere it differs: {differing or 'in dates or order'}"
            )


def content(archive: zipfile.ZipFile, name: str) -> bytes | None:
    return archive.read(name) if name in archive.namelist() else None


def sources() -> list[str]:
    found = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode != 0:
        raise WheelError(f"git does not list the sources: {found.stderr}")
    return [each for each in found.stdout.splitlines() if (ROOT / each).is_file()]


# ---- what a wheel must be ----


def check(path: Path, target: Target) -> Iterator[str]:
    """Yields what is worth saying of it. Raises WheelError with all that is wrong."""
    if not path.exists():
        raise WheelError(f"there is no {path}")
    wrong: list[str] = []
    with zipfile.ZipFile(path) as wheel:
        (metadata,) = [each for each in wheel.namelist() if each.endswith(".dist-info/WHEEL")]
        tags = re.findall(r"^Tag: (.*)$", wheel.read(metadata).decode(), re.MULTILINE)
        if tags != [f"cp311-abi3-{target.platform_tag}"]:
            wrong.append(f"WHEEL has the tags {tags}")
        names = set(wheel.namelist())
        included = ("golibx/include/golibx.h", *import_libraries(target))
        wrong += [f"{each} is missing" for each in included if each not in names]
        library = wheel.read(f"golibx/{target.library}")
        for each in import_libraries(target):
            missing = [name for name in declared() if name.encode() not in wheel.read(each)]
            if missing or target.library.encode() not in wheel.read(each):
                wrong.append(f"{each} lacks {missing or target.library}")
    wrong += check_library(library, target)
    if wrong:
        raise WheelError("; ".join(wrong))
    sizes = [f"{size / 2**20:.1f} MiB" for size in (path.stat().st_size, len(library))]
    yield f"{path.name}: {sizes[0]}, the library {sizes[1]}"
    yield f"needs {', '.join(needed(parsed(library)))}"


def import_libraries(target: Target) -> list[str]:
    return [f"golibx/include/{target.import_library}"] if target.import_library else []


def declared() -> list[str]:
    """The functions of golibx.h."""
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(encoding="utf-8"), flags=re.DOTALL)
    return sorted(set(re.findall(r"\b(golibx_\w+)\(", text)))


def parsed(library: bytes) -> lief.Binary:
    binary = lief.parse(io.BytesIO(library))
    if isinstance(binary, lief.MachO.FatBinary):
        binary = binary.at(0)
    if binary is None or isinstance(binary, lief.COFF.Binary):
        raise WheelError("the library is no file that lief knows")
    return binary


def needed(binary: lief.Binary) -> list[str]:
    if isinstance(binary, lief.MachO.Binary):
        return [each.name for each in binary.libraries if each.command.name != "ID_DYLIB"]
    return [str(each) for each in binary.libraries]


def check_library(library: bytes, target: Target) -> list[str]:
    binary = parsed(library)
    architecture, system = target.triple.split("-")[:2]
    system = system.partition(".")[0]
    wrong = []
    if binary.format != FORMATS[system]:
        wrong.append(f"the library is of the format {binary.format}")
    exported = sorted(exports(binary))
    if exported != sorted([*declared(), "PyInit__core"]):
        odd = sorted(set(exported) ^ {*declared(), "PyInit__core"})
        wrong.append(f"exported or declared, not both: {', '.join(odd)}")
    (allowed,) = [NEEDS[each] for each in NEEDS if each in target.triple]
    odd = [each for each in needed(binary) if not re.fullmatch(allowed, each)]
    if odd:
        wrong.append(f"needs {', '.join(odd)}")
    odd = sorted(python_symbols(binary) - STABLE)
    if odd:
        wrong.append(f"outside the stable ABI: {', '.join(odd)}")
    if isinstance(binary, lief.ELF.Binary):
        wrong += check_elf(binary, architecture)
    elif isinstance(binary, lief.MachO.Binary):
        wrong += check_macho(binary, architecture, target)
    elif isinstance(binary, lief.PE.Binary):
        wrong += check_pe(binary, architecture)
    return wrong


def exports(binary: lief.Binary) -> set[str]:
    names = {str(each.name) for each in binary.exported_functions}
    if isinstance(binary, lief.ELF.Binary | lief.MachO.Binary):
        names |= {str(each.name) for each in binary.exported_symbols}
    if isinstance(binary, lief.MachO.Binary):
        return {name.removeprefix("_") for name in names}
    if isinstance(binary, lief.PE.Binary) and (table := binary.get_export()):
        names |= {str(each.name) for each in table.entries}
    return names


def python_symbols(binary: lief.Binary) -> set[str]:
    """What it takes for granted: Windows would not load it without one, Linux end it at a call."""
    if isinstance(binary, lief.ELF.Binary):
        names = {str(each.name) for each in binary.imported_symbols}
    elif isinstance(binary, lief.MachO.Binary):
        names = {str(each.name).removeprefix("_") for each in binary.imported_symbols}
    elif isinstance(binary, lief.PE.Binary):
        names = {
            str(entry.name)
            for each in binary.imports
            if str(each.name).lower() == "python3.dll"
            for entry in each.entries
        }
    return {name for name in names if name.lstrip("_").startswith("Py")}


def check_elf(binary: lief.ELF.Binary, architecture: str) -> list[str]:
    wrong = []
    if binary.header.machine_type.name not in PROCESSORS[architecture]:
        wrong.append(f"for the processor {binary.header.machine_type.name}")
    if not binary.has_nx:
        wrong.append("its stack can be executed")
    tags = {entry.tag.name for entry in binary.dynamic_entries}
    wrong += [f"has {tag}" for tag in ("RPATH", "RUNPATH", "TEXTREL") if tag in tags]
    if not any(segment.type.name == "GNU_RELRO" for segment in binary.segments):
        wrong.append("its relocated data stays writable: no GNU_RELRO")
    names = [str(section.name) for section in binary.sections]
    wrong += [
        f"not stripped: {name}" for name in names if name == ".symtab" or name.startswith(".debug")
    ]
    for requirement in binary.symbols_version_requirement:
        for version in requirement.get_auxiliary_symbols():
            name = str(version.name)
            found = re.fullmatch(r"GLIBC_(\d+)\.(\d+)(\.\d+)?", name)
            if not found or (int(found[1]), int(found[2])) > OLDEST_GLIBC:
                wrong.append(f"needs {name} of {requirement.name}")
    # A switch of stacks keeps no shadow stack, and enters by jumps that no marked target receives.
    wrong += [f"has the note {note.type}" for note in binary.notes if "PROPERTY" in str(note.type)]
    return wrong


def check_macho(binary: lief.MachO.Binary, architecture: str, target: Target) -> list[str]:
    wrong = []
    if binary.header.cpu_type.name not in PROCESSORS[architecture]:
        wrong.append(f"for the processor {binary.header.cpu_type.name}")
    oldest = None
    for command in binary.commands:
        if isinstance(command, lief.MachO.BuildVersion):
            oldest = command.minos
        elif isinstance(command, lief.MachO.VersionMin):
            oldest = command.version
    tag = re.search(r"macosx_(\d+)_(\d+)", target.platform_tag)
    if tag is None or oldest is None or list(oldest[:2]) != [int(tag[1]), int(tag[2])]:
        wrong.append(f"made for macOS {oldest}")
    # The system kills a process on arm64 that loads what is not signed.
    if architecture == "aarch64" and not binary.has_code_signature:
        wrong.append("not signed")
    if any(isinstance(command, lief.MachO.RPathCommand) for command in binary.commands):
        wrong.append("has an rpath")
    return wrong


def check_pe(binary: lief.PE.Binary, architecture: str) -> list[str]:
    wrong = []
    if binary.header.machine.name not in PROCESSORS[architecture]:
        wrong.append(f"for the processor {binary.header.machine.name}")
    has = {each.name for each in binary.optional_header.dll_characteristics_lists}
    wrong += [
        f"no {each}" for each in ("DYNAMIC_BASE", "NX_COMPAT", "HIGH_ENTROPY_VA") if each not in has
    ]
    if any(str(section.name).startswith(".debug") for section in binary.sections):
        wrong.append("not stripped")
    return wrong


# ---- the bare libraries ----


def make_prebuilt(wheel: Path, target: Target) -> Path:
    """An archive of the library, golibx.h and what else a C program needs."""
    PREBUILT.mkdir(parents=True, exist_ok=True)
    name = f"golibx-{own_version()}-{target.platform_tag}"
    with zipfile.ZipFile(wheel) as archive:
        files = {
            f"lib/{target.library}": archive.read(f"golibx/{target.library}"),
            "include/golibx.h": archive.read("golibx/include/golibx.h"),
            "LICENSE": (ROOT / "LICENSE").read_bytes(),
        }
        for each in import_libraries(target):
            files[f"lib/{Path(each).name}"] = archive.read(each)
    files["sbom.cdx.json"] = sbom(target, files)
    path = PREBUILT / f"{name}.tar.gz"
    date = date_of(ROOT)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive_out:
        for file, data in sorted(files.items()):
            entry = tarfile.TarInfo(f"{name}/{file}")
            entry.size, entry.mtime, entry.mode = len(data), date, 0o644
            archive_out.addfile(entry, io.BytesIO(data))
    path.write_bytes(gzip.compress(buffer.getvalue(), mtime=0))
    return path


def sbom(target: Target, files: dict[str, bytes]) -> bytes:
    """In CycloneDX 1.6: the library, and what of others is compiled into it."""
    version = own_version()
    zig = re.search(r"ziglang==([\d.]+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert zig is not None
    content_hash = hashlib.sha256(files[f"lib/{target.library}"]).hexdigest()
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(content_hash[:32])}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": "golibx",
                "name": "golibx",
                "version": version,
                "purl": f"pkg:pypi/golibx@{version}",
                "licenses": [{"license": {"id": "Apache-2.0"}}],
                "hashes": [{"alg": "SHA-256", "content": content_hash}],
            },
        },
        "components": [
            {
                "type": "library",
                "bom-ref": "zig",
                "name": "zig standard library and compiler_rt",
                "version": zig[1],
                "licenses": [{"license": {"id": "MIT"}}],
            },
        ],
        "dependencies": [{"ref": "golibx", "dependsOn": ["zig"]}, {"ref": "zig", "dependsOn": []}],
    }
    return (json.dumps(document, indent=2) + "\n").encode()


def write_checksums(folder: Path) -> None:
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.glob("*.tar.gz"))
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))


if __name__ == "__main__":
    sys.exit(main())
