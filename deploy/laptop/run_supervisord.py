"""What becomes the supervisord of a stack: it enters the stack's cgroup first, and all that it starts is born there."""

from __future__ import annotations

import os
import sys

from supervisor.supervisord import main

from deploy.laptop import cgroups
from deploy.laptop.stack import Stack

if __name__ == "__main__":
    cgroups.join(Stack(os.environ["VDC_NAME"]), "services")
    main(sys.argv[1:])
