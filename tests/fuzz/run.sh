#!/usr/bin/env bash
# Builds the fuzz targets and runs each for some seconds, on the saved corpus and what libFuzzer makes
# of it.
#
#   run.sh SECONDS [TARGET]...      without a target: all, one after the other
#   WINDROW_FUZZ_KEEP=1 run.sh ...  puts what was found to reach new code into the corpus
#
# What breaks a target is kept in target/fuzz/found/TARGET, and is run first from then on.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
seconds=${1:?run.sh SECONDS [TARGET]...}
shift
target=${CARGO_TARGET_DIR:-$root/target}/fuzz

# What cargo-fuzz would pass, for any stable compiler. Only the crates of this workspace are built
# with it, so the others are those that `cargo test` has built.
wrapper=$target/rustc.sh
mkdir -p "$target"
cat >"$wrapper" <<'END'
#!/bin/sh
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares
END
chmod +x "$wrapper"
RUSTC_WORKSPACE_WRAPPER=$wrapper cargo build -q -p windrow-fuzz
program=${CARGO_TARGET_DIR:-$root/target}/debug/windrow-fuzz

names=("$@")
if [ ${#names[@]} = 0 ]; then
  mapfile -t names < <(sed -n 's/^    ("\([a-z-]*\)", .*/\1/p' src/main.rs)
fi
failed=()
for name in "${names[@]}"; do
  found=$target/found/$name
  work=$target/corpus/$name
  mkdir -p "$found" "$work"
  arguments=(-max_total_time="$seconds" -timeout=20 -rss_limit_mb=1024 -max_len=16384
    -print_final_stats=1 -artifact_prefix="$found/")
  # New inputs go to the first folder.
  folders=("$work" "corpus/$name" "$found")
  if WINDROW_FUZZ_TARGET=$name "$program" "${arguments[@]}" "${folders[@]}" >"$target/$name.log" 2>&1; then
    echo "fuzz $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$target/$name.log") inputs"
  else
    failed+=("$name")
    tail -40 "$target/$name.log"
    echo "fuzz $name: broken; the input is in $found"
  fi
  if [ "${WINDROW_FUZZ_KEEP:-}" = 1 ]; then
    WINDROW_FUZZ_TARGET=$name "$program" -merge=1 "corpus/$name" "$work" >"$target/$name.merge.log" 2>&1
  fi
done
[ ${#failed[@]} = 0 ] || { echo "broken: ${failed[*]}"; exit 1; }
