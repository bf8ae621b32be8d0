"""The cycle in steady state: one snapshot made, one removed, by the share of files that changed."""

import os
import time

from .bench import KEPT, snapshots
from .race import Entrant, environment
from .report import RACE_HEADER, race_rows, table
from .run import Failure, run, say

# With this many cycles behind it, a chain recycles a snapshot that was made with the same changes.
WARM_UP_CYCLES = KEPT + 2


class Chain(Entrant):
    """A live tree of its own, a few snapshots of it, and a step that makes one and removes the oldest.

    Before each step the same share of the files is replaced. So with each of its snapshots, be it the
    newest or one that is retired and recycled, the live tree has exactly that difference.
    """

    def __init__(self, label, bench, directory):
        super().__init__(label)
        self.bench, self.live = bench, bench.make_root(directory)
        self.root = self.live.parent
        self.share = {}

    def prepare(self):
        self.bench.tree.replace(str(self.live), self.share)

    def settle(self, percent):
        """Steps until what the next one finds was all made with this share."""
        self.share = self.bench.tree.share(percent)
        for _ in range(WARM_UP_CYCLES):
            self.step()

    def step(self):
        self.prepare()
        for command in self.commands():
            run(command, env=environment(self))
        self.finish()


class CopyChain(Chain):
    """`copy LIVE NEW`, then `remove OLDEST`."""

    def __init__(self, label, bench, directory, copy, removal):
        super().__init__(label, bench, directory)
        self.copy, self.removal = copy, removal
        self.made = 0
        for _ in range(KEPT):
            run(self._copy())
            self.made += 1

    def _copy(self):
        return [*self.copy, str(self.live), str(self.root / str(self.made))]

    def commands(self):
        return [self._copy(), [*self.removal, str(self.root / str(self.made - KEPT))]]

    def finish(self):
        self.made += 1
        if len(snapshots(self.root)) != KEPT:
            raise Failure(f"{self.label} left {snapshots(self.root)}")


class TimedChain(Chain):
    """One whose snapshots are named by the second."""

    kept = KEPT
    expects_new = True
    busy_until = 0

    def prepare(self):
        super().prepare()
        self.before = snapshots(self.root)
        # In a second that has a snapshot the program would wait for the next one.
        while self.expects_new and time.time() < self.busy_until:
            time.sleep(0.01)

    def finish(self):
        self.busy_until = int(time.time()) + 1
        names = snapshots(self.root)
        if self.expects_new and (not names or names[-1] in self.before):
            raise Failure(f"{self.label} made no snapshot: {names}")
        if not self.expects_new and names != self.before:
            raise Failure(f"nothing changed, but {self.label} made {names} of {self.before}")
        if len(names) > self.kept:
            raise Failure(f"{self.label} expired nothing: {names}")


class HookChain(TimedChain):
    """Our hook, as rsyncd runs it after a transfer."""

    syncs_itself = True

    def __init__(self, label, bench, directory):
        super().__init__(label, bench, directory)
        self.command, memory = bench.ours(bench.scratch / directory)
        self.env = memory | {
            "RSYNC_MODULE_NAME": directory, "RSYNC_MODULE_PATH": str(self.live), "RSYNC_HOST_ADDR": "127.0.0.1",
            "RSYNC_HOST_NAME": "localhost", "RSYNC_USER_NAME": "", "RSYNC_PID": "1",
            "RSYNC_EXIT_STATUS": "0", "RSYNC_RAW_STATUS": "0",
        }

    def commands(self):
        return [self.command]

    def check(self):
        """Whether the newest snapshot is the live tree."""
        self.bench.expect_entries(self.root / snapshots(self.root)[-1])
        if not same_inodes(self.live, self.root / snapshots(self.root)[-1]):
            raise Failure(f"the newest snapshot in {self.root} differs from the live tree")


class PythonChain(TimedChain):
    """rsync-system-backup's own hook with rotate-backups, which keep one snapshot."""

    is_slow = True
    kept = 1

    def __init__(self, label, bench, directory):
        super().__init__(label, bench, directory)
        home = bench.scratch / directory
        home.mkdir()
        (home / ".rotate-backups.ini").write_text(f"[{self.root}]\nminutely = 1\nprefer-recent = yes\n")
        self.env = {"HOME": str(home), "RSYNC_MODULE_PATH": str(self.live)}

    def commands(self):
        options = ["--snapshot", "--rotate", "--no-sudo", "--disable-notifications", "--quiet"]
        return [[self.bench.tools.paths["python"], *options]]


def same_inodes(live, snapshot):
    """Whether both trees have the same names, with the same inodes for all but directories."""
    pending = [(live, snapshot)]
    while pending:
        pair = pending.pop()
        found = []
        for directory in pair:
            with os.scandir(directory) as entries:
                found.append({entry.name: None if entry.is_dir(follow_symlinks=False) else entry.inode()
                              for entry in entries})
        if found[0] != found[1]:
            return False
        pending += [(os.path.join(pair[0], name), os.path.join(pair[1], name))
                    for name, inode in found[0].items() if inode is None]
    return True


def cycle(bench, percents):
    """The table of one snapshot made and one removed, by the share of files that changed."""
    tools = bench.tools
    ours = HookChain("rsyncd-snapshot", bench, "ours")
    chains = [ours, CopyChain("cp -al + rm -rf", bench, "cp", ["cp", "-al"], ["rm", "-rf"])]
    if tools.has("cpz") and tools.has("rmz"):
        chains.append(CopyChain("cpz -l + rmz", bench, "cpz", [tools.paths["cpz"], "-l"], [tools.paths["rmz"]]))
    # One percentage is enough for what takes longest and depends on it least.
    python_percent = min((percent for percent in percents if percent >= 1), default=max(percents))
    rows = {}
    # Where nothing changes, something had to change before: that comes last.
    for percent in sorted(percents, key=lambda percent: percent or 101):
        say(f"   {percent} % changed: settling")
        taking_part = list(chains)
        if tools.has("python") and percent == python_percent and percent > 0:
            taking_part.append(PythonChain("rsync-system-backup", bench, "python"))
        for chain in taking_part:
            if percent or not chain.share:
                chain.settle(percent or 1)
            if not percent:
                chain.share = {}
        if not percent:
            ours.expects_new = False
            # What changed just before the last snapshot is looked at once more; on a quiet day that is long past.
            time.sleep(2)
            ours.step()
        times = bench.race.run(taking_part)
        ours.check()
        rows[percent] = race_rows(times, "cp -al + rm -rf", bench.tree.entries, f"{percent} %: ")
    rows = [row for percent in sorted(rows) for row in rows[percent]]
    yield "a cycle: one snapshot made, one removed", table(RACE_HEADER, rows)
