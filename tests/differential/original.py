"""Asks the real rotate-backups what it would keep.

Reads one JSON object per line and answers each with one line: the names that rotate-backups keeps
("kept"), and those that it would keep if its weekly slots were (ISO year, ISO week) instead of
(calendar year, ISO week), all else being its own code ("kept_by_iso_weeks").
"""

import collections
import json
import os
import sys

import rotate_backups


def main():
    assert rotate_backups.__version__ == "8.1", rotate_backups.__version__
    # Only answers may go where answers are read.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        question = json.loads(line)
        answer = {
            "kept": decide(question, iso_weeks=False),
            "kept_by_iso_weeks": decide(question, iso_weeks=True),
        }
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def decide(question, iso_weeks):
    """What RotateBackups.rotate_backups does between listing a directory and removing."""
    scheme = {
        frequency: rotate_backups.coerce_retention_period(count)
        for frequency, count in question["scheme"].items()
    }
    program = rotate_backups.RotateBackups(
        rotation_scheme=scheme,
        strict=question["strict"],
        prefer_recent=question["prefer_recent"],
    )
    backups = sorted(backup(program, name) for name in question["names"])
    if not backups:
        return []
    groups = program.group_backups(backups)
    if iso_weeks:
        groups["weekly"] = collections.defaultdict(list)
        for one in backups:
            groups["weekly"][tuple(one.timestamp.isocalendar()[:2])].append(one)
    program.apply_rotation_scheme(groups, backups[-1].timestamp)
    kept = program.find_preservation_criteria(groups)
    return [one.pathname for one in backups if one in kept]


def backup(program, name):
    match = program.timestamp_pattern.search(name)
    return rotate_backups.Backup(pathname=name, timestamp=program.match_to_datetime(match))


if __name__ == "__main__":
    main()
