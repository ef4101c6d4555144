"""Pictures of runs, heat maps and audits."""
