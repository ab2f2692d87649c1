#!/bin/sh
# Runs the Zig core's unit tests and the storms on the native lane as Linux arm64 programs, under qemu on
# another machine: `make test-aarch64`. Linked statically with musl, so that no arm64 system is needed.
#
#   tools/test_aarch64.sh ZIG [SECONDS]     ZIG is the command; how long each storm goes on, 1 by default
#
# It installs nothing. It needs qemu's emulator of arm64 programs: on Debian and Ubuntu
# `apt-get install qemu-user-static`, elsewhere `qemu-user`.
set -eu

zig=${1:?the command of the Zig compiler, as ".venv/bin/python -m ziglang"}
seconds=${2:-1}
target=aarch64-linux-musl
cache=build/zig-cache
out=build/aarch64

if [ "$(uname -m)" = aarch64 ]; then
    run=
else
    run=$(command -v qemu-aarch64-static || command -v qemu-aarch64) || {
        echo "test_aarch64.sh: there is no qemu-aarch64-static or qemu-aarch64 on PATH;" >&2
        echo "on Debian and Ubuntu: apt-get install qemu-user-static" >&2
        exit 1
    }
    # The name that zig build looks for.
    mkdir -p "$out/bin"
    ln -sf "$run" "$out/bin/qemu-aarch64"
    PATH=$PWD/$out/bin:$PATH
    export PATH
fi

# qemu keeps a table of all address space that a program maps: of the 1 TiB that the runtime reserves for
# stacks, 6 GB and half a minute. With less to be had, the runtime takes less.
QEMU_RESERVED_VA=${QEMU_RESERVED_VA:-16G}
export QEMU_RESERVED_VA

echo "--- the unit tests"
$zig build test -fqemu -Dtarget=$target -Doptimize=safe --cache-dir $cache --prefix "$out" --summary all

echo "--- the storms"
$zig build stress -Dtarget=$target -Doptimize=safe --cache-dir $cache --prefix "$out"
failed=0
for storm in cpu select cond steal syscall timer procs create net klt park; do
    for way in --register --no-register --no-preempt; do
        # Slices that leave a program time to get on, at an eighth of the speed.
        $run "$out/bin/stress" $storm --procs 3 --slice-us 1000 --seconds "$seconds" --patience 60 $way || {
            echo "FAILED: $run $out/bin/stress $storm --procs 3 --slice-us 1000 $way"
            failed=$((failed + 1))
        }
    done
done
[ $failed = 0 ] || { echo "$failed storms failed"; exit 1; }
echo "all passed"
