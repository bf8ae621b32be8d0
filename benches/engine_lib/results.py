"""Prints tables, and keeps those of each section in a file until the section is measured again."""

import re
from pathlib import Path

from .run import say

# The heading of a section: file system, tree, number of entries, section.
HEADING = re.compile(r"^## (?P<file_system>\w+), (?P<tree>\w+) \(.*\): (?P<section>\w+)$")

INTRODUCTION = """\
# Benchmark of the engine

`python3 benches/engine --results` writes this file. Each section was measured alone: the lines
below its heading say with which commit, where and when. A run for some trees, file systems or
sections replaces these and leaves the others.

Times are medians in seconds of wall clock. All tools take turns, one run each in a round; *runs* is
the number of rounds that count.

- *synced*: with a final `sync -f` for tools that do not sync themselves. Whole runs of
  rsyncd-snapshot always sync, so both columns have the same time.
- *ratio*: how many times as fast as the row with 1.00 (`cp -al`, `rm -rf`, or both) a row is,
  without those syncs and with them. A share of changes without that row uses the row of another
  share.
- *by Landlock*: how many times as long a run took as the same run *Landlock off*, in which the
  kernel answers as one without Landlock; the median over the rounds. Users run the program with
  Landlock. The filter that hides it takes some 0.04 us for each call, so this is 1 to 3 % too low.
- *processor s*: the time of processors, in user mode and in the kernel; then what Landlock adds to
  that.
- *decided*: the milliseconds from the start of rsyncd-snapshot until it knew what had changed.
- *peak*: the largest resident set of a process.
- *all cold*: the file system was just mounted, and nothing of it is in memory. *module warm,
  snapshots cold*: after that, each directory of the module was listed and each entry looked at, as
  rsync does. That is how most servers run hooks.
- *grace*: measured with `grace = "0s"`, so that each run recycles. With the default of 6 hours a run
  does so, too, once a snapshot has been retired for that long; until then a run clones afresh, as
  in the section `clone`.
- *floor*: the fewest calls that make a true snapshot and expire one. Each live directory is looked
  at once; each changed name is linked, looked at and unlinked; each changed directory is opened and
  listed on both sides, and the recycled one gets its times back.
"""


class Results:
    """The tables of all sections so far, in a file if `path` is one."""

    def __init__(self, path: Path | None, order, tools):
        self.path, self.order, self.tools = path, order, tools

    def add(self, heading, facts, tables):
        """Prints the tables of one section, and replaces that section in the file."""
        parts = [f"### {name}\n\n{text}\n" for name, text in tables]
        section = "\n".join([f"## {heading}\n\n{facts}\n", *parts])
        print(f"\n{section}", flush=True)
        if self.path:
            key = key_of(f"## {heading}")
            self._write({**self._sections(), key: section})

    def _sections(self):
        """The sections in the file, by file system, tree and section.

        What an earlier form of the benchmark wrote does not fit the introduction and is left out.
        """
        if not self.path.exists():
            return {}
        sections = re.split(r"^(?=## )", self.path.read_text(), flags=re.MULTILINE)[1:]
        found = {key_of(section.partition("\n")[0]): section for section in sections}
        known = {key: section for key, section in found.items() if key in self.order}
        if len(known) < len(sections):
            say(f"{self.path}: {len(sections) - len(known)} sections of another form are left out")
        return known

    def _write(self, sections):
        tools = "\n".join(f"- {line}" for line in self.tools)
        head = f"{INTRODUCTION}\nThe tools of the latest run:\n\n{tools}\n"
        in_order = [sections[key].rstrip() + "\n" for key in self.order if key in sections]
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_text("\n".join([head, *in_order]))
        partial.rename(self.path)


def key_of(line):
    found = HEADING.match(line)
    return found and (found["file_system"], found["tree"], found["section"])
