"""`python -m flead.cli`."""

from flead.cli.main import main

main()
