"""Many runs, or a run looked at again."""
