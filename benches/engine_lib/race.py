"""Runs tools in turn, rsyncd-snapshot and its peers, warm and cold, with equal work."""

import os
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from .run import Failure, run, say, seconds_of, tail

WARM, COLD = "warm", "cold"
# The most runs of slow entrants, by temperature.
ONCE = {WARM: 1, COLD: 0}
ONLY_WARM = {COLD: 0}


@dataclass
class Times:
    """The times of one entrant."""

    # By temperature: pairs of seconds, without and with a final sync.
    seconds: dict = field(default_factory=lambda: {WARM: [], COLD: []})
    peak_kib: int = 0

    def median(self, temperature, synced):
        values = [pair[synced] for pair in self._counting(temperature)]
        return statistics.median(values) if values else None

    def range(self, temperature):
        values = [pair[0] for pair in self._counting(temperature)]
        return (min(values), max(values)) if values else None

    def _counting(self, temperature):
        """The runs that count: the first warm one only if it is the only one."""
        pairs = self.seconds[temperature]
        return pairs[1:] or pairs if temperature == WARM else pairs


class Entrant:
    """A tool, or a mode of one, that takes part in a race."""

    # The most runs, by temperature; without a number, one in each round.
    at_most = {}

    def turn(self, timed):
        """Prepares, times the commands, checks their result, and restores.

        `timed(table, label, commands, env=None, syncs_itself=False)` runs the commands one after the
        other, for the row `label` of a table.
        """
        raise NotImplementedError


def untimed(_table, _label, commands, env=None, syncs_itself=False):
    """In place of `timed`, for a turn that is not measured."""
    for command in commands:
        run(command, env=environment(env))


@dataclass
class Race:
    """How often, where, and how entrants are measured."""

    disk: object
    log: Path
    # The most rounds by temperature.
    most: dict
    # Further rounds start only within so many seconds.
    patience: float

    def run(self, entrants):
        """The times by table and label."""
        results = {}
        until = time.monotonic() + self.patience
        for temperature, most in self.most.items():
            for number in rounds(most, until):
                watch = Watch(self, results, temperature, measures_memory=temperature == WARM and number == 0)
                # The order rotates, so that no entrant always follows the same one.
                first = number % len(entrants)
                for entrant in entrants[first:] + entrants[:first]:
                    if number < entrant.at_most.get(temperature, most):
                        self._turn(entrant, watch)
        return results

    def _turn(self, entrant, watch):
        try:
            entrant.turn(watch.time)
        except Failure as failure:
            raise Failure(f"{failure}\n{tail(self.log)}".rstrip()) from None


def rounds(most, until):
    """The numbers of the rounds: the first, and each that will probably end in time."""
    began = time.monotonic()
    for number in range(most):
        yield number
        now = time.monotonic()
        if now + (now - began) / (number + 1) > until:
            return


@dataclass
class Watch:
    """Measures the turns of one round."""

    race: Race
    results: dict
    temperature: str
    measures_memory: bool

    def time(self, table, label, commands, env=None, syncs_itself=False):
        disk = self.race.disk
        times = self.results.setdefault(table, {}).setdefault(label, Times())
        disk.sync()
        if self.temperature == COLD:
            disk.cool()
        measure = self._seconds_and_memory if self.measures_memory else self._seconds
        seconds = measure(times, commands, environment(env))
        synced = seconds
        if not syncs_itself:
            start = time.perf_counter()
            disk.sync()
            synced += time.perf_counter() - start
        times.seconds[self.temperature].append((seconds, synced))
        say(f"   {table}, {self.temperature}: {label} {seconds:.3f} s, synced {synced:.3f} s")

    def _seconds(self, _times, commands, env):
        return seconds_of(commands, env, self.race.log)

    def _seconds_and_memory(self, times, commands, env):
        peak = self.race.log.with_suffix(".peak")
        # The peak of a process includes that of its parent at the fork, and Python is large.
        under_time = ["/usr/bin/time", "--quiet", "--append", "--format=%M", f"--output={peak}"]
        peak.write_text("")
        seconds = seconds_of([[*under_time, *command] for command in commands], env, self.race.log)
        times.peak_kib = max(int(line) for line in peak.read_text().split())
        return seconds


def environment(additions):
    """The environment of this process with additions; `None` without additions."""
    return {**os.environ, **additions} if additions else None
