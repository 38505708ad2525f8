#!/bin/sh
# The whole test suite: linters, types, shell syntax, tests with branch coverage.
#
#   sh tests/run.sh [--install] [pytest arguments]
#
# With pytest arguments only these tests run, and coverage is not measured.
#
# --install lets it install what cannot be unpacked privately (Chromium; root, apt).  Without, and
# without root, the tests that want it are skipped by name.  With CI=true a skip is a failure.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$root"

install=
if [ "${1:-}" = --install ]; then
    install=--install
    shift
fi

failed=

check() {
    printf '== %s\n' "$*"
    "$@" || failed="$failed
  $*"
}

shell_syntax() {
    find . \( -name .git -o -name .venv -o -name .tools \) -prune -o -name '*.sh' -print |
        while IFS= read -r script; do
            sh -n "$script" || exit 1
        done
    bash -n .ci/run
}

sh deploy/venv.sh
sh tests/get-tools.sh $install
PATH=$root/.venv/bin:$PATH
export PATH PYTHONDONTWRITEBYTECODE=1

check ruff check .
check ruff format --check .
check mypy sidecar tests nginx-example bench
check shell_syntax
if [ $# -gt 0 ]; then
    check python -m pytest "$@"
else
    rm -rf .coverage
    mkdir .coverage
    # Tests mostly wait for processes: twice as many workers as processors.
    check python -m coverage run -m pytest -n "$((2 * $(nproc)))" --dist loadgroup
    coverage combine -q
    check coverage report
fi

if [ -n "$failed" ]; then
    printf 'FAILED:%s\n' "$failed"
    exit 1
fi
