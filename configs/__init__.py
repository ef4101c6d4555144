"""Experiments that ship with tffl: a file here is `--config NAME`, without its ending."""
