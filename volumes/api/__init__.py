"""The API of volumes, images and backup objects."""
