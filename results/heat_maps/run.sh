#!/usr/bin/env bash
# Everything that make.py reads. From the root, with TFFL_DATA_DIR set:
#   bash results/heat_maps/run.sh && python results/heat_maps/make.py
set -euo pipefail
home=runs/heat_maps
grids=configs/heat_maps
clean_config=$grids/clean.toml
source results/replays.sh

fashion=(--dataset fashion_mnist --model lenet5)
for seed in 1 2; do
  clean "fashion_dirichlet0.5_$seed" --seed $seed "${fashion[@]}" --partition dirichlet --beta 0.5
done
clean fashion_sgd_dirichlet0.9_1 --seed 1 "${fashion[@]}" --partition dirichlet --beta 0.9 \
  --optimizer sgd --learning-rate 0.05
clean fashion_100clients_1 --seed 1 "${fashion[@]}" --clients 100 --set data.train_limit=20000
clean cifar10_iid_1 --seed 1
clean cifar10_dirichlet0.5_1 --seed 1 --partition dirichlet --beta 0.5
clean cifar10_dirichlet0.1_1 --seed 1 --partition dirichlet --beta 0.1
clean gtsrb_iid_1 --seed 1 --dataset gtsrb

for run in "$home"/*_[12]; do
  name=$(basename "$run")
  case $name in
    *100clients*) replay "$name" 10 $grids/grid.toml ;;
    *) for malicious in 2 5 8; do replay "$name" $malicious $grids/grid.toml; done ;;
  esac
done
for name in cifar10_iid_1 cifar10_dirichlet0.5_1; do replay "$name" 5 $grids/ablation.toml; done

"$tffl" benchmark $grids/trajectories.toml --out $home/trajectories --quiet
