#!/usr/bin/env bash
# Measures how fast tffl is, on an otherwise idle machine, and writes README.md from it:
#   bash results/speed/run.sh [engine|defenses|maps ...]
set -euo pipefail
tffl=${TFFL:-tffl}
here=$(dirname "$0")
for what in ${@:-engine defenses maps}; do
  "$tffl" bench "$what" --json > "$here/$what.json.part"
  mv "$here/$what.json.part" "$here/$what.json"
done
python "$here/make.py"
