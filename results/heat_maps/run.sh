#!/usr/bin/env bash
# Makes the runs of the page, and the page. From the root, with TFFL_DATA_DIR set:
#   bash results/heat_maps/run.sh
set -euo pipefail
home=runs/heat_maps
grids=configs/heat_maps
clean_config=$grids/clean.toml
source results/replays.sh

fashion=(--dataset fashion_mnist --model lenet5)

for seed in 1 2; do
  clean "fashion_dirichlet0.5_$seed" --seed $seed "${fashion[@]}" --partition dirichlet --beta 0.5
done
clean fashion_dirichlet0.1_1 --seed 1 "${fashion[@]}" --partition dirichlet --beta 0.1
clean fashion_sgd_dirichlet0.9_1 --seed 1 "${fashion[@]}" --partition dirichlet --beta 0.9 \
  --optimizer sgd --learning-rate 0.05
clean cifar10_iid_1 --seed 1
clean cifar10_dirichlet0.5_1 --seed 1 --partition dirichlet --beta 0.5
clean gtsrb_dirichlet0.5_1 --seed 1 --dataset gtsrb --partition dirichlet --beta 0.5

for run in "$home"/*_[12]; do replay "$(basename "$run")" 5 $grids/grid.toml; done
for name in fashion_dirichlet0.5_1 cifar10_iid_1; do
  for malicious in 2 8; do replay "$name" $malicious $grids/grid.toml; done
done
replay cifar10_iid_1 5 $grids/ablation.toml

# Nobody attacks: more seeds, and every round.
all=(--rounds 8 --set 'record.store_updates="all"')
for seed in 3 4; do
  clean "fashion_dirichlet0.5_$seed" --seed $seed "${fashion[@]}" "${all[@]}" \
    --partition dirichlet --beta 0.5
  clean "cifar10_dirichlet0.5_$seed" --seed $seed "${all[@]}" --partition dirichlet --beta 0.5
  clean "cifar10_iid_$seed" --seed $seed "${all[@]}"
done
for run in "$home"/*_[34]; do replay "$(basename "$run")" 5 $grids/alarms.toml; done

"$tffl" benchmark $grids/trajectories.toml --out $home/trajectories --quiet

# The whole of CIFAR-10: a quarter of an hour each.
for defense in cam-consensus gradcam-ae; do
  for attack in distance-constrained none; do
    out=$home/full/${defense}_$attack
    [ -e "$out/summary.json" ] || "$tffl" simulate --dataset cifar10 --model resnet8 --clients 20 \
      --malicious 2 --attack $attack --defense $defense --set defense.layer=last-convolution \
      --rounds 8 --seed 3 --out "$out" --quiet
  done
done

"$tffl" page heat_maps
