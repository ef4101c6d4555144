#!/usr/bin/env bash
# Everything that make.py reads; skips what is finished. From the root, with TFFL_DATA_DIR set:
#   bash results/gan_audit/run.sh && python results/gan_audit/make.py
set -euo pipefail
tffl=${TFFL:-tffl}
home=runs/gan_audit

clean() { # NAME, then options of simulate: an honest run that keeps its updates
  local out=$home/$1
  shift
  [ -e "$out/summary.json" ] && return
  if [ -e "$out/config.toml" ]; then "$tffl" simulate --resume "$out" --quiet; return; fi
  "$tffl" simulate --config configs/gan_audit/clean.toml --out "$out" --quiet "$@"
}

replay() { # NAME MALICIOUS: of the 30 clients, of whom 10 take part in a round
  local out=$home/$1/grid_$2.csv
  [ -e "$out" ] && return
  "$tffl" replay "$home/$1" --grid configs/gan_audit/grid.toml --malicious "$2" --out "$out" \
    > /dev/null
}

for seed in 1 2 3; do clean "mnist_iid_$seed" --seed $seed; done
clean mnist_dirichlet0.5_1 --seed 1 --partition dirichlet --beta 0.5
clean mnist_dirichlet0.1_1 --seed 1 --partition dirichlet --beta 0.1
clean fashion_iid_1 --seed 1 --dataset fashion_mnist

for run in "$home"/*_[123]; do
  for malicious in 3 9 18; do replay "$(basename "$run")" $malicious; done
done
