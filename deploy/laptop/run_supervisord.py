"""What becomes the supervisord of a stack: it enters the stack's cgroup first, and all that it starts is born there."""

from __future__ import annotations

import os
import sys

from supervisor.supervisord import main

from deploy.laptop import cgroups, reaper
from deploy.laptop.stack import Stack

if __name__ == "__main__":
    cgroups.join(Stack(os.environ["VDC_NAME"]), "services")
    reaper.take_in_orphans()  # guests whose libvirtd, and its reaper, were started anew
    main(sys.argv[1:])
