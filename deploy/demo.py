"""The end of `make demo`: says where to look."""

from __future__ import annotations

import os
import sys

from deploy.laptop import Stack, StackError


def main() -> int:
    stack = Stack(os.environ.get("VDC_NAME") or "vdc")
    content = stack.read()
    if content is None:
        raise StackError(f"There is no stack {stack.name!r}; run `make up`.")
    web, operator = f"http://127.0.0.1:{content['port']}", content["operator"]
    print(f"API    {web}/api/v1/")
    print(f"Admin  {web}/admin/  as {operator['username']} with the password {operator['password']}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StackError as exc:
        print(f"vdc: {exc}", file=sys.stderr)
        sys.exit(1)
