"""The set-up script refuses what it cannot serve, in one sentence and before it changes anything.

The script runs in a copy of its directory, on a PATH of stand-ins: each notes that it was called and answers as the
machine in question would. That the stand-ins would notice a change is itself tested: a machine that can be served is
taken as far as its first `apt-get install`. What the script does on real machines is for a fresh one to show.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETUP = ROOT / "lab" / "setup"

# What the script may use freely, since it changes nothing; `rm` and `mktemp` only ever meet a temporary file.
HARMLESS = "awk bash cat dirname flock grep head ls mktemp rm sed sha256sum tail xargs"
CHANGING = "apt-get dpkg systemctl update-rc.d ln mv chmod mkdir chown"
PROGRAMS_OF_PACKAGES = (
    "mnexec ovs-vsctl bird ip ethtool tcpdump tshark nft ping ps modprobe make update-ca-certificates curl wrk ab "
    "iperf3 nginx vtysh gobgpd dig ssh sshd sudo"
)


@dataclass
class Machine:
    """A copy of the set-up directory, and the programs that the script will find."""

    directory: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.directory / "maglev-lab"

    @property
    def calls(self) -> str:
        """What was asked of the stand-ins that would have changed something, one call a line."""
        log = self.directory / "calls"
        return log.read_text() if log.exists() else ""

    def program(self, name: str, script: str) -> Path:
        path = self.directory / "bin" / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def without(self, name: str) -> None:
        (self.directory / "bin" / name).unlink()

    def python(self, minor: int) -> None:
        path = self.program("python3", f'[ "$1" = -c ] && echo 3.{minor} || {self.note("python3")}')
        self.environment["MAGLAB_PYTHON"] = str(path)

    def note(self, name: str) -> str:
        return f'{{ echo {name} "$@" >>"{self.directory}/calls"; exit 1; }}'

    def provision(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.root / "lab" / "setup" / "provision", *arguments],
            env={"PATH": str(self.directory / "bin"), "TMPDIR": str(self.directory), **self.environment},
            capture_output=True,
            text=True,
            timeout=20,
        )

    def contents(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A Debian 12 machine on which root runs the script, and which lacks the package curl, and nothing else."""
    machine = Machine(tmp_path)
    shutil.copytree(SETUP, machine.root / "lab" / "setup")
    (tmp_path / "bin").mkdir()
    for name in HARMLESS.split():
        found = shutil.which(name)
        assert found is not None, f"{name} should be on every machine"
        (tmp_path / "bin" / name).symlink_to(found)
    for name in f"{CHANGING} {PROGRAMS_OF_PACKAGES}".split():
        machine.program(name, machine.note(name))
    machine.program("uname", "case $1 in -m) echo x86_64;; *) echo Linux;; esac")
    machine.program("id", "echo 0")
    machine.program("dpkg-query", 'for name; do case $name in -*|*{*|curl) ;; *) echo "$name installed";; esac; done')
    machine.program("apt-cache", "echo '  Candidate: 3.11.2-1+b1'")
    machine.python(11)
    return machine


def assert_refused(machine: Machine, *words: str, arguments: tuple[str, ...] = ()) -> None:
    before = machine.contents()
    result = machine.provision(*arguments)
    assert result.returncode != 0
    assert result.stdout == ""
    assert re.fullmatch(r"maglev-lab: [^\n]+\.\n", result.stderr), f"not one sentence: {result.stderr!r}"
    for word in words:
        assert word in result.stderr
    assert machine.calls == ""
    assert machine.contents() == before
    assert sorted(path.name for path in machine.root.iterdir()) == ["lab"]


def test_machine_that_can_be_served_is_changed(machine: Machine) -> None:
    """The tests below say something only because this machine gets as far as changing."""
    result = machine.provision()
    assert result.returncode != 0
    assert "[1/5] Debian packages: curl …" in result.stdout
    assert re.search(r"^apt-get install .* curl$", machine.calls, re.MULTILINE)
    assert "could not be installed" in result.stderr


def test_compilers_are_installed_for_the_bench_alone(machine: Machine) -> None:
    assert "gcc" not in machine.provision("--for=lab").stdout
    assert "curl gcc clang dpdk-dev …" in machine.provision("--for=bench").stdout


def test_failed_installation_is_tried_once_more_with_new_lists(machine: Machine) -> None:
    machine.program("dpkg", f'echo dpkg "$@" >>"{machine.directory}/calls"')
    machine.program("apt-get", f'echo apt-get "$1" >>"{machine.directory}/calls"; [ "$1" = update ]')
    machine.provision()
    assert machine.calls.splitlines() == ["apt-get install", "dpkg --configure -a", "apt-get update", "apt-get install"]


