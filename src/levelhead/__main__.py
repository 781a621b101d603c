"""`python -m levelhead` is the command `levelhead`."""

from levelhead.cli import main

main()
