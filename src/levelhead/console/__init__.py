"""What the command line shows on a terminal: progress with time left, and tables."""
