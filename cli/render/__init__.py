"""Turns API objects into words for people: lists, sheets, stories and progress."""
