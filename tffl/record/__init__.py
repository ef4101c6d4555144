"""What a run leaves behind: tables, checkpoints, pictures and exports."""
