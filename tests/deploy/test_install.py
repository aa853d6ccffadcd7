"""The install step: what it looks at, what it takes away again, and what it says when a tool fails."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import install


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "policy-rc.d"
    monkeypatch.setattr(install, "POLICY", file)
    return file


def test_services_do_not_start_while_packages_are_installed(policy: Path):
    with install.no_service_starts():
        assert subprocess.run([policy], check=False).returncode == 101
    assert not policy.exists()


def test_the_policy_goes_away_when_the_installation_fails(policy: Path):
    with pytest.raises(install.InstallError), install.no_service_starts():
        raise install.InstallError("apt-get failed")
    assert not policy.exists()


def test_a_policy_that_an_interrupted_run_left_behind_goes_away(policy: Path):
    policy.write_text(install.POLICY_TEXT)
    with install.no_service_starts():
        assert policy.exists()
    assert not policy.exists()


def test_the_policy_of_the_machine_stays(policy: Path):
    policy.write_text("#!/bin/sh\nexit 0\n")
    with install.no_service_starts():
        pass
    assert policy.read_text() == "#!/bin/sh\nexit 0\n"


def test_missing_packages_are_found_and_installed_ones_are_not():
    assert install.missing_packages(["dpkg", "vdc-no-such-package"]) == ["vdc-no-such-package"]


def test_debian_s_python_needs_its_development_files(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    assert "python3-venv" in install.needed_packages(dev=False)
    monkeypatch.setattr(sys, "base_prefix", "/opt/python")
    assert "python3-venv" not in install.needed_packages(dev=False)


def test_a_failing_tool_is_told_with_its_last_lines_and_its_log(tmp_path: Path):
    log = tmp_path / "tool.log"
    with pytest.raises(install.InstallError, match="no such host") as failure:
        install.run_logged([sys.executable, "-c", "print('no such host'); raise SystemExit(3)"], log)
    assert "exit code 3" in str(failure.value)
    assert str(log) in str(failure.value)


def test_an_environment_that_works_is_not_emptied():
    assert install._fits()


def test_an_environment_that_was_moved_is_made_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "pyvenv.cfg").write_text("command = /usr/bin/python3 -m venv /somewhere/else/.venv\n")
    monkeypatch.setattr(install, "VENV", tmp_path)
    monkeypatch.setattr(install, "PYTHON", tmp_path / "bin" / "python")
    assert not install._fits()


def test_an_environment_behind_a_link_is_somebody_else_s_and_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    theirs, link = tmp_path / "theirs", tmp_path / "clone" / ".venv"
    theirs.mkdir()
    (theirs / "pyvenv.cfg").write_text(f"command = python3 -m venv {theirs}\n")
    link.parent.mkdir()
    link.symlink_to(theirs)
    for name, path in {"CLONE": link.parent, "VENV": link, "PYTHON": link / "bin" / "python"}.items():
        monkeypatch.setattr(install, name, path)
    monkeypatch.setattr(install, "STAMP", link / "installed.json")
    (theirs / "installed.json").write_text("{}")
    (tmp_path / "clone" / "pyproject.toml").write_text("")
    with pytest.raises(install.InstallError, match=f"is a link to {theirs}"):
        install.install_environment([])
    assert {path.name for path in theirs.iterdir()} == {"pyvenv.cfg", "installed.json"}


def test_a_second_installation_waits_for_the_first(tmp_path: Path):
    with install.locked(tmp_path):
        other = os.open(tmp_path, os.O_RDONLY)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(other)


def test_a_user_without_root_gets_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["install"])
    assert install.main() == 1
    assert capsys.readouterr().err.splitlines() == [
        "vdc: This installs Debian packages and makes bridges and namespaces: run it as root."
    ]


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An /etc where ssh starts at boot already."""
    directory = tmp_path / "etc"
    (directory / "systemd" / "system" / "multi-user.target.wants").mkdir(parents=True)
    (directory / "systemd" / "system" / "multi-user.target.wants" / "ssh.service").symlink_to("/nowhere")
    monkeypatch.setattr(install, "ETC", directory)
    return directory


def enable(etc: Path, unit: str) -> Path:
    link = etc / "systemd" / "system" / "multi-user.target.wants" / unit
    link.symlink_to("/nowhere")
    return link


def test_what_is_installed_does_not_start_at_the_next_boot(etc: Path, tmp_path: Path):
    before = install.boot_links()
    with install.nothing_new_at_boot(tmp_path / "kept.json"):
        enable(etc, "redis-server.service")
    assert install.boot_links() == before
    assert not (tmp_path / "kept.json").exists()


def test_an_interrupted_installation_still_knows_what_was_there_before(etc: Path, tmp_path: Path):
    kept = tmp_path / "kept.json"
    with contextlib.suppress(KeyboardInterrupt), install.nothing_new_at_boot(kept):
        raise KeyboardInterrupt
    enable(etc, "redis-server.service")  # what dpkg finished after us
    with install.nothing_new_at_boot(kept):
        pass
    assert {link.name for link in install.boot_links()} == {"ssh.service"}
