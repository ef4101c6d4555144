"""Real runs of `tffl simulate` that are broken while they work, and what is left of them.

    PYTHONPATH=tests python -m faults --kills 50 --worker-kills 20

Writes faults.csv to runs/reliability, from which `tffl page reliability` makes a page; exit code 1
if anything was lost. An undisturbed run comes first; every other one has to end with its
`rounds.csv` and `clients.csv`, timing columns aside.

kill        `kill -9` at a random moment; --resume, until the run ends, and then a new run
worker      `kill -9` of one of two workers of a cluster, at a random moment of the run
full disk   a tmpfs that is too small; with more room, --resume
file size   no file may be larger than that (RLIMIT_FSIZE); without the limit, --resume
read-only   a file system that is read-only, to begin a run in and to resume one in
stdout      /dev/full instead of the terminal

File systems are mounted in a user namespace (`unshare`), which needs no root where the kernel lets
users have one; elsewhere these faults are left out, and the program says so.
"""
