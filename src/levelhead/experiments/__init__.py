"""What the paper asks of a run: methods compared, axes correlated, sets judged (section 4)."""
