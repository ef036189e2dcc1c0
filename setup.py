"""What setup.cfg cannot say: the description for package indexes, where relative links of README would lead nowhere."""

import re
from pathlib import Path

from setuptools import setup

_readme = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
setup(long_description=re.sub(r"\[([^\]]*)\]\((?!\w+:)[^)]*\)", r"\1", _readme))
