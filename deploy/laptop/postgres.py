"""The stack's own PostgreSQL cluster: Debian's binaries, user postgres, a unix socket and no TCP."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import Any

from deploy.laptop.stack import PATH, Stack, StackError

USER = "postgres"
INSTALLED = Path("/usr/lib/postgresql")

CONFIGURATION = """\
# Written by every `make up`; changes made here are lost.
listen_addresses = ''
unix_socket_directories = '{socket_dir}'
unix_socket_permissions = 0700
max_connections = 200
password_encryption = 'scram-sha-256'
shared_buffers = 128MB
effective_cache_size = 512MB
max_wal_size = 512MB
min_wal_size = 32MB
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %a '
log_checkpoints = off
"""
# root becomes postgres to administer; everybody else shows a password.
ACCESS = """\
local all postgres peer
local all all scram-sha-256
"""
# Roles are made again at every start, so that the password in the stack file is always the right one.
ROLE = """\
SET log_min_error_statement = 'panic';
SELECT 'CREATE ROLE {user}' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{user}') \\gexec
ALTER ROLE {user} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD '{password}';
SELECT 'CREATE DATABASE {database} OWNER {user}'
    WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{database}') \\gexec
"""


def data_dir(stack: Stack) -> Path:
    return stack.state_dir / "postgresql"


def socket_dir(stack: Stack) -> Path:
    return stack.run_dir / "postgresql"


def bin_dir(stack: Stack) -> Path:
    """The binaries that fit the cluster, or the newest ones when it is still to be made."""
    found = {int(path.parent.parent.name): path.parent for path in INSTALLED.glob("[0-9]*/bin/postgres")}
    if not found:
        raise StackError(f"No PostgreSQL server is installed below {INSTALLED}; run `make up`, which installs it.")
    version_file = data_dir(stack) / "PG_VERSION"
    if not version_file.exists():
        return found[max(found)]
    version = int(version_file.read_text())
    if version not in found:
        raise StackError(
            f"The database in {data_dir(stack)} was made by PostgreSQL {version}, which is not installed any more; "
            f"install postgresql-{version}, or remove the data with `make clean`."
        )
    return found[version]


def needs_cluster(stack: Stack) -> bool:
    return not (data_dir(stack) / "PG_VERSION").exists()


def make_cluster(stack: Stack, lock: int) -> None:
    """initdb beside, then a rename: an interrupted one leaves nothing that looks like a cluster. It holds the lock."""
    fresh = data_dir(stack).with_name("postgresql.new")
    if fresh.exists():
        shutil.rmtree(fresh)
    fresh.mkdir(mode=0o700)
    shutil.chown(fresh, USER, USER)
    as_postgres(
        [
            bin_dir(stack) / "initdb",
            f"--pgdata={fresh}",
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--auth=peer",
        ],
        inherited=(lock,),
    )
    fresh.rename(data_dir(stack))


def configure(stack: Stack) -> None:
    """Writes the configuration, makes the socket's directory and takes a dead server's lock away."""
    socket_dir(stack).mkdir(mode=0o700, exist_ok=True)
    shutil.chown(socket_dir(stack), USER, USER)
    for name, content in (
        ("postgresql.conf", CONFIGURATION.format(socket_dir=socket_dir(stack))),
        ("pg_hba.conf", ACCESS),
    ):
        file = data_dir(stack) / name
        file.write_text(content)
        shutil.chown(file, USER, USER)
    if not _is_served(stack):
        # The pid in a stale lock may by now be a server of another stack, which PostgreSQL would take for its own.
        (data_dir(stack) / "postmaster.pid").unlink(missing_ok=True)


def answers(stack: Stack) -> bool:
    """Whether the server takes connections; waits three seconds at most."""
    asked = subprocess.run(
        [bin_dir(stack) / "pg_isready", "-q", "-h", socket_dir(stack), "-t", "3"], check=False, timeout=10
    )
    return asked.returncode == 0


def ensure_role(stack: Stack, database: dict[str, Any]) -> None:
    """The role and the database of the product. The password goes by standard input, never by the command line."""
    statements = ROLE.format(user=database["USER"], password=database["PASSWORD"], database=database["NAME"])
    options = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", str(socket_dir(stack)), "-U", "postgres", "-d", "postgres"]
    as_postgres([bin_dir(stack) / "psql", *options], text=statements)


def as_postgres(argv: list[Any], text: str = "", inherited: tuple[int, ...] = ()) -> None:
    """Runs a tool as user postgres, with these descriptors of ours; its last words become the error."""
    user = pwd.getpwnam(USER)
    done = subprocess.run(
        [str(word) for word in argv],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=os.getgrouplist(USER, user.pw_gid),
        env={"PATH": PATH, "LC_ALL": "C.UTF-8"},
        umask=0o077,
        pass_fds=inherited,
    )
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise StackError(f"{Path(argv[0]).name} failed (exit code {done.returncode}): {words[-1]}")


def _is_served(stack: Stack) -> bool:
    """A server stands in its data directory as long as it lives."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == data_dir(stack):
                return True
        except OSError:
            continue  # it ended while we looked
    return False
