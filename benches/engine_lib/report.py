"""Markdown tables, for the terminal and the results."""

from .race import COLD, WARM, Times


def table(header, rows):
    """A Markdown table with aligned columns."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    # The first column holds text, the others numbers.
    aligned = [[cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths))] for row in cells]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in [aligned[0], rule, *aligned[1:]])


RACE_HEADER = ["", "warm s", "min-max", "synced s", "ratio", "ratio synced", "entries/s",
               "cold s", "cold synced s", "cold ratio", "cold ratio synced", "peak MiB"]


def race_rows(times, bases, entries, prefix=""):
    """One row per label. A ratio is the speed relative to the first of `bases` with times."""
    rows = []
    for label, own in times.items():
        cells = [prefix + label]
        for temperature in (WARM, COLD):
            plain, synced = own.median(temperature, 0), own.median(temperature, 1)
            base = next((base for base in bases if base.seconds[temperature]), Times())
            cells.append(seconds(plain))
            if temperature == WARM:
                cells.append(spread(own.range(WARM)))
            cells.append(seconds(synced))
            cells.append(ratio(base.median(temperature, 0), plain))
            cells.append(ratio(base.median(temperature, 1), synced))
            if temperature == WARM:
                cells.append(f"{entries / plain:,.0f}" if plain else "")
        cells.append(f"{own.peak_kib / 1024:.1f}" if own.peak_kib else "")
        rows.append(cells)
    return rows


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
            cells += [seconds(time), f"{time / count * 1e6:.2f}" if count else ""]
        rows.append(cells)
    return rows


def seconds(value):
    return "" if value is None else f"{value:.3f}"


def spread(values):
    return "" if values is None else f"{values[0]:.3f}-{values[1]:.3f}"


def ratio(base, value):
    return "" if not base or not value else f"{base / value:.2f}"
