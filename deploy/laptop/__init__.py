"""The laptop stack: a whole data center on one machine, under one name, beside whatever else runs there.

`up(name, only=None, port=None)`, `down(name)`, `clean(name)` raise `StackError` with one sentence;
`Stack(name)` knows the paths.
"""

from deploy.laptop.stack import Stack, StackError
from deploy.laptop.starting import up
from deploy.laptop.stopping import clean, down

__all__ = ["Stack", "StackError", "clean", "down", "up"]
