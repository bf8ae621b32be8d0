"""Measures a fresh clone, its removal, and the bare system calls of both."""

import json

from .bench import snapshots
from .race import COLD, ONCE, ONLY_WARM, WARM, Entrant, Unconfined
from .report import LIMIT_HEADER, RACE_HEADER, STATES, limit_rows, race_rows, table
from .run import Failure, run


class Clone(Entrant):
    """Times `command LIVE NEW`, then `removal NEW` if there is one."""

    def __init__(self, label, bench, live, command, removal=None, at_most=None):
        self.label, self.bench, self.live = label, bench, live
        self.command, self.removal = command, removal
        self.at_most = at_most or {}
        self.new = bench.disk.mount / "new"
        self.is_checked = False

    def turn(self, timed):
        self.make(timed)
        new = self.made()
        if not self.is_checked:
            self.bench.expect_same(self.live, new)
            self.is_checked = True
        if self.removal:
            label, *command = self.removal
            timed("removal", label, [[*command, str(new)]])
            if new.exists():
                raise Failure(f"{label} did not remove {new}")
        else:
            self.bench.remove(new)

    def make(self, timed):
        timed("clone", self.label, [[*self.command, str(self.live), str(self.new)]])

    def made(self):
        return self.new


class RsyncClone(Clone):
    """rsync needs slashes after the directories."""

    def make(self, timed):
        timed("clone", self.label, [[*self.command, f"{self.live}/", f"{self.new}/"]])


class FirstSnapshot(Clone):
    """A whole process of rsyncd-snapshot: the first snapshot in a new root."""

    def make(self, timed):
        remains = self.live.parent / ".rsyncd-snapshot"
        if remains.exists():
            self.bench.remove(remains)
        memory = self.bench.scratch / "memory"
        command, env = self.bench.ours(memory, "snapshot", str(self.live))
        timed("clone", self.label, [command], env=env, syncs_itself=True)

    def made(self):
        root = self.live.parent
        names = snapshots(root)
        if len(names) != 1:
            raise Failure(f"{self.label} made {len(names)} snapshots in {root} instead of 1")
        return root / names[0]


def clone(bench):
    """Tables of a first snapshot, of its removal, and of what the bare system calls cost."""
    live = bench.make_root("root")
    # There are no snapshots yet, so the module is all that can be warm or cold.
    results = bench.race.run(entrants(bench, live), (WARM, COLD))
    tables = (("clone", "cp -al", "a first snapshot"), ("removal", "rm -rf", "a removal"))
    for name, baseline, title in tables:
        times = results[name]
        for state in (WARM, COLD):
            rows = race_rows(times, [times[baseline]], state, entries=bench.tree.entries)
            yield f"{title}, {STATES[state]}", table(RACE_HEADER, rows)
    if not bench.is_large:
        yield "bare system calls", table(LIMIT_HEADER, limit_rows(limits(bench, live)))


def entrants(bench, live):
    """The tools that take part; on a large tree, only the most important peers."""
    tools, bare_loop = bench.tools, str(bench.tools.bare_loop)
    our_removal = ["rsyncd-snapshot", bare_loop, "remove"]
    chosen = [FirstSnapshot("rsyncd-snapshot", bench, live, None, our_removal)]
    if tools.has_landlock():
        chosen.append(Unconfined(FirstSnapshot("rsyncd-snapshot", bench, live, None)))
    if not bench.is_large:
        alone = [bare_loop, "clone"]
        chosen.append(Clone("its clone alone", bench, live, alone, at_most=ONLY_WARM))
    chosen.append(Clone("cp -al", bench, live, ["cp", "-al"], ["rm -rf", "rm", "-rf"]))
    if tools.has("cpz") and tools.has("rmz"):
        pair = [tools.paths["cpz"], "-l"], ["rmz", tools.paths["rmz"]]
        at_most = ONLY_WARM if bench.is_large else None
        chosen.append(Clone("cpz -l", bench, live, *pair, at_most=at_most))
    if tools.has("rsync") and not bench.is_large:
        link_dest = [tools.paths["rsync"], "-a", f"--link-dest={live}/"]
        chosen.append(RsyncClone("rsync -a --link-dest", bench, live, link_dest, at_most=ONCE))
    return chosen


def limits(bench, live):
    """The times of the bare system calls."""
    bench.disk.sync()
    mirror = bench.disk.mount / "mirror"
    return json.loads(run([str(bench.tools.bare_loop), "limits", str(live), str(mirror)]))
