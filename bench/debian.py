"""Programs of Debian's packages, unpacked into a cache folder: nothing is installed."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

#: In an unpacked folder: what was asked for, and then each package with its version.
_LIST = "unpacked"
#: Why folders could not be filled: the archive is not asked again in the same process.
_failed: dict[Path, str] = {}


class PackagesUnavailable(RuntimeError):
    """Packages cannot be fetched: no network, no apt, or no such package."""


def unpacked(root: Path, *names: str) -> Path:
    """The folder `root` with the files of these packages and of what they need beyond the system's.

    It is filled once, by one process at a time. PackagesUnavailable says what apt said.
    """
    if root in _failed:
        raise PackagesUnavailable(_failed[root])
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _listed(root)[:1] != [" ".join(names)]:
            _fill(root, names)
    return root


def version(root: Path, name: str) -> str:
    """The version of an unpacked package, without Debian's revision: such as 3.7.11."""
    (line,) = (line for line in _listed(root)[1:] if line.startswith(f"{name}_"))
    return line.split("_")[1].rpartition("-")[0]


def _listed(root: Path) -> list[str]:
    path = root / _LIST
    return path.read_text().splitlines() if path.is_file() else []


def _fill(root: Path, names: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory(prefix="relay-packages-") as folder:
        (Path(folder) / "partial").mkdir()
        if error := _fetch(folder, names):  # lists of packages that are old, or were never fetched
            subprocess.run(["apt-get", "update", "-qq"], check=False, capture_output=True)
            error = _fetch(folder, names)
        if error:
            _failed[root] = f"Debian's packages {' '.join(names)} cannot be fetched: {error}"
            raise PackagesUnavailable(_failed[root])
        packages = sorted(Path(folder).glob("*.deb"))
        for package in packages:
            subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
    if (root / "lib").is_dir():  # /lib is /usr/lib
        subprocess.run(["cp", "-a", f"{root}/lib/.", f"{root}/usr/lib/"], check=True)
        shutil.rmtree(root / "lib")
    listed = [" ".join(names), *(package.name for package in packages)]
    (root / _LIST).write_text("\n".join(listed) + "\n")


def _fetch(folder: str, names: tuple[str, ...]) -> str:
    """Fetch packages and what they need that is not installed; what went wrong."""
    options = (
        f"Dir::Cache::archives={folder}",
        "Debug::NoLocking=1",
        "APT::Sandbox::User=root",
    )
    command = ["apt-get", "-qq", "-y", "install", "--download-only", "--reinstall"]
    command += ["--no-install-recommends", *(f"-o{option}" for option in options), *names]
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    fetched = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    return fetched.stderr.strip()[-300:] if fetched.returncode else ""
