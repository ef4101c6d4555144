#!/usr/bin/env bash
# Makes the runs of the page, and the page; skips what is finished. From the root, with
# TFFL_DATA_DIR set:  bash results/coalition/run.sh
set -euo pipefail
tffl=${TFFL:-tffl}
for grid in reference fashion_mnist elsewhere alarms adaptive; do
  "$tffl" benchmark configs/coalition/$grid.toml --out runs/coalition/$grid --quiet
done

# The time of a round of ResNet-18: training, and judging under attack.
for defense in shield coalition; do
  out=runs/coalition/cost/$defense
  [ -e "$out/summary.json" ] || "$tffl" simulate --dataset cifar10 --model resnet18 --clients 20 \
    --malicious 5 --partition dirichlet --train-limit 5200 --rounds 2 --optimizer adam \
    --learning-rate 0.001 --seed 41 --attack lie --set attack.z=1.5 --set attack.spread=own \
    --set data.server_samples=200 --set data.test_limit=200 --defense $defense --out "$out" --quiet
done

"$tffl" page coalition
