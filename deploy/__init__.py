"""Bringing a data center up: the install step, the laptop stack, its demo and its guests' images."""
