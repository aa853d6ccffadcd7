"""How many launches a second the engine carries, and what a step costs, beside a plain Celery chain.

Run as `python -m bench.engine`; exit code 0 only if all aims hold.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2

from bench.report import Claim, conclude
from bench.stack import FAKE_MEMORY_MIB, door_of, fake_image, operator_login, own_stack
from deploy.laptop import StackError
from deploy.laptop.postgres import as_postgres, bin_dir, socket_dir
from deploy.laptop.stack import CLONE, Stack
from deploy.laptop.supervision import Supervisor

STACK = "vdc-bench-engine"
NODES = 100
STEPS = 4  # of a launch
ROUNDS = 5
LAUNCHES = 300  # of one round
CHAINS = 300
COUNTED = 40  # launches whose statements are counted
CLIENTS = 8
PATIENCE_S = 300.0
AIM_RATE = 2.0
AIM_STATEMENTS = 9.0
NETWORK = ("100.64.0.0/16", "100.64.0.1")  # room for all addresses at once

METHOD = f"""\
{NODES} fake nodes served by this machine through real Celery, Redis and PostgreSQL; {ROUNDS} rounds, taking turns.
Ours: {LAUNCHES} launches asked for by POST over {CLIENTS} connections, from the first POST until the last one runs.
Chain: {CHAINS} Celery chains of {STEPS} tasks, 1 ms of work and one saved row each, default settings, Redis as result
backend, from the first row saved until the last (the sender's start is left out).
Medians. CPU: of all processes of a kind over our rounds, per step. Statements: all that PostgreSQL logs during
{COUNTED} more launches, BEGIN and COMMIT included, by the name that each process gives its connections, per step."""


class Bench:
    """One stack with a login and an image for fake guests; asks the database directly how far things are."""

    def __init__(self, stack: Stack, content: dict[str, Any], work: Path) -> None:
        self.stack = stack
        self.port = content["port"]
        self.record = psycopg2.connect(
            host=content["database"]["HOST"],
            dbname=content["database"]["NAME"],
            user=content["database"]["USER"],
            password=content["database"]["PASSWORD"],
            application_name="bench",
        )
        self.record.autocommit = True
        self.ask("UPDATE networks_network SET ipv4_network = %s, gateway = %s WHERE is_default", *NETWORK)
        login = operator_login(content, work)
        self.token = login["token"]
        with door_of(login) as door:
            self.image = fake_image(door, work)

    def ask(self, statement: str, *values: Any) -> Any:
        """The first column of the first row."""
        with self.record.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchone()[0] if cursor.description else None

    def until(self, question: str, *values: Any) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not self.ask(question, *values):
            if time.monotonic() > deadline:
                raise SystemExit(f"Not within {PATIENCE_S:.0f} s: {question}")
            time.sleep(0.02)

    # --- ours ----------------------------------------------------------------------------------------------------

    def launch(self, count: int) -> float:
        """Seconds from the first POST until the last of `count` instances runs."""
        before = self.ask("SELECT count(*) FROM operations_operation WHERE verb = 'instance.launch'")
        shares = [count // CLIENTS + (number < count % CLIENTS) for number in range(CLIENTS)]
        begun = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(self._ask_for_launches, shares))
        done = "SELECT count(*) >= %s FROM operations_operation WHERE verb = 'instance.launch' AND ended_at IS NOT NULL"
        self.until(done, before + count)
        took_s = time.perf_counter() - begun
        if failed := self.ask("SELECT count(*) FROM operations_operation WHERE state NOT IN ('done', 'cancelled')"):
            raise SystemExit(f"{failed} operations did not end well.")
        return took_s

    def _ask_for_launches(self, count: int) -> None:
        body = json.dumps({"image": self.image, "memory_mib": FAKE_MEMORY_MIB})
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as line:
            for _ in range(count):
                line.request("POST", "/api/v1/instances", body, headers)
                answer = line.getresponse()
                said = answer.read()
                if answer.status != 202:
                    raise SystemExit(f"A launch was answered with {answer.status}: {said[:500]!r}")

    # --- the plain chain -----------------------------------------------------------------------------------------

    @contextmanager
    def plain_worker(self) -> Iterator[None]:
        """The worker of the chains, with Celery's own idea of concurrency."""
        environment = {**self.stack.environment(), "PYTHONPATH": str(CLONE), "C_FORCE_ROOT": "1"}
        environment["DJANGO_SETTINGS_MODULE"] = "bench.plain.settings"
        tools = {"cwd": CLONE, "env": environment, "stdin": subprocess.DEVNULL}
        python = [sys.executable, "-m"]
        subprocess.run([*python, "django", "migrate", "--run-syncdb", "--verbosity=0"], check=True, **tools)
        self._send = lambda count: subprocess.Popen([*python, "bench.plain.app", str(count)], **tools)
        worker = subprocess.Popen(
            [*python, "celery", "-A", "bench.plain.app", "worker", "--loglevel=ERROR"],
            stdout=subprocess.DEVNULL,
            **tools,
        )
        try:
            self.chain(4)  # the worker is there, and warm
            yield
        finally:
            worker.terminate()
            worker.wait()

    def chain(self, count: int) -> float:
        """Seconds from the first chain sent until the last row of `count` chains is saved."""
        before = self.ask("SELECT count(*) FROM plain_done")
        with self._send(count) as sender:
            self.until("SELECT count(*) > %s FROM plain_done", before)
            # The sender's own start is left out: the first row is saved a few milliseconds after it is sent.
            begun = time.perf_counter()
            self.until("SELECT count(*) >= %s FROM plain_done", before + count * STEPS)
            took_s = time.perf_counter() - begun
            sender.wait()
        return took_s

    # --- what a step costs ---------------------------------------------------------------------------------------

    def cpu_s(self) -> dict[str, float]:
        """Seconds of CPU that each program of the stack has used so far, its children included."""
        pids = {name: info["pid"] for name, info in Supervisor(self.stack).infos().items() if info["pid"]}
        used = {name: sum(map(_cpu_s, _tree(pid))) for name, pid in pids.items()}
        return used | {"postgres": used["postgres"] + _reaped_s(pids["postgres"])}

    def statements(self) -> dict[str, float]:
        """Statements per step of `COUNTED` launches, by the name of the connection."""
        log = self.stack.log("postgres")
        with log.open(errors="replace") as file:
            file.seek(0, os.SEEK_END)
            self._log_statements("all")
            self.launch(COUNTED)
            self._log_statements("none")
            said = file.read()
            if os.fstat(file.fileno()).st_ino != log.stat().st_ino:  # it was full, and a new one was begun
                said += log.read_text(errors="replace")
        counted = Counter(re.findall(r"\[\d+\] (.*) LOG:  (?:statement|execute [^:]+): ", said))
        return {name: number / (COUNTED * STEPS) for name, number in sorted(counted.items()) if name.startswith("vdc ")}

    def _log_statements(self, what: str) -> None:
        psql = [bin_dir(self.stack) / "psql", "-X", "-q", "-h", socket_dir(self.stack), "-U", "postgres"]
        as_postgres([*psql, "-d", "postgres"], text=f"ALTER SYSTEM SET log_statement = '{what}';")
        as_postgres([*psql, "-d", "postgres"], text="SELECT pg_reload_conf();")
        self.until("SELECT current_setting('log_statement') = %s", what)
        time.sleep(0.5)  # every backend hears of it between two statements


def _tree(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(found for child in children for found in _tree(int(child)))]


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _reaped_s(pid: int) -> float:
    """What children that have ended had used."""
    fields = _stat(pid)
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


# --- the claim -----------------------------------------------------------------------------------------------------


def rounds(bench: Bench) -> dict[str, Any]:
    """All rounds, taking turns."""
    ours: list[float] = []
    plain: list[float] = []
    used: Counter[str] = Counter()

    def launches() -> None:
        before = bench.cpu_s()
        ours.append(LAUNCHES / bench.launch(LAUNCHES))
        used.update({name: spent - before[name] for name, spent in bench.cpu_s().items()})

    def chains() -> None:
        plain.append(CHAINS / bench.chain(CHAINS))

    bench.launch(20)  # to warm up
    turns: list[Callable[[], None]] = [launches, chains]
    for number in range(ROUNDS):
        for turn in turns if number % 2 else reversed(turns):
            turn()
        print(f"round {number + 1}: ours {ours[-1]:.1f}/s, chain {plain[-1]:.1f}/s", flush=True)
    steps = ROUNDS * LAUNCHES * STEPS
    return {"launches_per_s": ours, "chains_per_s": plain, "cpu_ms": {n: s * 1000 / steps for n, s in used.items()}}


def claims(found: dict[str, Any], statements: dict[str, float]) -> list[Claim]:
    ours, plain = (statistics.median(found[name]) for name in ("launches_per_s", "chains_per_s"))
    by_worker = sum(number for name, number in statements.items() if name != "vdc web")
    named = {name: name.replace(" ", "_") for name in statements}
    return [
        Claim("engine.launches", ours, "per s"),
        Claim("engine.chains", plain, "per s"),
        *(Claim(f"engine.cpu_{name}", spent, "ms/step") for name, spent in found["cpu_ms"].items() if spent > 0.005),
        *(Claim(f"engine.statements_{named[name]}", number, "per step") for name, number in statements.items()),
        Claim("engine.statements_all", sum(statements.values()), "per step"),
        Claim("engine.statements", by_worker, "per step of the workers, sweep and observers", AIM_STATEMENTS),
        Claim("engine.chain_by_ours", plain / ours, "of our rate", 1 / AIM_RATE),
    ]


def main() -> int:
    try:
        with tempfile.TemporaryDirectory(prefix="vdcbench-") as work, own_stack(STACK, fake_nodes=NODES) as content:
            bench = Bench(Stack(STACK), content, Path(work))
            with bench.plain_worker():
                found = rounds(bench)
            statements = bench.statements()
    except StackError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 2
    return 0 if conclude("engine", METHOD, {**found, "statements": statements}, claims(found, statements)) else 1


if __name__ == "__main__":
    sys.exit(main())
