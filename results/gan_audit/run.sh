#!/usr/bin/env bash
# What each source of audit images sees. From the root, with TFFL_DATA_DIR set:
#   bash results/gan_audit/run.sh
set -euo pipefail
home=runs/gan_audit
grids=configs/gan_audit
clean_config=$grids/clean.toml
source results/replays.sh

for seed in 1 2 3; do clean "mnist_iid_$seed" --seed $seed; done
clean mnist_dirichlet0.5_1 --seed 1 --partition dirichlet --beta 0.5
clean mnist_dirichlet0.1_1 --seed 1 --partition dirichlet --beta 0.1
clean fashion_iid_1 --seed 1 --dataset fashion_mnist

# Of 30 clients, of whom 10 take part in a round.
for run in "$home"/*_[123]; do
  for malicious in 3 9 18; do replay "$(basename "$run")" $malicious $grids/grid.toml; done
done
