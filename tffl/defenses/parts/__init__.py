"""What detectors are made of: pure functions on scores and flags."""
