#!/usr/bin/env bash
# Makes the runs of the page, and the page; skips what is finished. From the root, with
# TFFL_DATA_DIR set:  bash results/coalition/run.sh
set -euo pipefail
tffl=${TFFL:-tffl}
for grid in fashion_mnist elsewhere alarms adaptive cost; do
  "$tffl" benchmark configs/coalition/$grid.toml --out runs/coalition/$grid --quiet
done
"$tffl" page coalition
