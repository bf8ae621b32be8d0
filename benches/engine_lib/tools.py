"""Finds, installs and names the tools of the benchmark."""

import ctypes
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from .run import Failure, heading, run, say
from .stopwatch import LANDLOCK_CREATE_RULESET

PROJECT = Path(__file__).resolve().parent.parent.parent
PYTHON_PACKAGES = ["rsync-system-backup==1.1", "rotate-backups==8.1"]
CRATES = ("cpz", "rmz")
PEERS = ("rsync", *CRATES, "python")
MKFS_PACKAGES = {"ext4": "e2fsprogs", "xfs": "xfsprogs", "btrfs": "btrfs-progs"}


class Tools:
    """The paths of rsyncd-snapshot and of the peers that take part."""

    def __init__(self, without, build_peers):
        target = Path(os.environ.get("CARGO_TARGET_DIR") or "target")
        self.target = target if target.is_absolute() else PROJECT / target
        self.home = self.target / "engine-peers"
        self.program = self.target / "release" / "rsyncd-snapshot"
        self.bare_loop = self.target / "release" / "examples" / "bare_loop"
        self.commit = None
        self.paths = {}
        wanted = [name for name in PEERS if name not in without]
        if build_peers:
            missing = [name for name in wanted if not self._find(name)]
            self._install_crates([name for name in missing if name in CRATES])
            if "python" in missing:
                self._install_python()
        for name in wanted:
            if path := self._find(name):
                self.paths[name] = path
            else:
                say(f"{name} is not installed and takes no part")

    def has(self, name):
        return name in self.paths

    def has_landlock(self):
        """Whether the kernel confines rsyncd-snapshot, so that a run without that differs."""
        return landlock_version() > 0

    def build_ours(self):
        heading("Building rsyncd-snapshot")
        if not shutil.which("cargo"):
            raise Failure("no cargo found. Install a Rust toolchain: https://rustup.rs")
        build = ["cargo", "build", "--release", "--locked", "--quiet", "--bins"]
        run([*build, "--example", "bare_loop", "--target-dir", str(self.target)], cwd=PROJECT)
        self.commit = commit()

    def _find(self, name):
        """The path of a peer: in PATH, or where the benchmark installs it."""
        if name == "python":
            return shutil.which(f"{self.home}/venv/bin/rsync-system-backup")
        return shutil.which(name) or shutil.which(f"{self.home}/bin/{name}")

    def _install_crates(self, crates):
        if not crates:
            return
        heading(f"Building {' and '.join(crates)}")
        try:
            run(["cargo", "install", "--quiet", "--locked", "--root", str(self.home), *crates])
        except Failure as failure:
            raise Failure(f"{failure}\nDo without: --without {','.join(crates)}") from None

    def _install_python(self):
        heading(f"Installing {' and '.join(PYTHON_PACKAGES)}")
        venv = self.home / "venv"
        try:
            run([sys.executable, "-m", "venv", "--clear", str(venv)])
            pip = [str(venv / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
            run([*pip, *PYTHON_PACKAGES])
        except Failure as failure:
            raise Failure(f"{failure}\nDo without: --without python") from None

    def versions(self, file_systems):
        """The versions, one line per tool."""
        ours = run([str(self.program), "-V"]).strip()
        lines = [f"{ours}, {self.program.stat().st_size // 1024} KiB",
                 first_line(["cp", "--version"])]
        if self.has("rsync"):
            lines.append(" ".join(first_line(["rsync", "--version"]).split()[:3]))
        lines += [first_line([self.paths[name], "--version"]) for name in CRATES if self.has(name)]
        if self.has("python"):
            lines.append(", ".join(package.replace("==", " ") for package in PYTHON_PACKAGES))
        for file_system in file_systems:
            lines.append(first_line([f"mkfs.{file_system}", "-V"]))
        return lines


def install_packages(file_systems, without, build_peers):
    """Installs missing Debian packages. Without apt-get it names them."""
    needed = {f"mkfs.{name}": MKFS_PACKAGES[name] for name in file_systems}
    needed |= {"mount": "mount", "losetup": "mount", "unshare": "util-linux",
               "/usr/bin/time": "time", "cc": "gcc", "strace": "strace"}
    if "rsync" not in without:
        needed["rsync"] = "rsync"
    missing = {package for tool, package in needed.items() if not shutil.which(tool)}
    if build_peers and "python" not in without and not importlib.util.find_spec("ensurepip"):
        missing.add("python3-venv")
    if not missing:
        return
    packages = sorted(missing)
    install = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if not shutil.which("apt-get"):
        raise Failure(f"missing: {' '.join(packages)} (names of Debian's packages)")
    heading(f"Installing {' '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        run(["apt-get", "update", "-qq"], env=environment)
        run(install, env=environment)
    except Failure as failure:
        hint = f"Install them by hand: {' '.join(install)}; or leave a peer out with --without"
        raise Failure(f"{failure}\n{hint}") from None


def first_line(command):
    # Some print their version to standard error.
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False)
    return done.stdout.strip().partition("\n")[0]


def machine():
    """The machine, in one line."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    version = landlock_version()
    landlock = f"Landlock version {version}" if version > 0 else "no Landlock"
    return (f"{cores} of {os.cpu_count()} cores ({processor()}), {memory:.0f} GiB of memory, "
            f"kernel {platform.release()} ({platform.machine()}) with {landlock}")


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    names = {key.strip(): value.strip() for key, value in fields.items()}
    return names.get("model name") or names.get("vendor_id") or platform.processor() or "unknown"


def landlock_version():
    """The version of Landlock that the kernel offers; below 1 if it offers none."""
    asks_for_version = 1
    return ctypes.CDLL(None).syscall(LANDLOCK_CREATE_RULESET, None, 0, asks_for_version)


def commit():
    """The commit of the project that is measured, and whether the files differ from it."""
    try:
        name = run(["git", "rev-parse", "--short=12", "HEAD"], cwd=PROJECT).strip()
        changes = run(["git", "status", "--porcelain", "--untracked-files=no"], cwd=PROJECT)
    except Failure:
        return "of an unknown commit"
    return f"of commit {name}" + (" with changes that are not committed" if changes else "")
