"""File systems in sparse images, mounted by loop devices."""

import os
import subprocess
import time
from pathlib import Path

from .run import Failure, run

GIB = 2**30


class Disk:
    """A new file system, mounted within a `with`."""

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
        options = ["-N", str(self.inodes), "-F"] if self.file_system == "ext4" else ["-f"]
        run([f"mkfs.{self.file_system}", "-q", *options, str(self.image)])
        self._mount()

    def _mount(self):
        # So that no kernel thread writes inode tables during a measurement.
        options = {"ext4": "loop,noinit_itable", "btrfs": "loop,noatime,user_subvol_rm_allowed"}
        options = options.get(self.file_system, "loop")
        try:
            run(["mount", "-t", self.file_system, "-o", options, str(self.image), str(self.mount)])
        except Failure as failure:
            raise Failure(f"{failure}\nThis takes a kernel with {self.file_system} and loop "
                          "devices, and the right to mount; --fs chooses other file systems"
                          ) from None

    def _unmount(self):
        for _ in range(50):
            done = subprocess.run(["umount", str(self.mount)], check=False,
                                  stderr=subprocess.PIPE, text=True)
            if done.returncode == 0:
                return
            # A command that was interrupted may not have ended yet.
            time.sleep(0.2)
        raise Failure(f"{self.mount} is still mounted: {done.stderr}")

    def _remove(self):
        try:
            if os.path.ismount(self.mount):
                self._unmount()
            if self.mount.is_dir():
                self.mount.rmdir()
        finally:
            self.image.unlink(missing_ok=True)

    def settle(self):
        """Writes all to the disk, so that no tool is charged for the writes of another."""
        self.sync()
        # That leaves blocks of the image in memory, which the next sync would wait for.
        self._sync_image()

    def sync(self):
        """Syncs the file system."""
        run(["sync", "-f", str(self.mount)])

    def cool(self):
        """Drops the caches of the file system and of its image."""
        self._unmount()
        self._sync_image()
        image = os.open(self.image, os.O_RDONLY)
        try:
            os.posix_fadvise(image, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(image)
        self._mount()

    def _sync_image(self):
        image = os.open(self.image, os.O_RDONLY)
        try:
            os.fsync(image)
        finally:
            os.close(image)


def require_space(scratch, bytes_wanted):
    free = os.statvfs(scratch).f_bavail * os.statvfs(scratch).f_frsize
    if free < bytes_wanted:
        raise Failure(f"{scratch}: {free / GIB:.1f} GiB free, about {bytes_wanted / GIB:.0f} GiB "
                      "are needed; --scratch chooses another place")


def hide_syslog():
    """Hides the sockets of syslog from this mount namespace, so hooks log to standard error.

    There the benchmark reads when they decided, and syslog stays free of their debug lines.
    """
    for socket in ("/dev/log", "/var/run/syslog", "/var/run/log"):
        if os.path.exists(socket) and not os.path.isdir(socket):
            run(["mount", "--bind", "/dev/null", os.path.realpath(socket)])
