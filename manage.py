#!/usr/bin/env python
"""Django's command line for one stack: migrations, the observer, joining a node; and `burnin`, which needs no stack."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    if sys.argv[1:2] == ["burnin"]:
        from deploy.burnin.__main__ import main

        sys.exit(main(sys.argv[2:]))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vdcproject.settings")
    execute_from_command_line(sys.argv)
