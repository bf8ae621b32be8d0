"""Runs tools in turn, rsyncd-snapshot and its peers, in each state of the caches, with equal work.

Each round runs each tool once. So whatever else the machine does hits all of them alike.
"""

import re
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from .run import Failure, environment, measure, run, say, tail

# The states of the caches.
WARM, MODULE_WARM, COLD = "warm", "module warm", "cold"
# The most runs of slow entrants, by state; without a number, one in each round.
ONCE = {WARM: 1, MODULE_WARM: 0, COLD: 0}
ONLY_WARM = {MODULE_WARM: 0, COLD: 0}

# The row of the same program, run without Landlock, ends with this.
LANDLOCK_OFF = ", Landlock off"

# Debug lines of rsyncd-snapshot.
DECIDED = re.compile(r"decided ([0-9.]+) ms after the start")
CONFINED = "changes nothing but its roots"


@dataclass
class Measured:
    """One run."""

    seconds: float
    # With a final sync.
    synced: float
    processor_seconds: float
    # Milliseconds from the start of rsyncd-snapshot until it knew what had changed.
    decided: float | None = None


@dataclass
class Times:
    """The runs of one entrant."""

    runs: dict = field(default_factory=lambda: {WARM: [], MODULE_WARM: [], COLD: []})
    peak_kib: int = 0

    def values(self, state, name):
        """One value of each run that counts: the first warm one only if it is the only one."""
        runs = self.runs[state]
        runs = runs[1:] or runs if state == WARM else runs
        values = [getattr(one, name) for one in runs]
        return [value for value in values if value is not None]

    def median(self, state, name):
        values = self.values(state, name)
        return statistics.median(values) if values else None


class Entrant:
    """A tool, or a mode of one, that takes part in a race."""

    # The most runs, by state; without a number, one in each round.
    at_most = {}
    # The live tree.
    live = None

    def turn(self, timed):
        """Prepares, times the commands, checks their result, and restores.

        `timed(table, label, commands, env=None, syncs_itself=False, hides_landlock=False)` runs
        the commands one after the other, for the row `label` of a table.
        """
        raise NotImplementedError


class Unconfined(Entrant):
    """The turns of another entrant, while the kernel answers as one without Landlock."""

    def __init__(self, confined):
        self.confined, self.live, self.at_most = confined, confined.live, confined.at_most

    def turn(self, timed):
        def timed_without_landlock(table, label, commands, **options):
            timed(table, label + LANDLOCK_OFF, commands, hides_landlock=True, **options)

        self.confined.turn(timed_without_landlock)


def untimed(_table, _label, commands, env=None, **_):
    """In place of `timed`, for a turn that is not measured."""
    for command in commands:
        run(command, env=environment(env))


@dataclass
class Race:
    """How often, where, and how entrants are measured."""

    disk: object
    log: Path
    # The fewest and most rounds that count, in each state of the caches.
    least: int
    most: int
    # Further rounds than the fewest start only within so many seconds.
    patience: float

    def run(self, entrants, states=(WARM, MODULE_WARM, COLD)):
        """The times by table and label."""
        results = {}
        for state in states:
            for number in self._rounds(state):
                for entrant in in_turn(entrants, number):
                    if number < entrant.at_most.get(state, number + 1):
                        watch = Watch(self, results, state, entrant.live,
                                      measures_memory=state == WARM and number == 0)
                        self._turn(entrant, watch)
        return results

    def _rounds(self, state):
        """The numbers of the rounds: the fewest, and each further one that will end in time."""
        # A first warm round only warms up, unless it stays the only one.
        extra = 1 if state == WARM and self.most > 1 else 0
        began = time.monotonic()
        for number in range(self.most + extra):
            yield number
            done = number + 1
            mean = (time.monotonic() - began) / done
            is_late = mean * (done + 1) > self.patience
            if is_late and (done - extra if done > 1 else done) >= self.least:
                return

    def _turn(self, entrant, watch):
        try:
            entrant.turn(watch.time)
        except Failure as failure:
            raise Failure(f"{failure}\n{tail(self.log)}".rstrip()) from None


def in_turn(entrants, number):
    """The order of a round, such that each entrant comes before and after each other one."""
    first = (number // 2) % len(entrants)
    order = entrants[first:] + entrants[:first]
    return order if number % 2 == 0 else order[::-1]


@dataclass
class Watch:
    """Measures the turn of one entrant."""

    race: Race
    results: dict
    state: str
    live: Path
    measures_memory: bool

    def time(self, table, label, commands, env=None, syncs_itself=False, hides_landlock=False):
        disk, log = self.race.disk, self.race.log
        times = self.results.setdefault(table, {}).setdefault(label, Times())
        disk.settle()
        self._prepare_caches()
        under_time = self._report_of_peaks() if self.measures_memory else []
        seconds, processor_seconds = measure(
            [[*under_time, *command] for command in commands], log, env, hides_landlock)
        if self.measures_memory:
            peaks = self._peaks().read_text().split()
            times.peak_kib = max(int(line) for line in peaks)
        synced = seconds
        if not syncs_itself:
            start = time.perf_counter()
            disk.sync()
            synced += time.perf_counter() - start
        output = log.read_text(errors="replace")
        if hides_landlock and CONFINED in output:
            raise Failure(f"{label} was confined by Landlock")
        decided = DECIDED.findall(output)
        times.runs[self.state].append(Measured(
            seconds, synced, processor_seconds, float(decided[-1]) if decided else None))
        say(f"   {table}, {self.state}: {label} {seconds:.3f} s, synced {synced:.3f} s, "
            f"{processor_seconds:.3f} s of a processor")

    def _prepare_caches(self):
        if self.state == WARM:
            return
        self.race.disk.cool()
        if self.state == MODULE_WARM:
            # As rsync has just done, this reads each directory and the attributes of each entry.
            run(["du", "--summarize", str(self.live)])

    def _peaks(self):
        return self.race.log.with_suffix(".peak")

    def _report_of_peaks(self):
        # The peak of a process includes that of its parent at the fork, and Python is large.
        self._peaks().write_text("")
        return ["/usr/bin/time", "--quiet", "--append", "--format=%M", f"--output={self._peaks()}"]
