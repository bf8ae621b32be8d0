"""Counts the system calls of a cycle beside the fewest that its work takes."""

import re

from .cycle import HookChain
from .report import table
from .run import Failure, environment, run, say

# What is counted together.
GROUPS = {
    "link": {"link", "linkat"},
    "unlink": {"unlink", "unlinkat", "rmdir"},
    "rename": {"rename", "renameat", "renameat2"},
    "make directory": {"mkdir", "mkdirat"},
    "list directory": {"getdents", "getdents64"},
    "open": {"open", "openat", "openat2"},
    "stat": {"stat", "lstat", "fstat", "newfstatat", "statx"},
    "extended attributes": {name.format(prefix) for prefix in ("", "l", "f")
                            for name in ("{}listxattr", "{}getxattr", "{}setxattr")}
                           | {"listxattrat", "syscall_0x1d1"},  # an older strace lacks its name
    "mode, owner, times": {"chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchown",
                           "fchownat", "utimensat"},
    "close": {"close", "close_range"},
    "wait for threads": {"futex", "sched_yield"},
}
OTHER = "all other calls"
HEADER = ["", "calls", "per changed name", "floor", "floor per changed name", "times the floor"]

# A line of `strace -c`: share, seconds, microseconds per call, calls, errors if any, name.
COUNT = re.compile(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$")


def calls(bench, percents):
    """The table of the system calls by the share of files that changed."""
    chain = HookChain("rsyncd-snapshot", bench, "ours")
    rows = []
    for percent in sorted(percents):
        say(f"   {percent} % changed")
        chain.settle(percent)
        counts = counts_of_a_turn(chain)
        chain.check()
        changed = sum(len(numbers) for numbers in chain.share.values())
        floor = floor_of(bench.tree, changed, len(chain.share))
        rows += call_rows(counts, floor, changed, f"{percent} %: ")
    yield "system calls of a cycle", table(HEADER, rows)


def counts_of_a_turn(chain):
    """The calls by name."""
    summary = chain.bench.scratch / "calls"

    def counted(_table, _label, commands, env=None, **_):
        for command in commands:
            strace = ["strace", "--follow-forks", "--summary-only", f"--output={summary}"]
            run([*strace, *command], env=environment(env))

    chain.turn(counted)
    found = [COUNT.match(line) for line in summary.read_text().splitlines()]
    counts = {one[2]: int(one[1]) for one in found if one and one[2] != "total"}
    if not counts:
        raise Failure(f"strace counted nothing:\n{summary.read_text()}")
    return counts


def floor_of(tree, changed, changed_directories):
    """The fewest calls of each group that make a true snapshot and expire one.

    Each live directory is looked at once. Each changed name is linked, looked at and unlinked.
    Each changed directory is opened and read on both sides, live and recycled, where a second call
    finds the end; then the recycled one gets its times back.
    """
    both_sides = 2 * changed_directories
    return {
        "link": changed,
        "unlink": changed,
        "list directory": 2 * both_sides,
        "open": both_sides,
        "stat": len(tree.directories) + changed,
        "mode, owner, times": changed_directories,
    }


def call_rows(counts, floor, changed, prefix):
    """One row per group that has calls or a floor, and their sum."""
    group_of = {name: group for group, names in GROUPS.items() for name in names}
    grouped = dict.fromkeys([*GROUPS, OTHER], 0)
    for name, count in counts.items():
        grouped[group_of.get(name, OTHER)] += count
    grouped["sum"] = sum(grouped.values())
    floor = {**floor, "sum": sum(floor.values())}
    rows = []
    for group, count in grouped.items():
        least = floor.get(group, 0)
        if count or least:
            rows.append([prefix + group, f"{count:,}", ratio(count, changed), f"{least:,}",
                         ratio(least, changed), ratio(count, least)])
    return rows


def ratio(dividend, divisor):
    return f"{dividend / divisor:.2f}" if divisor else ""
