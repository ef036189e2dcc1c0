"""``python -m eventwriter``."""

from eventwriter.cli import main

if __name__ == "__main__":
    main()
