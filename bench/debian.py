"""Debian's packages, unpacked into a cache folder and never installed: nothing of them starts."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path


class NotToBeHad(Exception):
    """Raised when Debian's archive does not give the packages; the text says why."""


def cache() -> Path:
    """The folder where programs of others are kept, for tests and benchmarks alike."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "relay-bench"


def lacks_commands(what: str) -> str:
    """Why nothing can be unpacked here; empty: it can. `what` names the program it is for."""
    for command in ("apt-get", "dpkg-deb"):
        if shutil.which(command) is None:
            return f"the command {command} is missing: {what} is taken from Debian's package"
    return ""


def unpacked(name: str, *packages: str) -> Path:
    """The folder `name` of the cache with these packages in it, as if it were `/`.

    They are fetched where they are not there yet, without what they depend on. Two processes may
    ask at once: one fetches, the other waits.
    """
    cache().mkdir(parents=True, exist_ok=True)
    root, wanted = cache() / name, " ".join(packages)
    with (cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        complete = root / "complete"
        if not complete.is_file() or complete.read_text() != wanted:
            with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=cache()) as folder:
                fresh = _unpack(Path(folder), packages)
                (fresh / "complete").write_text(wanted)
                shutil.rmtree(root, ignore_errors=True)
                fresh.rename(root)
    return root


def _unpack(folder: Path, packages: tuple[str, ...]) -> Path:
    download = ["apt-get", "-o", "APT::Sandbox::User=root", "download", *packages]
    fetched = subprocess.run(download, cwd=folder, check=False, capture_output=True, text=True)
    if fetched.returncode:  # a machine whose lists of packages are old, or were never fetched
        subprocess.run(["apt-get", "update", "-qq"], check=False, capture_output=True)
        fetched = subprocess.run(download, cwd=folder, check=False, capture_output=True, text=True)
    if fetched.returncode:
        raise NotToBeHad(f"Debian's {packages[0]} cannot be had: {fetched.stderr.strip()[-200:]}")
    root = folder / "root"
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
    if (root / "lib").is_dir():  # /lib is /usr/lib
        shutil.copytree(root / "lib", root / "usr/lib", dirs_exist_ok=True, symlinks=True)
    root.chmod(0o755)
    return root
