#!/usr/bin/env bash
# Runs every Rust test: doc tests first, then the rest, so that the runner's summary comes last. Called by `make test`.
set -euo pipefail

cargo_with_flags() {
    # CARGO may begin with an assignment of RUSTFLAGS, hence eval.
    eval "${CARGO:-cargo}" '"$@"' "${LOCKED:-}"
}

list_skipped() {
    local found
    found=$(grep -rnoE '#\[ignore *= *"[^"]*"' --include='*.rs' --exclude-dir=target . |
        sed -E 's/^\.\/([^:]*):([0-9]*):#\[ignore *= *"([^"]*)"/  \1:\2: \3/') || true
    if [ -n "$found" ]; then
        printf 'Skipped (run them with: cargo test -- --ignored):\n%s\n' "$found"
    fi
}

# File to which tests that cannot run here write their reasons.
export TOKENGRID_SKIPPED=$PWD/target/skipped-tests.txt
list_skipped_here() {
    if [ -s "$TOKENGRID_SKIPPED" ]; then
        printf 'Left out on this machine:\n'
        sort -u "$TOKENGRID_SKIPPED"
    else
        printf 'No test was left out on this machine.\n'
    fi
}

# One line for all test programs, in place of one line each.
add_up() {
    awk '{ print; fflush() }
        /^test result: / { passed += $4; failed += $6; ignored += $8; programs += 1 }
        END { printf "test result: %s. %d passed; %d failed; %d ignored; 0 measured; 0 filtered out (sum of %d test programs)\n",
              failed ? "FAILED" : "ok", passed, failed, ignored, programs }'
}

# Some tests read caches with pyarrow, or compare images with Pillow: in a separate Python environment, made once in target/.
python_for_tests() {
    local environment=target/pyarrow-env
    if ! "$environment/bin/python" -c 'import numpy, pyarrow' 2>/dev/null; then
        python3 -m venv "$environment" &&
            "$environment/bin/python" -m pip install --quiet --disable-pip-version-check numpy pyarrow || return 1
    fi
    # Older Pythons have no Pillow 13; the tests that need it are then skipped with a message, unless CI is set.
    if ! "$environment/bin/python" -c 'import PIL; assert int(PIL.__version__.split(".")[0]) >= 13' 2>/dev/null; then
        "$environment/bin/python" -m pip install --quiet --disable-pip-version-check 'pillow>=13' ||
            echo 'Pillow 13 cannot be installed: the tests that need it are skipped' >&2
    fi
    # For the examples of docs/src/sql.md.
    if ! "$environment/bin/python" -c 'import datasets, duckdb, polars' 2>/dev/null; then
        "$environment/bin/python" -m pip install --quiet --disable-pip-version-check datasets duckdb polars ||
            echo 'duckdb, polars or datasets cannot be installed: the examples that need them are skipped' >&2
    fi
    # Reads the shards that are exported.
    if ! "$environment/bin/python" -c 'import webdataset' 2>/dev/null; then
        "$environment/bin/python" -m pip install --quiet --disable-pip-version-check webdataset ||
            echo 'webdataset cannot be installed: the test that needs it is skipped' >&2
    fi
    printf '%s\n' "$PWD/$environment/bin/python"
}

if python=$(python_for_tests); then
    export TOKENGRID_PYTHON=$python
else
    echo 'numpy and pyarrow cannot be installed: the tests that need them are skipped (under CI they fail)' >&2
fi

mkdir -p target
rm -f "$TOKENGRID_SKIPPED"
cargo_with_flags test --release --doc --workspace --quiet
# Even if tests fail.
trap list_skipped_here EXIT
if cargo nextest --version >/dev/null 2>&1; then
    list_skipped
    cargo_with_flags nextest run --release --workspace --no-fail-fast
else
    list_skipped
    cargo_with_flags test --release --workspace --lib --bins --tests --no-fail-fast | add_up
fi
