"""Real file systems that tests fill, cut off and make read-only; a test that may not mount is skipped, with a reason."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from contextlib import contextmanager

import pytest
from processes import clean_environment

# FS_IOC_SHUTDOWN: from then on every operation fails with EIO, as if the power of the disk were cut.
_SHUTDOWN = 0x8004587D
FLUSH_JOURNAL, DROP_JOURNAL = 1, 2


def run(*command):
    """Run a command that must work here, or skip the test."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    if not shutil.which(command[0]):
        pytest.skip(f"needs {command[0]}")
    done = subprocess.run(
        list(map(str, command)),
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"{command[0]} does not work here: {done.stderr.strip()[:200]}")


@contextmanager
def mounted(folder, *options):
    """Mount a file system at ``folder``; unmount it at the end."""
    run("mount", *options, folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], env=clean_environment(), check=True)


def tmpfs(folder, options):
    """A small file system in memory."""
    folder.mkdir()
    return mounted(folder, "-t", "tmpfs", "-o", options, "tmpfs")


class Ext4:
    """A real ext4 on a file, whose power can be cut."""

    def __init__(self, folder, options=""):
        self.image, self.folder = folder / "image", folder / "disk"
        self._options = ",".join(["loop", *filter(None, [options])])
        self.folder.mkdir()
        with open(self.image, "wb") as file:
            file.truncate(8 * 2**20)
        run("mkfs.ext4", "-qF", self.image)

    def mounted(self):
        """Mount it, also again after a cut."""
        return mounted(self.folder, "-o", self._options, self.image)

    def cut(self, how):
        """Cut the power: what is not on the disk by now is lost."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", how))
        except OSError as error:
            pytest.skip(f"this kernel cannot cut a file system off: {error}")
        finally:
            os.close(descriptor)