@pytest.mark.parametrize("system", ["Darwin", "FreeBSD", "MINGW64_NT-10.0"])
def test_not_linux(machine: Machine, system: str) -> None:
    machine.program("uname", f"echo {system}")
    assert_refused(machine, system, "vagrant up")


def test_processor_without_compiled_packages(machine: Machine) -> None:
    machine.program("uname", "case $1 in -m) echo armv7l;; *) echo Linux;; esac")
    assert_refused(machine, "armv7l", "aarch64")


@pytest.mark.parametrize("lacking", ["apt-get", "dpkg-query"])
def test_another_package_manager(machine: Machine, lacking: str) -> None:
    machine.without(lacking)
    assert_refused(machine, "apt-get", "Debian 12", "vagrant up")


@pytest.mark.parametrize("minor", [6, 9, 10])
def test_python_too_old(machine: Machine, minor: int) -> None:
    machine.python(minor)
    assert_refused(machine, f"Python 3.{minor}", "3.11", "vagrant up")


def test_python_that_apt_would_install_is_too_old(machine: Machine) -> None:
    machine.environment["MAGLAB_PYTHON"] = str(machine.directory / "no-python-yet")
    machine.program("apt-cache", "echo '  Candidate: 3.9.2-3'")
    assert_refused(machine, "Python 3.9")


def test_python_that_apt_would_install_will_do(machine: Machine) -> None:
    machine.environment["MAGLAB_PYTHON"] = str(machine.directory / "no-python-yet")
    machine.provision()
    assert re.search(r"^apt-get install .* python3", machine.calls, re.MULTILINE)


def test_first_python_on_the_path_does_not_count(machine: Machine) -> None:
    """A pyenv shim, say: Debian's Mininet is out of its reach."""
    machine.python(6)
    machine.environment["MAGLAB_PYTHON"] = str(machine.directory / "bin" / "distribution-python")
    machine.program("distribution-python", "echo 3.11")
    machine.provision()
    assert "apt-get install" in machine.calls


def test_not_root_with_packages_missing(machine: Machine) -> None:
    machine.program("id", "echo 1000")
    assert_refused(machine, "curl", "root", "sudo")


def test_lab_without_root_though_nothing_is_missing(machine: Machine) -> None:
    machine.program("id", "echo 1000")
    machine.program("dpkg-query", 'for name; do echo "$name installed"; done')
    assert_refused(machine, "root", "sudo", arguments=("--for=lab",))
    assert_refused(machine, "root", "sudo", arguments=("--for=bench",))


def test_package_without_its_program_is_missing(machine: Machine) -> None:
    machine.program("id", "echo 1000")
    machine.program("dpkg-query", 'for name; do echo "$name installed"; done')
    machine.without("mnexec")
    assert_refused(machine, "(mininet)")


def test_environment_alone_needs_no_package_of_the_lab_and_no_root(machine: Machine) -> None:
    machine.program("id", "echo 1000")
    result = machine.provision("--for=check")
    assert "[2/5] Python packages" in result.stdout
    assert machine.calls == f"python3 -m venv --system-site-packages {machine.root}/.venv\n"


