"""The API of instances."""
