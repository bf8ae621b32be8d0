"""Entrants in turn: ours, peer, ours, peer, ..., warm and cold, each with equal work."""

import os
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from .run import Failure, say, seconds_of, tail

WARM, COLD = "warm", "cold"


@dataclass
class Times:
    """What one entrant took."""

    # By temperature: pairs of seconds, without and with a final sync.
    seconds: dict = field(default_factory=lambda: {WARM: [], COLD: []})
    peak_kib: int = 0

    def median(self, temperature, synced):
        values = [pair[synced] for pair in self.seconds[temperature]]
        return statistics.median(values) if values else None

    def range(self, temperature):
        values = [pair[0] for pair in self.seconds[temperature]]
        return (min(values), max(values)) if values else None


class Entrant:
    """One way to do the work. A subclass prepares before each run and restores after it, untimed."""

    # Whether its last step makes everything durable. The others are also timed with a final `sync -f`.
    syncs_itself = False
    # Whether it is so slow that a few runs have to do.
    is_slow = False
    env = None

    def __init__(self, label):
        self.label = label

    def prepare(self):
        """Before each run."""

    def commands(self):
        """What is timed."""
        raise NotImplementedError

    def finish(self):
        """After each run: checks the result, restores the state."""

    def rounds(self, temperature, wanted):
        slow = 2 if temperature == WARM else 0
        return min(wanted, slow) if self.is_slow else wanted


@dataclass
class Race:
    """How often, where, and how entrants are measured."""

    disk: object
    log: Path
    warm: int
    cold: int

    def run(self, entrants):
        """Times each entrant; before that each runs once untimed, which warms the caches and shows its memory."""
        times = {entrant.label: Times() for entrant in entrants}
        for entrant in entrants:
            self._warm_up(entrant, times[entrant.label])
        for temperature, wanted in ((WARM, self.warm), (COLD, self.cold)):
            for number in range(wanted):
                # Each is first once, so none always follows the same one.
                first = number % len(entrants)
                for entrant in entrants[first:] + entrants[:first]:
                    if number < entrant.rounds(temperature, wanted):
                        pair = self._measure(entrant, temperature)
                        times[entrant.label].seconds[temperature].append(pair)
                        say(f"   {temperature} {entrant.label}: {pair[0]:.3f} s, synced {pair[1]:.3f} s")
        return times

    def _warm_up(self, entrant, times):
        entrant.prepare()
        peak = self.log.with_suffix(".peak")
        # A process's peak counts that of the process it was forked from, and this one is large.
        under_time = ["/usr/bin/time", "--quiet", "--format=%M", f"--output={peak}"]
        for command in entrant.commands():
            seconds_of([[*under_time, *command]], environment(entrant), self.log)
            times.peak_kib = max(times.peak_kib, int(peak.read_text()))
        entrant.finish()

    def _measure(self, entrant, temperature):
        entrant.prepare()
        commands = entrant.commands()
        self.disk.sync()
        if temperature == COLD:
            self.disk.cool({command[0] for command in commands})
        seconds = seconds_of(commands, environment(entrant), self.log)
        synced = seconds
        if not entrant.syncs_itself:
            start = time.perf_counter()
            self.disk.sync()
            synced += time.perf_counter() - start
        try:
            entrant.finish()
        except Failure as failure:
            raise Failure(f"{failure}\n{tail(self.log)}".rstrip()) from None
        return seconds, synced


def environment(entrant):
    return {**os.environ, **entrant.env} if entrant.env else None
