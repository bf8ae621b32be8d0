"""Measures how time and memory grow from a tenth of a tree to the whole of it."""

from .cycle import HookChain, with_landlock_off
from .race import LANDLOCK_OFF, ONCE, WARM, Entrant
from .report import fixed, mebibytes, quotient, spread, table, times_as_long
from .run import say

PERCENTS = (0, 0.1)
# Of each size.
COLUMNS = ["s", "min-max", "by Landlock", "decided ms", "peak MiB"]


class FirstTurn(Entrant):
    """The first snapshot of a chain."""

    at_most = ONCE

    def __init__(self, chain):
        self.chain, self.live = chain, chain.live

    def turn(self, timed):
        self.chain.turn(timed)


def scale(bench, tenth):
    """The table of a first snapshot and later ones, of the tree and of one like it.

    `tenth` has a tenth of the entries. Both are measured warm, as far as memory holds them.
    """
    trees = [tenth, bench.tree]
    measured = [times_of(bench.with_tree(tree), tree) for tree in trees]
    header = [""]
    for tree in trees:
        header += [f"{tree.entries:,} entries: {COLUMNS[0]}", *COLUMNS[1:]]
    header += ["times the entries", "times the seconds", "times the peak"]
    rows = []
    for label in measured[0]:
        if label.endswith(LANDLOCK_OFF):
            continue
        cells, grown = [label], []
        for times in measured:
            own = times[label]
            cells += cells_of(own, times.get(label + LANDLOCK_OFF))
            grown.append((own.median(WARM, "seconds"), own.peak_kib))
        (before, peak_before), (after, peak_after) = grown
        factor = quotient(bench.tree.entries, tenth.entries)
        cells += [factor, quotient(after, before), quotient(peak_after, peak_before)]
        rows.append(cells)
    yield "growth", table(header, rows)


def times_of(bench, tree):
    """The times by label."""
    say(f"   {tree.entries:,} entries")
    chain = HookChain("first snapshot", bench, f"entries-{tree.entries}")
    results = dict(bench.race.run([FirstTurn(chain)], (WARM,))["cycle"])
    for percent in PERCENTS:
        chain.label = f"{percent} % changed" if percent else "nothing changed"
        chain.settle(percent)
        results |= bench.race.run(with_landlock_off(chain), (WARM,))["cycle"]
        chain.check()
    return results


def cells_of(own, without_landlock):
    return [
        fixed(own.median(WARM, "seconds"), 3),
        spread(own.values(WARM, "seconds")),
        times_as_long(own, without_landlock, WARM, "seconds"),
        fixed(own.median(WARM, "decided"), 1),
        mebibytes(own.peak_kib),
    ]
