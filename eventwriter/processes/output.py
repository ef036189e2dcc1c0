"""Standard output that takes no more, such as a file on a full disk: told as what it is."""

from __future__ import annotations

import errno
import os
import sys

_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def explained(error: BaseException) -> str:
    """That it takes no more, if that is what the error says; otherwise empty. What is left in buffers is let go."""
    # One that came of a path would name it.
    if not isinstance(error, OSError) or error.errno not in _REFUSED or error.filename is not None:
        return ""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return f"standard output cannot be written: {error.strerror}"
