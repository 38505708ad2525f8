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

tests() {
    wait "$compiling" || :
    python -m coverage run -m pytest -n "$((3 * $(nproc)))" --dist loadgroup || unstable
}

# Run again, alone, the few tests that failed beside others.  What passes now waited too short for
# a busy machine: it is named, and a defect to mend, but says nothing against the change.
unstable() {
    few=$(python -c '
import json
failed = json.load(open(".pytest_cache/v/cache/lastfailed"))
known = all("::" in test for test in failed)  # else something was not even collected
print(*failed, sep="\n") if known and 0 < len(failed) <= 5 else exit(1)') || return 1
    printf '== again, alone:\n%s\n' "$few"
    python -m coverage run -m pytest --last-failed --last-failed-no-failures=none || return 1
    printf '== UNSTABLE, passed alone:\n%s\n' "$few"
}

sh deploy/venv.sh
sh tests/get-tools.sh $install
PATH=$root/.venv/bin:$PATH
export PATH
# Thousands of processes, and every worker, would compile everything anew.
unset PYTHONDONTWRITEBYTECODE

if [ $# = 0 ]; then
    # Beside the linters: compile the tests, which every worker imports at once.
    python -m pytest --collect-only -q -p no:cacheprovider >/dev/null 2>&1 &
    compiling=$!
fi

check ruff check .
check ruff format --check .
check mypy sidecar tests nginx-example bench
check shell_syntax
if [ $# -gt 0 ]; then
    check python -m pytest "$@"
else
    rm -rf .coverage .pytest_cache
    mkdir .coverage
    # Tests mostly wait for processes: three times as many workers as processors.
    check tests
    coverage combine -q
    check coverage report
fi

if [ -n "$failed" ]; then
    printf 'FAILED:%s\n' "$failed"
    exit 1
fi
