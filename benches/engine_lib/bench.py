"""What all sections share: one tree on one new file system."""

import os
import shutil
from pathlib import Path

from .run import Failure, run

# How many snapshots the policy keeps.
KEPT = 1
# With the default grace of 6 hours, a run of a busy module recycles a snapshot that was retired 6
# hours ago. Without a grace, each run here does the same work at once. A debug line tells when the
# program knew what had changed.
POLICY = f"""[defaults]
keep = {{ minutely = 1 }}
prefer = "newest"
min_keep = {KEPT}
min_age = "0s"
grace = "0s"
log_level = "debug"
"""

# Trees with more entries take minutes, so fewer tools take part, with fewer rounds.
LARGE = 400_000


class Bench:
    """One tree on one new file system."""

    def __init__(self, tools, tree, disk, race, scratch):
        self.tools, self.tree, self.disk, self.race = tools, tree, disk, race
        self.scratch = Path(scratch)
        self.is_large = tree.entries > LARGE
        self.policy = self.scratch / "policy.toml"
        self.policy.write_text(POLICY)
        self.conf = self.scratch / "rsyncd.conf"
        self.conf.write_text("")

    def with_tree(self, tree):
        """The same for another tree on the same file system."""
        return Bench(self.tools, tree, self.disk, self.race, self.scratch)

    def ours(self, memory, *arguments):
        """A command of rsyncd-snapshot, and the environment that keeps its memory in `memory`."""
        env = {"RSYNCD_SNAPSHOT_STATE_DIRECTORY": str(memory / "state"),
               "RSYNCD_SNAPSHOT_RUNTIME_DIRECTORY": str(memory / "run")}
        for directory in env.values():
            shutil.rmtree(directory, ignore_errors=True)
            os.makedirs(directory, mode=0o700)
        settings = ["--config", str(self.policy), "--rsyncd-conf", str(self.conf)]
        return [str(self.tools.program), *settings, *arguments], env

    def make_root(self, name, is_subvolume=False):
        """Makes a snapshot root with the tree as its module; returns the module."""
        root = self.disk.mount / name
        root.mkdir(mode=0o700)
        if is_subvolume:
            run(["btrfs", "-q", "subvolume", "create", str(root / "latest")])
        self.tree.make(str(root / "latest"))
        self.disk.sync()
        return root / "latest"

    def expect_same(self, live, copy):
        """Fails unless both trees have equal names and, except for directories, equal inodes."""
        entries = 0
        pending = [(live, copy)]
        while pending:
            pair = pending.pop()
            inodes, found = (inodes_in(directory) for directory in pair)
            if inodes != found:
                raise Failure(f"the {len(found)} entries of {pair[1]} are not the {len(inodes)} "
                              f"entries of {pair[0]}")
            entries += len(inodes)
            pending += [tuple(os.path.join(directory, name) for directory in pair)
                        for name, inode in inodes.items() if inode is None]
        if entries != self.tree.entries:
            raise Failure(f"{live} has {entries} entries instead of {self.tree.entries}")

    def remove(self, path):
        """Removes a tree without measuring it."""
        run([str(self.tools.bare_loop), "remove", str(path)])


def inodes_in(directory):
    """The inodes by name; `None` for directories."""
    with os.scandir(directory) as entries:
        return {entry.name: None if entry.is_dir(follow_symlinks=False) else entry.inode()
                for entry in entries}


def snapshots(root):
    """The names of the snapshots in a root, oldest first."""
    return sorted(name for name in os.listdir(root) if name[0].isdigit())
