"""``python -m eventwriter.embedded``."""

import sys
import traceback

from eventwriter.embedded.foreground import main
from eventwriter.errors import INTERNAL
from eventwriter.processes.process import settle

if __name__ == "__main__":
    settle()
    try:
        status = main()
    except Exception:  # noqa: BLE001 - a bug
        traceback.print_exc()
        status = INTERNAL
    sys.exit(status)
