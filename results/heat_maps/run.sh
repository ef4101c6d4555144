#!/usr/bin/env bash
# Everything that make.py reads; skips what is finished. From the root, with TFFL_DATA_DIR set:
#   bash results/heat_maps/run.sh && python results/heat_maps/make.py
set -euo pipefail
tffl=${TFFL:-tffl}
home=runs/heat_maps

clean() { # NAME, then options of simulate: an honest run that keeps its updates
  local out=$home/$1
  shift
  [ -e "$out/summary.json" ] && return
  if [ -e "$out/config.toml" ]; then "$tffl" simulate --resume "$out" --quiet; return; fi
  "$tffl" simulate --config configs/heat_maps/clean.toml --out "$out" --quiet "$@"
}

replay() { # NAME MALICIOUS GRID
  local out=$home/$1/$3_$2.csv
  [ -e "$out" ] && return
  "$tffl" replay "$home/$1" --grid "configs/heat_maps/$3.toml" --malicious "$2" --out "$out" > /dev/null
}

fashion=(--dataset fashion_mnist --model lenet5)
for seed in 1 2; do
  clean "cifar10_iid_$seed" --seed $seed
  clean "cifar10_dirichlet0.5_$seed" --seed $seed --partition dirichlet --beta 0.5
  clean "fashion_dirichlet0.5_$seed" --seed $seed "${fashion[@]}" --partition dirichlet --beta 0.5
done
clean cifar10_dirichlet0.1_1 --seed 1 --partition dirichlet --beta 0.1
clean gtsrb_iid_1 --seed 1 --dataset gtsrb
clean fashion_sgd_dirichlet0.9_1 --seed 1 "${fashion[@]}" --partition dirichlet --beta 0.9 \
  --optimizer sgd --learning-rate 0.05
clean fashion_100clients_1 --seed 1 "${fashion[@]}" --clients 100 --set data.train_limit=20000

for run in "$home"/*_[12]; do
  name=$(basename "$run")
  case $name in
    *100clients*) replay "$name" 10 grid ;;
    *) for malicious in 2 5 8; do replay "$name" $malicious grid; done ;;
  esac
done
for name in cifar10_iid_1 cifar10_dirichlet0.5_1; do replay "$name" 5 ablation; done
