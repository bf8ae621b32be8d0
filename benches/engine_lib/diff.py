"""Measures `diff` by the share of files that changed, beside rsync, which has to look at each."""

from .bench import snapshots
from .cycle import HookChain, with_landlock_off
from .race import COLD, ONCE, WARM, Entrant, untimed
from .report import RACE_HEADER, STATES, race_rows, table
from .run import say

BASELINE = "rsync -ani --delete"
# What is compared with the newest snapshot, or with the one before.
LIVE, SNAPSHOT = "the module", "the next snapshot"


class Diff(Entrant):
    """Compares two trees, and changes nothing."""

    def __init__(self, label, bench, name, command, env=None):
        self.label, self.bench, self.name = label, bench, name
        self.command, self.env = command, env
        self.at_most = ONCE if bench.is_large and label == BASELINE else {}

    def turn(self, timed):
        timed(self.name, self.label, [self.command], env=self.env, syncs_itself=True)


def diff(bench, percents):
    """The tables of a comparison with the module, and of one of two snapshots."""
    chain = HookChain("rsyncd-snapshot", bench, "compared")
    rows = {}
    for percent in sorted(percents):
        say(f"   {percent} % changed")
        chain.settle(percent)
        chain.bench.tree.replace(str(chain.live), chain.share)
        old, new = chain.root / snapshots(chain.root)[-1], chain.live
        measure(bench, rows, percent, LIVE, (old, new), [old.name, "live"])
        if not percent:
            continue
        command, env = bench.ours(bench.scratch / "by-hand", "snapshot", str(chain.live),
                                  "--no-rotate")
        untimed(None, None, [command], env=env)
        old, new = (chain.root / name for name in snapshots(chain.root)[-2:])
        measure(bench, rows, percent, SNAPSHOT, (old, new), [old.name, new.name])
    for name in (LIVE, SNAPSHOT):
        for state in (WARM, COLD):
            in_order = [row for percent in sorted(percents)
                        for row in rows.get((name, state, percent), [])]
            yield f"diff of a snapshot and {name}, {STATES[state]}", table(RACE_HEADER, in_order)


def measure(bench, rows, percent, name, trees, words):
    old, new = trees
    root = old.parent
    command, env = bench.ours(bench.scratch / "compares", "diff", str(root), *words)
    ours = Diff("rsyncd-snapshot", bench, name, command, env)
    entrants = with_landlock_off(ours)
    if bench.tools.has("rsync"):
        peer = [bench.tools.paths["rsync"], "-ani", "--delete", f"{new}/", f"{old}/"]
        entrants.append(Diff(BASELINE, bench, name, peer))
    times = bench.race.run(entrants, (WARM, COLD))[name]
    bases = [times[BASELINE]] if BASELINE in times else []
    for state in (WARM, COLD):
        rows[name, state, percent] = race_rows(times, bases, state, f"{percent} %: ")