@pytest.fixture
def set_up(machine: Machine) -> Machine:
    """A machine with the load balancer's sources and an environment that is whole, but for machine code."""
    setup, venv = machine.root / "lab" / "setup", machine.root / ".venv"
    shutil.copytree(ROOT / "maglev", machine.root / "maglev", ignore=shutil.ignore_patterns("__pycache__"))
    (venv / "bin").mkdir(parents=True)
    (venv / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    (venv / "bin" / "maglab").symlink_to("/bin/true")
    of_environment = (setup / "provision").read_bytes() + (setup / "requirements.lock").read_bytes()
    of_environment += f"{machine.root} {machine.environment['MAGLAB_PYTHON']}\n3.11\n".encode()
    (venv / ".provisioned").write_text(f"{hashlib.sha256(of_environment).hexdigest()}  -\n")
    # Compiling everything takes half a minute; here it leaves what it leaves at its end.
    make_code = "from maglev import kept; place = kept.directory(); "
    make_code += "place.mkdir(parents=True, exist_ok=True); kept.mark_whole(place)"
    (venv / "bin" / "python").write_text(
        f"""#!/bin/sh
case $* in
*rehearsal) echo rehearsed >>"{machine.directory}/calls"; exec {sys.executable} -c '{make_code}' ;;
*) exec {sys.executable} "$@" ;;
esac
"""
    )
    (venv / "bin" / "python").chmod(0o755)
    return machine


def test_machine_code_is_made_when_sources_have_changed_and_only_then(set_up: Machine) -> None:
    def outcome() -> tuple[str, int]:
        result = set_up.provision("--for=check")
        assert (result.returncode, result.stderr) == (0, ""), result.stderr
        return result.stdout, set_up.calls.count("rehearsed")

    made = "[3/5] Compiling …\nMaglev Lab is set up.\n"
    assert outcome() == (made, 1), "there was none: it should have been made"
    assert outcome() == ("", 1), "it should have been found"
    source = set_up.root / "maglev" / "fast" / "flow.py"
    source.write_text(source.read_text() + "\n")
    assert outcome() == (made, 2), "a source of it has changed"
    other = set_up.root / "maglev" / "forwarder.py"
    other.write_text(other.read_text() + "\n")
    assert outcome() == ("", 2), "it is not made of this file"
    shutil.rmtree(set_up.root / "maglev" / "__pycache__")
    assert outcome() == (made, 3), "it was thrown away"


def test_machine_code_that_was_not_finished_is_made_again(set_up: Machine) -> None:
    assert "Compiling" in set_up.provision("--for=check").stdout
    [mark] = (set_up.root / "maglev" / "__pycache__").glob("compiled-*/whole")
    mark.unlink()
    assert "Compiling" in set_up.provision("--for=check").stdout


def test_a_load_balancer_that_cannot_be_compiled_is_said_and_does_not_stop_set_up(set_up: Machine) -> None:
    python = set_up.root / ".venv" / "bin" / "python"
    python.write_text(python.read_text().replace("rehearsed", "rehearsed; echo SyntaxError: oh >&2; exit 1; echo"))
    result = set_up.provision("--for=check")
    assert result.returncode == 0
    assert (
        result.stderr
        == "SyntaxError: oh\nThe load balancer itself does not run; its tests will say more (make test).\n"
    )


def test_unknown_option(machine: Machine) -> None:
    assert_refused(machine, "--fast", "--for=check", arguments=("--fast",))


def test_lock_names_every_version() -> None:
    locked = lock()
    wanted = re.findall(r"^([\w-]+)", (SETUP / "requirements.in").read_text(), re.MULTILINE)
    assert {normalized(name) for name in wanted} <= set(locked)
    assert locked["exabgp"].startswith("5.0.")


@pytest.mark.skipif(Path(sys.prefix) != ROOT / ".venv", reason="runs outside the project's virtual environment")
def test_environment_holds_what_is_locked() -> None:
    assert {name: version(name) for name in lock()} == lock()


def lock() -> dict[str, str]:
    lines = [line for line in (SETUP / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    pairs = [re.fullmatch(r"([\w.-]+)==([\w.!+]+)", line) for line in lines]
    assert all(pairs), f"not pinned: {lines[pairs.index(None)]}"
    return {normalized(pair[1]): pair[2] for pair in pairs if pair}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize(
    ("target", "commands"),
    [
        ("setup", ["lab/setup/provision"]),
        ("demo", ["lab/setup/provision --for=lab", ".venv/bin/maglab demo --connections 9"]),
        ("bench", ["lab/setup/provision --for=bench", ".venv/bin/maglab bench --connections 9"]),
        ("test", ["lab/setup/provision --for=lab", ".venv/bin/python -m pytest --connections 9"]),
    ],
)
def test_make_sets_up_what_is_missing_first(target: str, commands: list[str]) -> None:
    result = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", target, "ARGS=--connections 9"],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if not key.startswith("MAKE")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.strip() for line in result.stdout.splitlines()] == commands


def test_continuous_integration_runs_what_the_readme_says(machine: Machine) -> None:
    machine.program("make", machine.note("make"))
    subprocess.run([ROOT / ".ci" / "run"], env={"PATH": str(machine.directory / "bin")}, timeout=20)
    assert machine.calls == "make test\n"


def test_without_ryu_all_but_one_topology_is_set_up(set_up: Machine) -> None:
    """Its environment cannot be made: that is said, nothing of it is left, and set-up goes on to its last step."""
    set_up.program("dpkg-query", 'for name; do case $name in -*|*{*) ;; *) echo "$name installed";; esac; done')
    result = set_up.provision()
    assert f"python3 -m venv {set_up.root}/.venv-ryu\n" in set_up.calls
    assert "so the topology sdn will not run; all others will" in result.stderr
    assert not (set_up.root / ".venv-ryu").exists()
    assert "/usr/local/bin/maglab" in result.stdout.rpartition("[4/5]")[2] or "[5/5]" in result.stdout, result
