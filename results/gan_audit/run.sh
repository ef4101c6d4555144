#!/usr/bin/env bash
# What each source of audit images sees, and the page. From the root, with TFFL_DATA_DIR set:
#   bash results/gan_audit/run.sh
set -euo pipefail
home=runs/gan_audit
grids=configs/gan_audit
clean_config=$grids/clean.toml
source results/replays.sh

# Single rounds. Of 30 clients, 10 take part in each.
clean mnist_iid_1 --seed 1
clean mnist_dirichlet0.1_2 --seed 2 --partition dirichlet --beta 0.1
replay mnist_iid_1 3 $grids/grid.toml
replay mnist_iid_1 18 $grids/beyond.toml
replay mnist_dirichlet0.1_2 3 $grids/beyond.toml

# The paper's experiment as the command's preset has it.
whole() { # DATASET NAME, then options
  local out=$home/whole/$1.$2
  [ -e "$out/summary.json" ] && return
  if [ -e "$out/config.toml" ]; then "$tffl" audit-gan --resume "$out" --quiet; return; fi
  "$tffl" audit-gan --dataset "$1" --seed 1 --out "$out" --quiet "${@:3}"
}
for dataset in mnist fashion_mnist; do
  whole $dataset gan
  whole $dataset model-inversion --audit-source model-inversion
  # Undefended: the first round to be audited never comes.
  whole $dataset undefended --audit-source noise --set defense.from_round=1000
done
"$tffl" page gan_audit
