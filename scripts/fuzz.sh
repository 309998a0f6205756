#!/usr/bin/env bash
# Runs one libFuzzer target and saves its corpus:
#
#     scripts/fuzz.sh CRATE TARGET SECONDS        scripts/fuzz.sh ingest png 180
#
# Starts from CRATE/fuzz/corpus/TARGET.tar.gz and the files that CRATE/fuzz/seeds.txt names, and stores a minimised corpus
# in that archive. A crash is saved in CRATE/fuzz/artifacts, and the exit status is not 0. It does not need cargo-fuzz.
# With a nightly toolchain the code runs under AddressSanitizer, with stable it does not. With clang the C libraries are
# instrumented too, so that the fuzzer sees their branches; gcc cannot do that.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ $# -ne 3 ]; then
    sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
crate=$1 target=$2 seconds=$3
fuzz=$crate/fuzz
# Inputs are small: bugs of decoders need few bytes, and a committed corpus must stay small.
max_len=4096
max_corpus_bytes=100000

toolchain=()
c_flags='-g1 -fno-omit-frame-pointer -fsanitize-coverage=inline-8bit-counters,pc-table,trace-cmp'
flags='--cfg fuzzing -Cdebug-assertions -Cforce-frame-pointers -Ccodegen-units=1 -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares'
if rustc +nightly --version >/dev/null 2>&1; then
    toolchain=(+nightly)
    flags="$flags -Zsanitizer=address"
    c_flags="$c_flags -fsanitize=address"
fi
if command -v clang >/dev/null; then
    export CC=clang CFLAGS=$c_flags
fi
host=$(rustc "${toolchain[@]}" -vV | sed -n 's/^host: //p')
# With a target triple named, build scripts are not instrumented.
RUSTFLAGS=$flags cargo "${toolchain[@]}" build --quiet --release --manifest-path "$fuzz/Cargo.toml" --bin "$target" \
    --target "$host" --target-dir "${CARGO_TARGET_DIR:-target}/fuzz"
program=${CARGO_TARGET_DIR:-target}/fuzz/$host/release/$target

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/found" "$work/minimal" "$work/kept" "$fuzz/corpus" "$fuzz/artifacts"
while read -r name pattern; do
    if [ "$name" = "$target" ]; then
        # The shell must expand the pattern.
        # shellcheck disable=SC2086
        find $crate/$pattern -size -"$((max_len / 1024 + 1))"k -exec cp {} "$work/found/" \;
    fi
done <"$fuzz/seeds.txt"
archive=$fuzz/corpus/$target.tar.gz
if [ -e "$archive" ]; then
    tar -xzf "$archive" -C "$work/found"
fi

limits=(-max_len="$max_len" -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$fuzz/artifacts/$target-")
"$program" "$work/found" "${limits[@]}" -max_total_time="$seconds" -print_final_stats=1 -verbosity=1 2>&1 |
    grep -vE '^#[0-9]+[[:space:]]+(NEW|REDUCE|pulse|RELOAD)|NEW_FUNC' | tail -40

"$program" "$work/minimal" "$work/found" -max_len="$max_len" -merge=1 -set_cover_merge=1 2>/dev/null
# The smallest files first, up to the size limit.
total=0
while read -r size path; do
    total=$((total + size))
    [ "$total" -le "$max_corpus_bytes" ] || break
    cp "$path" "$work/kept/"
done < <(find "$work/minimal" -type f -printf '%s %p\n' | sort -n)
# The same files give the same archive.
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --format=ustar -C "$work/kept" -cf - . | gzip -9n >"$archive"
printf '%s: %s files in %s\n' "$target" "$(find "$work/kept" -type f | wc -l)" "$archive"
