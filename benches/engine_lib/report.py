"""Markdown tables, for the terminal and the results."""

import statistics

from .race import COLD, LANDLOCK_OFF, MODULE_WARM, WARM, Times

STATES = {WARM: "all warm", MODULE_WARM: "module warm, snapshots cold", COLD: "all cold"}


def table(header, rows):
    """A Markdown table with aligned columns, without those that are empty."""
    used = [column for column in range(len(header))
            if column == 0 or any(row[column] != "" for row in rows)]
    cells = [[str(row[column]) for column in used] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(used))]
    # The first column holds text, the others numbers.
    aligned = [[cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths))] for row in cells]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in [aligned[0], rule, *aligned[1:]])


RACE_HEADER = ["", "s", "min-max", "synced s", "ratio", "ratio synced", "by Landlock",
               "processor s", "by Landlock", "decided ms", "entries/s", "peak MiB", "runs"]


def race_rows(times, bases, state, prefix="", entries=None):
    """One row per label that ran in that state of the caches.

    A ratio is the speed relative to the first of `bases` with times in that state.
    """
    base = next((base for base in bases if base.runs[state]), Times())
    rows = []
    for label, own in times.items():
        if not own.runs[state]:
            continue
        seconds = own.median(state, "seconds")
        synced = own.median(state, "synced")
        without_landlock = times.get(label + LANDLOCK_OFF)
        rows.append([
            prefix + label,
            fixed(seconds, 3),
            spread(own.values(state, "seconds")),
            fixed(synced, 3),
            quotient(base.median(state, "seconds"), seconds),
            quotient(base.median(state, "synced"), synced),
            times_as_long(own, without_landlock, state, "seconds"),
            fixed(own.median(state, "processor_seconds"), 3),
            times_as_long(own, without_landlock, state, "processor_seconds"),
            fixed(own.median(state, "decided"), 1),
            f"{entries / seconds:,.0f}" if entries else "",
            mebibytes(own.peak_kib) if state == WARM else "",
            len(own.values(state, "seconds")),
        ])
    return rows


def times_as_long(own, other, state, name):
    """How many times as long as the other one a run took: the median over the rounds."""
    pairs = zip(own.values(state, name), other.values(state, name)) if other else []
    quotients = [mine / theirs for mine, theirs in pairs if theirs]
    return fixed(statistics.median(quotients), 2) if quotients else ""


LIMIT_HEADER = ["", "calls", "1 thread: s", "us per call", "all cores: s", "us per call"]


def limit_rows(rounds):
    """One row per system call, from what `bare_loop limits` printed."""
    single, several = rounds[0], rounds[-1]
    rows = []
    for call in (name for name in single if name != "threads"):
        count = single[call]["calls"]
        cells = [call.replace("_", " of "), f"{count:,}"]
        for figures in (single, several):
            time = figures[call]["seconds"]
            cells += [fixed(time, 3), f"{time / count * 1e6:.2f}" if count else ""]
        rows.append(cells)
    return rows


def fixed(value, digits):
    return "" if value is None else f"{value:.{digits}f}"


def spread(values):
    return f"{min(values):.3f}-{max(values):.3f}" if values else ""


def quotient(dividend, divisor):
    return "" if not dividend or not divisor else f"{dividend / divisor:.2f}"


def mebibytes(kib):
    return f"{kib / 1024:.1f}" if kib else ""
