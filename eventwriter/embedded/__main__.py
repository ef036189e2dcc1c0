"""``python -m eventwriter.embedded``."""

import sys

from eventwriter.embedded.foreground import main

if __name__ == "__main__":
    sys.exit(main())
