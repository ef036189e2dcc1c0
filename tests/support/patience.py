"""How long tests wait."""

from __future__ import annotations

import os

PATIENCE = float(os.environ.get("PATIENCE", "3"))
"""Time limits of tests are multiplied by this: on a busy machine all takes longer, and a limit that is not reached
costs nothing. With ``PATIENCE=1``, on a quiet one, they are those that the documentation promises."""
