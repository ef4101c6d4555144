#!/usr/bin/env bash
# Runs every attack against every defense, and writes the page; skips what is finished. From the
# root, with TFFL_DATA_DIR set:  bash results/opponents/run.sh
set -euo pipefail
tffl=${TFFL:-tffl}
"$tffl" benchmark configs/opponents/fashion_mnist.toml --out results/opponents
"$tffl" page opponents
