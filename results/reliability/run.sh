#!/usr/bin/env bash
# Records the tables of the page, and writes it. With `tffl[fuzz,flower]` installed, from the root,
# TFFL_DATA_DIR set:  bash results/reliability/run.sh
# About 15 minutes of one core for the fuzzing, and an hour for the faults, most of it TensorFlow's
# start: every kill is a process. Both continue after a failure, and the page shows it.
set -uo pipefail
python=${PYTHON:-python}
out=runs/reliability

PYTHONPATH=tests "$python" -m fuzzing.record --cases "${CASES:-10000}" --out $out
fuzzed=$?
PYTHONPATH=tests "$python" -m faults --kills "${KILLS:-30}" --worker-kills "${WORKER_KILLS:-10}" \
  --out $out
broken=$?
"$python" -m tffl page reliability || exit
exit $((fuzzed + broken > 0))
