"""A page of memory that the measuring process, the launching one and the device all see.

The device writes its beats there by itself: also after the process that launched the work has been
frozen, when nobody can be asked any more.
"""

import mmap
import os

SIZE = 4096
FIELDS = (
    "begin",  # number of the last unit that began on the device, and when by the device's clock
    "begin_stamp",
    "end",  # likewise of the last one that ended
    "end_stamp",
    "tick",  # as a beat, for the correlation of clocks
    "tick_stamp",
    "launching",  # number of the unit that the process is about to launch
    "launched",  # … has launched
    "window",  # units in flight at most; 0: no limit
    "calibrate",  # how often that has been asked for
    "calibrated",  # … has been done
    "device_ns",  # the last calibration
    "host_ns",
    "half_ns",
    "resolution_ns",  # the least step of the device's clock that was seen
    "unit_ns",  # what the longest unit takes, undisturbed
    "ready",
    "command",  # the stand-in of a driver on CPU: number of a call, its answer
    "answer",
)
PLACE = {name: n for n, name in enumerate(FIELDS)}


class Page:
    """Words of 64 bits by name, in a file that several processes map."""

    def __init__(self, path, *, create=False):
        self.path = str(path)
        flags = os.O_RDWR | (os.O_CREAT if create else 0)
        fd = os.open(self.path, flags, 0o600)
        try:
            if create:
                os.ftruncate(fd, SIZE)
            self.memory = mmap.mmap(fd, SIZE)
        finally:
            os.close(fd)
        self._words = memoryview(self.memory).cast("Q")

    def __getitem__(self, name):
        return self._words[PLACE[name]]

    def __setitem__(self, name, value):
        self._words[PLACE[name]] = value

    def close(self):
        self._words.release()
        self.memory.close()


def offset(name):
    """Bytes from the page's start to a word."""
    return 8 * PLACE[name]
