#!/usr/bin/env bash
# Tests of the core under AddressSanitizer and UndefinedBehaviorSanitizer: tools/sanitize.sh [pytest arguments]
#
# The instrumented package stands in build/sanitize/site, beside a copy of the Python files, so that the release extensions in the source
# tree stay as they are. PYTHON names the interpreter that has the dependencies; GW_JOBS the number of compilers.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
site=build/sanitize/site

GW_BUILD=sanitize "$python" setup.py -q build_ext --build-lib "$site"
# Everything but the release extensions; what was removed from the source goes from the copy too.
find "$site/gateway" -type f ! -name '*.so' -delete
tar -C . --exclude='*.so' --exclude='__pycache__' -cf - gateway | tar -C "$site" -xf -
# An instrumented module whose source is gone would hide that it is gone.
for built in "$site"/gateway/_core/*.so; do
    name=${built##*/}
    [ -f "gateway/_core/${name%%.*}.pyx" ] || rm -f "$built"
done

if [ $# -eq 0 ]; then
    for folder in tests/core tests/oracle tests/fuzz tests/wire; do
        if [ -d "$folder" ]; then set -- "$@" "$folder"; fi
    done
fi

# libstdc++ comes along because a C++ extension (re2) must find its exceptions intercepted, not missing.
library() { gcc -print-file-name="$1"; }
export LD_PRELOAD="$(library libasan.so) $(library libubsan.so) $(library libstdc++.so.6)"
# CPython keeps memory until the process ends, so leaks are counted by a test of their own, not here.
export ASAN_OPTIONS="detect_leaks=0:detect_stack_use_after_return=1:allocator_may_return_null=1:${ASAN_OPTIONS:-}"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1:${UBSAN_OPTIONS:-}"
export PYTHONMALLOC=malloc PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH="$PWD/$site${PYTHONPATH:+:$PYTHONPATH}"
export GW_SANITIZE=1

"$python" - "$PWD/$site" <<'CHECK'
import sys
from gateway._core import h1_parse
if not h1_parse.__file__.startswith(sys.argv[1]):
    sys.exit(f"sanitize: {h1_parse.__file__} is not the instrumented build")
CHECK
exec "$python" -m pytest -p no:cacheprovider "$@"
