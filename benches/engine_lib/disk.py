"""File systems in sparse images, mounted by loop devices."""

import os
import shutil
import subprocess
import time
from pathlib import Path

from .run import Failure, run

GIB = 2**30


class Disk:
    """A fresh file system, for the time of a `with`."""

    def __init__(self, scratch, file_system, bytes_wanted, inodes):
        self.image = Path(scratch) / f"{file_system}.image"
        self.mount = Path(scratch) / f"{file_system}.mount"
        self.file_system = file_system
        self.bytes = bytes_wanted
        self.inodes = inodes

    def __enter__(self):
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_):
        self._remove()

    def _make(self):
        with open(self.image, "wb") as image:
            image.truncate(self.bytes)
        self.mount.mkdir()
        options = "loop"
        if self.file_system == "ext4":
            make = ["mkfs.ext4", "-q", "-F", "-N", str(self.inodes)]
            # No kernel thread may write inode tables while something is measured.
            options += ",noinit_itable"
        else:
            make = [f"mkfs.{self.file_system}", "-q", "-f"]
        run([*make, str(self.image)])
        try:
            run(["mount", "-t", self.file_system, "-o", options, str(self.image), str(self.mount)])
        except Failure as failure:
            raise Failure(f"{failure}\nThis takes a kernel with {self.file_system} and loop devices, and the right "
                          f"to mount; --fs chooses other file systems") from None

    def _remove(self):
        for _ in range(50):
            if not os.path.ismount(self.mount):
                break
            # A command that was interrupted may still be on its way out.
            if subprocess.run(["umount", str(self.mount)], check=False, stderr=subprocess.DEVNULL).returncode != 0:
                time.sleep(0.2)
        else:
            run(["umount", "--lazy", str(self.mount)])
        if self.mount.is_dir():
            self.mount.rmdir()
        self.image.unlink(missing_ok=True)

    def sync(self):
        """Nobody pays for what somebody else wrote."""
        run(["sync", "-f", str(self.mount)])

    def cool(self, programs):
        """Drops every cache. The programs themselves are read again: they are not what is cold."""
        # The first one writes to the image, the second one the image.
        os.sync()
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
        for program in ("sync", *programs):
            Path(shutil.which(program)).read_bytes()


def require_space(scratch, bytes_wanted):
    free = os.statvfs(scratch).f_bavail * os.statvfs(scratch).f_frsize
    if free < bytes_wanted:
        raise Failure(f"{scratch}: {free / GIB:.1f} GiB free, about {bytes_wanted / GIB:.0f} GiB are needed; "
                      "--scratch chooses another place")
