#!/usr/bin/env bash
# Everything that make.py reads. With `tffl[fuzz,flower]` installed, from the root, TFFL_DATA_DIR set:
#   bash results/reliability/run.sh
# About 15 minutes of one core for the fuzzing, and an hour for the faults, most of it TensorFlow's
# start: every kill is a process. Both go on after a failure, and the page tells it.
set -uo pipefail
python=${PYTHON:-python}
here=results/reliability

"$python" $here/fuzz.py --cases "${CASES:-10000}"
fuzzed=$?
"$python" $here/faults.py --kills "${KILLS:-30}" --worker-kills "${WORKER_KILLS:-10}"
broken=$?
"$python" $here/make.py || exit
exit $((fuzzed + broken > 0))
