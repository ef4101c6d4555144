"""Hostile input, generated: rounds of updates for defenses, files and replies for what reads them.

The tests here take a few of each; `fuzzing.record` takes thousands.
"""
