"""What all sections have in common: one tree on one fresh file system."""

import os
from pathlib import Path

from .run import Failure, run
from .trees import count_entries

# What the program keeps in the cycle: the newest snapshots, whatever the clock says.
KEPT = 2
POLICY = f"""[defaults]
keep = {{ minutely = 1 }}
prefer = "newest"
min_keep = {KEPT}
min_age = "0s"
"""


class Bench:
    """One tree on one fresh file system."""

    def __init__(self, tools, tree, disk, race, scratch):
        self.tools, self.tree, self.disk, self.race = tools, tree, disk, race
        self.scratch = Path(scratch)
        self.policy = self.scratch / "policy.toml"
        self.policy.write_text(POLICY)
        self.conf = self.scratch / "rsyncd.conf"
        self.conf.write_text("")

    def ours(self, memory, *arguments):
        """Our command, and the environment that keeps what it remembers in the scratch directory."""
        env = {"RSYNCD_SNAPSHOT_STATE_DIRECTORY": str(memory / "state"),
               "RSYNCD_SNAPSHOT_RUNTIME_DIRECTORY": str(memory / "run")}
        for directory in env.values():
            os.makedirs(directory, mode=0o700, exist_ok=True)
        command = [str(self.tools.program), "--config", str(self.policy), "--rsyncd-conf", str(self.conf)]
        return [*command, *arguments], env

    def make_root(self, name):
        """A root of ours with the tree as its module; returns the module."""
        root = self.disk.mount / name
        root.mkdir(mode=0o700)
        self.tree.make(str(root / "latest"))
        self.disk.sync()
        return root / "latest"

    def expect_entries(self, root):
        found = count_entries(root)
        if found != self.tree.entries:
            raise Failure(f"{root} has {found} entries instead of {self.tree.entries}")

    def remove(self, path):
        """Quickly, and not measured."""
        command = [self.tools.paths["rmz"]] if self.tools.has("rmz") else ["rm", "-r"]
        run([*command, "-f", str(path)])


def snapshots(root):
    """The names of the snapshots in a root of ours, oldest first."""
    return sorted(name for name in os.listdir(root) if name[0].isdigit())
