"""Nothing leaves the machine: no look-up, no connection, and no file outside the cache, the temporary and the working folder.

Every command runs in a process of its own, in a fresh home, with an environment that tells no library to be quiet (many are
in continuous integration). Python code is watched by `network_guard`; libraries' own code by `strace`, where it may be used.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from resynth_fast import backends
from resynth_fast.backends import telemetry
from resynth_fast.cli.doctor import _network

ROOT = Path(__file__).parents[1]
KEPT = ("PATH", "LD_LIBRARY_PATH", "LANG")
"""What the processes see of the environment."""
CREATING = "open,openat,openat2,creat,mkdir,mkdirat,mknod,mknodat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,truncate"
STRACE = [
    *("strace", "-f", "-qq", "-y", "--seccomp-bpf", "-e", "signal=none", "-s", "200"),
    *("-e", f"trace=%network,{','.join('?' + call for call in CREATING.split(','))}"),
]
RESOLVER = {"/etc/resolv.conf", "/etc/hosts"}
_CALL = re.compile(r"^\d+ +(\w+)\((.*)$")
_QUOTED = re.compile(r'(?:AT_FDCWD|\d+)?(?:<([^>]*)>)?(?:, )?"((?:[^"\\]|\\.)*)"')


@functools.cache
def why_not_traced() -> str:
    """Why system calls cannot be traced; empty if they can."""
    if not shutil.which("strace"):
        return "strace is not installed"
    tried = subprocess.run([*STRACE, "-o", os.devnull, sys.executable, "-c", ""], capture_output=True, text=True, check=False)
    return f"strace cannot trace: {tried.stderr.strip()[:200]}" if tried.returncode or tried.stderr else ""


@dataclass
class Run:
    """A process that ended, and what it did beyond its folders."""

    done: subprocess.CompletedProcess[str]
    refused: list[str]
    """look-ups and connections of Python code"""
    strays: list[str]
    """files of the home outside the cache"""
    traced: list[str] = field(default_factory=list)
    """look-ups, connections and files outside, from system calls"""

    def leaks(self) -> list[str]:
        return [*self.refused, *self.strays, *self.traced]


def run(folder: Path, *command: str) -> Run:
    """Run Python with `command` in folder/work, guarded, and traced if that is possible."""
    home, work, temporary = folder / "home", folder / "work", folder / "temporary"
    for each in (home, work, temporary):
        each.mkdir(exist_ok=True)
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    environment = {
        **kept,
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "NETWORK_GUARD_LOG": str(temporary / "refused.log"),
        "PYTHONPATH": str(ROOT / "tests" / "network_guard"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    log = folder / "calls.log"
    tracer = [*STRACE, "-o", str(log)] if not why_not_traced() else []
    done = subprocess.run(
        [*tracer, sys.executable, "-P", *command], cwd=work, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    refused = temporary / "refused.log"
    cache = home / ".cache" / "resynth-fast"
    return Run(
        done,
        refused.read_text().splitlines() if refused.exists() else [],
        [str(path.relative_to(home)) for path in home.rglob("*") if not path.is_dir() and not path.is_relative_to(cache)],
        list(dict.fromkeys(leaks(log.read_text(errors="replace"), work, [work, temporary, cache]))) if tracer else [],
    )


def leaks(calls: str, work: Path, allowed: list[Path]) -> Iterator[str]:
    """System calls of strace's log that ask for a name, reach for the network, or make or change a file outside the `allowed` folders."""
    for line in calls.splitlines():
        if not (match := _CALL.match(line)):
            continue
        call, arguments = match.groups()
        if call in {"connect", "sendto", "sendmsg", "sendmmsg"} and "AF_INET" in arguments:
            yield line
        if call not in CREATING.split(","):
            continue
        paths = [Path(os.path.normpath(Path(folder or work) / name)) for folder, name in _QUOTED.findall(arguments)]
        if call in {"open", "openat", "openat2"}:
            if RESOLVER & {str(path) for path in paths}:
                yield line
            if not re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC", arguments):
                continue
        if re.search(r"= -1 E\w+ \(.*\)$", line):
            continue
        for path in paths[-1:] if call.startswith("symlink") else paths:  # what a link points to is only text
            parent = any(each.is_relative_to(path) for each in allowed)
            if not parent and not any(path.is_relative_to(each) for each in [*allowed, Path("/dev"), Path("/proc/self")]):
                yield line


