"""The suite itself: it runs in the background, and beside another run of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psycopg

from eventwriter.embedded import PostgresServer
from fix_servers import new_database
from fix_service import ROOT
from patience import PATIENCE
from processes import ending


def test_what_is_started_can_be_interrupted(tmp_path: Path) -> None:
    """Ctrl-C ends a child, whoever started pytest."""
    command = [sys.executable, "-c", "import time; print('ready', flush=True)\nwhile True: time.sleep(0.01)"]
    with ending(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(30 * PATIENCE) == -signal.SIGINT


def test_another_run_in_the_background(postgres_server: PostgresServer) -> None:
    """A shell that runs it in the background has it ignore SIGINT; its temporary folders do not close those of ours."""
    test = f"{__file__}::{test_what_is_started_can_be_interrupted.__name__}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    postgres_server.kill()
    postgres_server.start()
    with new_database(postgres_server) as dsn, psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
