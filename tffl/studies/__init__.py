"""Studies: grids of many runs, and further analysis of recorded runs."""
