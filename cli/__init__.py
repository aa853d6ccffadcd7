"""The `vdc` command: it speaks HTTP to the API and imports nothing else of the project."""
