"""Makes the trees that are measured. They are equal in every run, and quick to make."""

import os
import random
from bisect import bisect_right
from itertools import accumulate

# Directories of Debian's /usr by depth, in thousandths.
DEPTHS = [1, 16, 87, 76, 92, 171, 239, 193, 72, 30, 12, 8, 3]
# Files per directory: (share of the directories, most files).
FILES = [(0.10, 0), (0.20, 1), (0.30, 1.5), (0.40, 2), (0.50, 3), (0.60, 4), (0.75, 5), (0.80, 6),
         (0.85, 7), (0.90, 10), (0.95, 18), (0.97, 27), (0.98, 41), (0.99, 74), (0.995, 142),
         (0.998, 229), (0.999, 332), (0.9995, 600), (1.0, 4000)]
SYMLINK_EVERY = 20


class Tree:
    """A tree by its directories, parents first, and the number of files in each."""

    def __init__(self, name, directories, counts, file_name, symlinks=False):
        self.name = name
        self.directories = directories
        self.file_name = file_name
        self.symlinks = symlinks
        self.ends = list(accumulate(counts))
        self.files = self.ends[-1]

    @property
    def entries(self):
        """The number of files and directories, without the root."""
        return self.files + len(self.directories) - 1

    def files_in(self, directory):
        start = self.ends[directory - 1] if directory else 0
        return range(start, self.ends[directory])

    def make(self, root):
        os.makedirs(root, 0o755, exist_ok=True)
        for index, path in enumerate(self.directories):
            full = os.path.join(root, path)
            if path:
                os.mkdir(full)
            at = os.open(full, os.O_RDONLY)
            try:
                for number in self.files_in(index):
                    if self.symlinks and number % SYMLINK_EVERY == 0:
                        os.symlink("../some/target", self.file_name(number), dir_fd=at)
                    else:
                        os.mknod(self.file_name(number), 0o644, dir_fd=at)
            finally:
                os.close(at)

    def share(self, percent):
        """A random share of the files, by directory. Equal in every run."""
        count = max(1, round(self.files * percent / 100)) if percent else 0
        chosen = {}
        chance = random.Random(f"{self.name} {percent}")
        for number in sorted(chance.sample(range(self.files), count)):
            chosen.setdefault(bisect_right(self.ends, number), []).append(number)
        return chosen

    def replace(self, root, chosen):
        """Replaces files as rsync does: renames new inodes, and sets the directory's mtime back."""
        for index, numbers in chosen.items():
            at = os.open(os.path.join(root, self.directories[index]), os.O_RDONLY)
            try:
                before = os.stat(at)
                for number in numbers:
                    name = self.file_name(number)
                    temporary = f".{name}.aB3xYz"
                    create = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                    file = os.open(temporary, create, 0o644, dir_fd=at)
                    os.write(file, b"changed\n")
                    os.close(file)
                    os.rename(temporary, name, src_dir_fd=at, dst_dir_fd=at)
                os.utime(at, ns=(before.st_atime_ns, before.st_mtime_ns))
            finally:
                os.close(at)


def like_usr(name, files, directory_count):
    chance = random.Random(name)
    levels = [[""]]
    directories = [""]
    depths = sorted(chance.choices(range(1, len(DEPTHS) + 1), DEPTHS, k=directory_count - 1))
    for number, depth in enumerate(depths):
        # A small tree may lack a level; then its directories move one level up.
        depth = min(depth, len(levels))
        if depth == len(levels):
            levels.append([])
        # Most directories have no subdirectories, a few have many.
        above = levels[depth - 1]
        parent = above[int(len(above) * chance.random() ** 2)]
        path = os.path.join(parent, f"directory-{number}")
        levels[depth].append(path)
        directories.append(path)
    wanted = [quantile(chance.random()) for _ in directories]
    # Rounds the sums, so that the total is exact.
    ends = list(accumulate(wanted))
    ends = [round(end * files / ends[-1]) for end in ends]
    counts = [end - start for start, end in zip([0, *ends], ends)]
    return Tree(name, directories, counts, lambda number: f"lib-file-{number}.so", symlinks=True)


def quantile(share):
    lower, fewest = 0.0, 0
    for upper, most in FILES:
        if share <= upper:
            return fewest + (most - fewest) * (share - lower) / (upper - lower)
        lower, fewest = upper, most
    return FILES[-1][1]


def grown(name, directory_count, levels_above=0):
    """Directories of ten files that were added one by one, each below a random earlier one.

    With 30,000 directories their mean depth is 8.4, and it grows with the logarithm of the count.
    All of them are below a chain of `levels_above` directories.
    """
    chance = random.Random(name)
    directories = [""]
    for level in range(levels_above):
        directories.append(os.path.join(directories[-1], f"level-{level}"))
    first = levels_above
    for number in range(directory_count):
        # The exponent prefers earlier parents, which makes the tree as shallow as it is.
        parent = first + int((len(directories) - first) * chance.random() ** 1.2)
        directories.append(os.path.join(directories[parent], f"directory-{number}"))
    counts = [0] * (first + 1) + [10] * directory_count
    return Tree(name, directories, counts, lambda number: f"file-{number}")


def in_folders(name, files, folders):
    def file_name(number):
        return f"17{number:08}.M{number * 7919 % 10**6:06}P4711.mx,S=3217:2,S"

    directories = ["", *(f"folder-{number}" for number in range(folders))]
    return Tree(name, directories, [0] + [files // folders] * folders, file_name)


def flat(name, files):
    return Tree(name, [""], [files], lambda number: f"file-{number}.dat")


def tree(name, small, divisor=1):
    """The tree of that name, a small one of the same shape, or one with a part of the entries."""
    divisor *= 200 if small else 1
    match name:
        case "system":
            return like_usr(name, 300_000 // divisor, 33_000 // divisor + 1)
        case "spread":
            return grown(name, 30_000 // divisor)
        case "deep60":
            return grown(name, 30_000 // divisor, 60)
        case "deep85":
            return grown(name, 30_000 // divisor, 85)
        case "maildir":
            return in_folders(name, 500_000 // divisor, 50 // (10 if small else 1))
        case "flat":
            return flat(name, 200_000 // divisor)
        case "million":
            return like_usr(name, 900_000 // divisor, 100_000 // divisor + 1)
        case "huge":
            return grown(name, 1_000_000 // divisor)
        case "wide":
            # A small one has directories as wide as the others.
            folders = max(1, 1_000 // divisor)
            return in_folders(name, folders * 10_000, folders)
    raise ValueError(name)


NAMES = ("system", "spread", "deep60", "deep85", "maildir", "flat", "million")
# Trees that are measured only on demand, and by the section `scale` only.
SCALED = ("huge", "wide")
