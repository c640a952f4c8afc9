"""The `flead` command."""
