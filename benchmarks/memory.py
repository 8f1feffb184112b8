"""How much memory a process has needed, on Linux and macOS."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def largest_resident(pid: int | None = None) -> int:
    """The largest resident size so far, in bytes: of this process, or on Linux of any; 0 if it is gone.

    On Linux ``ru_maxrss`` of a new process begins with the size of the one that started it, so it is not asked there.
    """
    status = Path(f"/proc/{pid or 'self'}/status")
    if status.exists():
        try:
            lines = status.read_text().splitlines()
        except OSError:  # it has ended just now
            return 0
        return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), 0)
    if pid is not None:
        return 0
    # macOS counts bytes, the others kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)
