#!/usr/bin/env bash
# Trains every curve of Figures 4, 5 and 6, Figure 4 with three seeds, and writes the page. Resumes
# what was interrupted, and skips what is finished, here or in curves.csv. From the root, with
# TFFL_DATA_DIR set:  bash results/bias_anomaly/run.sh
set -euo pipefail
tffl=${TFFL:-tffl}
curve() { # NAME SEED
  local out=runs/bias_anomaly/figure_$1_seed$2
  grep -qs "^$1,$2,25," results/bias_anomaly/curves.csv && return
  [ -e "$out/summary.json" ] && return
  if [ -e "$out/config.toml" ]; then "$tffl" simulate --resume "$out" --quiet; return; fi
  "$tffl" simulate --config "configs/bias_anomaly/figure_$1.toml" --seed "$2" --out "$out" --quiet
}
for figure in 4a 4b 4c 5a 5c 6a 6b 6c; do curve "$figure" 0; done # 5b is 4a
for seed in 1 2; do for figure in 4a 4b 4c; do curve "$figure" "$seed"; done; done
first=runs/bias_anomaly/figure_4a_seed0
[ ! -e $first/summary.json ] || "$tffl" localize $first > /dev/null
"$tffl" page bias_anomaly
