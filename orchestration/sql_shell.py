"""A DuckDB shell with the lake attached, read-only: `make sql`, or one query: `make sql Q="…"`.

The shell is DuckDB's own; this module only writes the statements that attach the lake (and prints
them, with --attach, for other DuckDB clients).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from orchestration.folders import default_resources

USAGE = 'usage: make sql, or make sql Q="SELECT …", or python -m orchestration.sql_shell --attach\n'

QUERY_VARIABLE = "Q"


def main(arguments: list[str]) -> int:
    """Run the shell; its exit status. Says how to fill the lake where there is none."""
    if arguments not in ([], ["--attach"]):
        sys.stderr.write(USAGE)
        return 2
    lake = default_resources()["lake"].open()
    if not (lake.root / "catalog.sqlite").exists():
        sys.stderr.write(f"there is no lake in {lake.root} yet; run `make demo` to make one\n")
        return 1
    statements_text = "".join(f"{s};\n" for s in lake.attach_statements(read_only=True))
    if arguments == ["--attach"]:
        sys.stdout.write(statements_text)
        return 0
    shell = Path(sys.executable).with_name("duckdb")
    with tempfile.TemporaryDirectory() as folder:
        statements = Path(folder) / "attach.sql"
        statements.write_text(statements_text)
        query = ["-c", os.environ[QUERY_VARIABLE]] if os.environ.get(QUERY_VARIABLE) else []
        return subprocess.run([shell, "-init", str(statements), *query], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
