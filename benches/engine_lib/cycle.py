"""Measures the cycle in steady state: one snapshot made, one removed, by the share of changes."""

import time

from .bench import KEPT, snapshots
from .race import ONCE, ONLY_WARM, Entrant, Unconfined, untimed
from .report import RACE_HEADER, STATES, race_rows, table
from .run import Failure, say

BASELINE = "cp -al + rm -rf"


class Chain(Entrant):
    """A live tree, and turns that each make a snapshot of it and remove the one before.

    Before each turn an equal share of the files is replaced. So the live tree differs from each of
    its snapshots, the newest or a retired one that is recycled, by the same amount in each turn.
    """

    # How many earlier snapshots affect the work of a turn.
    depth = 1
    env = None
    syncs_itself = False
    # Whether the module is a btrfs subvolume.
    is_subvolume = False

    def __init__(self, label, bench, directory):
        self.label, self.bench = label, bench
        self.live = bench.make_root(directory, self.is_subvolume)
        self.root = self.live.parent
        self.share = {}

    def settle(self, percent):
        """Runs turns until all snapshots that affect the next turn were made with this share."""
        self.share = self.bench.tree.share(percent)
        for _ in range(self.depth - 1 if snapshots(self.root) else self.depth):
            self.turn(untimed)

    def turn(self, timed):
        self.bench.tree.replace(str(self.live), self.share)
        before, makes_one = snapshots(self.root), self.makes_one()
        timed("cycle", self.label, self.commands(), env=self.env, syncs_itself=self.syncs_itself)
        after = snapshots(self.root)
        if makes_one and (not after or after[-1] in before):
            raise Failure(f"{self.label} made no snapshot beside {before}")
        if not makes_one and after != before:
            raise Failure(f"nothing changed, but {self.label} left {after} of {before}")
        if len(after) > KEPT:
            raise Failure(f"{self.label} removed none of {after}")

    def makes_one(self):
        return True

    def check(self):
        """Fails unless the newest snapshot equals the live tree."""
        self.bench.expect_same(self.live, self.root / snapshots(self.root)[-1])


class CopyChain(Chain):
    """Times `copy LIVE NEW`, then `removal OLD`."""

    def __init__(self, label, bench, directory, copy, removal):
        super().__init__(label, bench, directory)
        self.copy, self.removal = copy, removal
        self.made = 0

    def commands(self):
        self.made += 1
        copy = [*self.copy, str(self.live), str(self.root / f"{self.made:03}")]
        return [copy, *([*self.removal, str(self.root / old)] for old in snapshots(self.root))]


class TimedChain(Chain):
    """A chain whose snapshot names have seconds."""

    busy_until = 0

    def turn(self, timed):
        # In the second of the last snapshot, the program would wait for the next second.
        while self.makes_one() and time.time() < self.busy_until:
            time.sleep(0.01)
        super().turn(timed)
        self.busy_until = int(time.time()) + 1


class HookChain(TimedChain):
    """The hook of rsyncd-snapshot, as rsyncd runs it after a transfer."""

    # The snapshot before the newest is retired, and recycled into the next one.
    depth = 2
    syncs_itself = True

    def __init__(self, label, bench, directory):
        super().__init__(label, bench, directory)
        self.command, memory = bench.ours(bench.scratch / directory)
        self.env = memory | {
            "RSYNC_MODULE_NAME": directory, "RSYNC_MODULE_PATH": str(self.live),
            "RSYNC_HOST_ADDR": "127.0.0.1", "RSYNC_HOST_NAME": "localhost", "RSYNC_USER_NAME": "",
            "RSYNC_PID": "1", "RSYNC_EXIT_STATUS": "0", "RSYNC_RAW_STATUS": "0",
        }

    def commands(self):
        return [self.command]

    def makes_one(self):
        return bool(self.share) or not snapshots(self.root)

    def settle(self, percent):
        super().settle(percent)
        if not percent:
            # Directories that changed just before the last snapshot are read once more.
            time.sleep(0.5)
            self.turn(untimed)


class SubvolumeChain(HookChain):
    """The same over a subvolume: no snapshot is recycled."""

    depth = 1
    is_subvolume = True


class SubvolumeCommands(CopyChain):
    """The commands of btrfs-progs, for a subvolume."""

    is_subvolume = True


class PythonChain(TimedChain):
    """The hook of rsync-system-backup 1.1 with rotate-backups; they keep one snapshot."""

    at_most = ONCE

    def __init__(self, label, bench, directory):
        super().__init__(label, bench, directory)
        home = bench.scratch / directory
        home.mkdir()
        settings = f"[{self.root}]\nminutely = {KEPT}\nprefer-recent = yes\n"
        (home / ".rotate-backups.ini").write_text(settings)
        self.env = {"HOME": str(home), "RSYNC_MODULE_PATH": str(self.live)}

    def commands(self):
        options = ["--snapshot", "--rotate", "--no-sudo", "--disable-notifications", "--quiet"]
        return [[self.bench.tools.paths["python"], *options]]


def cycle(bench, percents):
    """The tables of one snapshot made and one removed, by the share of files that changed."""
    # The peers always copy and remove everything, so the slow ones are timed at one share only.
    main = min((percent for percent in percents if percent >= 1), default=max(percents))
    ours, peers = chains(bench)
    rows, bases = {}, []
    for percent in sorted(percents, key=lambda percent: (percent != main, percent)):
        say(f"   {percent} % changed")
        is_main = percent == main
        others = peers if is_main or not bench.is_large else []
        if is_main and bench.tools.has("python") and not bench.is_large:
            others = [*others, PythonChain("rsync-system-backup", bench, "python")]
        for chain in peers:
            if chain.is_subvolume:
                continue
            chain.at_most = {} if is_main and not bench.is_large else ONLY_WARM
        for chain in [ours, *others]:
            chain.settle(percent)
        times = bench.race.run([*with_landlock_off(ours), *others])["cycle"]
        for chain in [ours, *others]:
            chain.check()
        # Without a run of the baseline at this share, the ratio uses the main share.
        bases = [times[BASELINE], *bases[-1:]] if BASELINE in times else bases
        for state in STATES:
            rows[state, percent] = race_rows(times, bases, state, f"{percent} %: ")
    for state, title in STATES.items():
        in_order = [row for percent in sorted(percents) for row in rows[state, percent]]
        yield f"a cycle: one snapshot made, one removed; {title}", table(RACE_HEADER, in_order)


def chains(bench):
    """The chain of rsyncd-snapshot, and the peers that take part at several shares."""
    tools = bench.tools
    peers = [CopyChain(BASELINE, bench, "cp", ["cp", "-al"], ["rm", "-rf"])]
    if tools.has("cpz") and tools.has("rmz") and not bench.is_large:
        copy, removal = [tools.paths["cpz"], "-l"], [tools.paths["rmz"]]
        peers.append(CopyChain("cpz -l + rmz", bench, "cpz", copy, removal))
    if bench.disk.file_system == "btrfs":
        command = ["btrfs", "-q", "subvolume"]
        peers += [
            SubvolumeChain("rsyncd-snapshot, subvolume", bench, "subvolume"),
            SubvolumeCommands("btrfs subvolume snapshot + delete", bench, "commands",
                              [*command, "snapshot", "-r"], [*command, "delete"]),
        ]
    return HookChain("rsyncd-snapshot", bench, "ours"), peers


def with_landlock_off(chain):
    """The chain, and its turns without Landlock where the kernel has it.

    Both work on the same tree in turn, so nothing but Landlock makes a difference.
    """
    return [chain, Unconfined(chain)] if chain.bench.tools.has_landlock() else [chain]
