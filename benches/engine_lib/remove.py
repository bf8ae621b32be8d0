"""A removal of a tree of hard links."""

from .race import Entrant
from .report import RACE_HEADER, race_rows, table
from .run import Failure, run


class Removal(Entrant):
    """`command TREE`, where every file has another link."""

    def __init__(self, label, bench, live, *command):
        super().__init__(label)
        self.bench, self.live, self.command = bench, live, command
        self.old = bench.disk.mount / "old"

    def prepare(self):
        run(["cp", "-al", str(self.live), str(self.old)])

    def commands(self):
        return [[*self.command, str(self.old)]]

    def finish(self):
        if self.old.exists():
            raise Failure(f"{self.label} did not remove {self.old}")


def remove(bench):
    """The table of a removal."""
    live = bench.make_root("root")
    entrants = [
        Removal("rsyncd-snapshot's removal", bench, live, str(bench.tools.bare_loop), "remove"),
        Removal("rm -rf", bench, live, "rm", "-rf"),
    ]
    if bench.tools.has("rmz"):
        entrants.append(Removal("rmz", bench, live, bench.tools.paths["rmz"]))
    times = bench.race.run(entrants)
    yield "a removal", table(RACE_HEADER, race_rows(times, "rm -rf", bench.tree.entries))
