#!/usr/bin/env bash
# What each source of audit images sees. From the root, with TFFL_DATA_DIR set:
#   bash results/gan_audit/run.sh && python results/gan_audit/make.py
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

# The paper's experiment, by dataset.source.seed.
for seed in 1 2 3; do
  for dataset in mnist fashion_mnist; do
    for source in undefended gan model-inversion held-out auxiliary; do
      out=$home/experiments/$dataset.$source.$seed
      options=(--audit-source "$source")
      # Audited from a round on that never comes.
      [ $source = undefended ] && options=(--set defense.from_round=1000)
      [ -e "$out/summary.json" ] && continue
      if [ -e "$out/config.toml" ]; then
        "$tffl" audit-gan --resume "$out" --quiet
      else
        "$tffl" audit-gan --dataset $dataset --seed $seed --out "$out" --quiet "${options[@]}"
      fi
    done
  done
done
