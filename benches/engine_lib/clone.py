"""A fresh clone: the first snapshot of a module, and what its system calls cost by themselves."""

import json
import shutil
import statistics

from .bench import snapshots
from .race import Entrant
from .report import LIMIT_HEADER, RACE_HEADER, limit_rows, race_rows, table
from .run import Failure, run


class Clone(Entrant):
    """`command LIVE NEW`."""

    def __init__(self, label, bench, live, *command, slow=False):
        super().__init__(label)
        self.bench, self.live, self.command = bench, live, command
        self.new = bench.disk.mount / "new"
        self.is_slow = slow
        self.checked = False

    def commands(self):
        return [[*self.command, str(self.live), str(self.new)]]

    def finish(self):
        if not self.checked:
            self.bench.expect_entries(self.new)
            self.checked = True
        self.bench.remove(self.new)


class RsyncClone(Clone):
    """rsync needs the slashes."""

    def commands(self):
        return [[*self.command, f"{self.live}/", f"{self.new}/"]]


class FirstSnapshot(Entrant):
    """Our whole process: the first snapshot in a new root."""

    syncs_itself = True

    def __init__(self, label, bench, live):
        super().__init__(label)
        self.bench, self.live, self.root = bench, live, live.parent
        self.memory = bench.scratch / "memory"

    def prepare(self):
        shutil.rmtree(self.memory, ignore_errors=True)
        self.command, self.env = self.bench.ours(self.memory, "--quiet", "snapshot", str(self.live))

    def commands(self):
        return [self.command]

    def finish(self):
        names = snapshots(self.root)
        if len(names) != 1:
            raise Failure(f"{self.root} has {len(names)} snapshots instead of 1")
        self.bench.expect_entries(self.root / names[0])
        self.bench.remove(self.root / names[0])
        self.bench.remove(self.root / ".rsyncd-snapshot")


def clone(bench):
    """Tables of a first snapshot, and of what the bare system calls cost."""
    tools = bench.tools
    live = bench.make_root("root")
    entrants = [
        FirstSnapshot("rsyncd-snapshot", bench, live),
        Clone("its clone alone", bench, live, str(tools.bare_loop), "clone"),
        Clone("cp -al", bench, live, "cp", "-al"),
    ]
    if tools.has("cpz"):
        entrants.append(Clone("cpz -l", bench, live, tools.paths["cpz"], "-l"))
    if tools.has("rsync"):
        link_dest = [tools.paths["rsync"], "-a", f"--link-dest={live}/"]
        entrants.append(RsyncClone("rsync -a --link-dest", bench, live, *link_dest, slow=True))
    times = bench.race.run(entrants)
    yield "a first snapshot", table(RACE_HEADER, race_rows(times, "cp -al", bench.tree.entries))
    yield "bare system calls", limits(bench, live)


def limits(bench, live):
    """Medians over a few rounds of what the calls alone take."""
    repeats = []
    for _ in range(min(3, bench.race.warm)):
        bench.disk.sync()
        command = [str(bench.tools.bare_loop), "limits", str(live), str(bench.disk.mount / "mirror")]
        repeats.append(json.loads(run(command)))
    medians = repeats[0]
    for number, figures in enumerate(medians):
        for call in (call for call in figures if call != "threads"):
            figures[call]["seconds"] = statistics.median(rounds[number][call]["seconds"] for rounds in repeats)
    return table(LIMIT_HEADER, limit_rows(medians))