ASKING = """
import pathlib, socket
for ask in (lambda: socket.getaddrinfo('name.invalid', 80), lambda: socket.socket().connect(('192.0.2.1', 9))):
    try:
        ask()
    except ConnectionRefusedError as error:
        print(error)
pathlib.Path.home().joinpath('note').write_text('x')
"""
ASKING_UNSEEN = """
import subprocess, sys
# Without the guard, as a library's own code is. A datagram socket sends nothing when it is connected.
code = 'import os, socket; socket.socket(type=socket.SOCK_DGRAM).connect(("192.0.2.1", 9))'
code += '; open("/etc/hosts").close(); os.mkdir("../outside")'
subprocess.run([sys.executable, '-I', '-S', '-c', code], check=True)
"""


def test_the_guard_sees_python_code(tmp_path: Path) -> None:
    found = run(tmp_path, "-c", ASKING)
    assert found.done.returncode == 0, found.done.stderr
    assert [line.split()[0] for line in found.refused] == ["socket.getaddrinfo", "socket.connect"]
    assert "name.invalid" in found.refused[0]
    assert found.strays == ["note"]


def test_the_suite_is_guarded_too() -> None:
    """So no test needs the network, and the exporter and its libraries are watched wherever a test exports."""
    with pytest.raises(ConnectionRefusedError, match="network guard"):
        socket.getaddrinfo("name.invalid", 80)
    with socket.socket() as client, pytest.raises(ConnectionRefusedError, match="network guard"):
        client.connect(("192.0.2.1", 9))


def test_the_trace_sees_other_code(tmp_path: Path) -> None:
    if reason := why_not_traced():
        pytest.skip(f"{reason}: connections and files of libraries' own code are not watched")
    found = run(tmp_path, "-c", ASKING_UNSEEN)
    assert found.done.returncode == 0, found.done.stderr
    assert not found.refused
    words = ("192.0.2.1", "/etc/hosts", "../outside")
    assert len(found.traced) == len(words), found.traced
    assert all(word in line for word, line in zip(words, found.traced, strict=True))


def command(folder: Path, line: str, *more: str) -> Run:
    return run(folder, "-m", "resynth_fast.cli", *line.split(), *more)


@pytest.mark.slow
@pytest.mark.parametrize("backend", backends.names())
def test_a_verdict_stays_on_the_machine(tmp_path: Path, backend: str) -> None:
    options = f"-c zoo:zoo-sd -c zoo:zoo-flux --references 1 --steps 4 --backend {backend} --report page.html"
    found = command(tmp_path, f"attribute {options}", str(ROOT / "examples" / "07.png"))
    assert not found.leaks(), "\n".join(found.leaks())
    if "cannot be used" in found.done.stderr:
        pytest.skip(found.done.stderr.strip())
    assert found.done.returncode == 0, found.done.stderr
    assert (tmp_path / "work" / "page.html").stat().st_size > 1000


@pytest.mark.slow
def test_doctor_stays_on_the_machine_and_says_so(tmp_path: Path) -> None:
    found = command(tmp_path, "doctor --json")
    assert not found.leaks(), "\n".join(found.leaks())
    findings = json.loads(found.done.stdout)
    assert findings["network"].startswith("only addresses that you name; telemetry of onnxruntime")
    assert findings["cache_folder"] == str(tmp_path / "home" / ".cache" / "resynth-fast")


def test_a_library_that_was_imported_too_early_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "_started", [])
    for library in ("onnxruntime", "openvino_telemetry"):
        monkeypatch.setitem(sys.modules, library, ModuleType(library))
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    telemetry.switch_off()
    assert telemetry.started() == ("onnxruntime", "openvino")
    assert _network() == "telemetry of onnxruntime, openvino is on: imported before resynth_fast; import resynth_fast first"
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1", "whatever the environment said"


@pytest.mark.slow
def test_an_evaluation_stays_on_the_machine(tmp_path: Path) -> None:
    """With its cache of features and its plots, whose library has a cache of its own."""
    draw = np.random.default_rng(0)
    for prompt in range(4):
        for generator in range(2):
            folder = tmp_path / "work" / "set" / f"prompt{prompt}" / f"generator{generator}"
            folder.mkdir(parents=True)
            for number in range(2):
                noise = draw.normal(128, 20 + 40 * generator, (64, 64, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(noise).resize((128, 128)).save(folder / f"{number}.png")
    found = command(tmp_path, "evaluate set --references 1 --recipe one-shot --draws 1 --out page --format json")
    assert found.done.returncode == 0, found.done.stderr
    assert not found.leaks(), "\n".join(found.leaks())
    assert list((tmp_path / "home" / ".cache" / "resynth-fast" / "features").glob("*.npz"))
