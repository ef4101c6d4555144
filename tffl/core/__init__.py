"""What everything stands on: NumPy alone."""
