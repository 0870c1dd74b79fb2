"""How a DuckDB client comes to see a lake: DuckLake's extensions, and the SQL that attaches it.

The same statements serve this package, the SQL shell and anyone who opens the lake by himself.
Connections that are kept, reading and writing are lake.py.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import duckdb

from resources.lake_tables import CATALOG_NAME, LakeError, quoted

EXTENSIONS = ("ducklake", "sqlite_scanner")


def extension_path(name: str) -> Path:
    """File of a DuckDB extension that a PyPI wheel installed (signed by DuckDB, loaded by path)."""
    spec = importlib.util.find_spec(f"duckdb_extension_{name}")
    if spec is None or spec.origin is None:
        raise LakeError(
            f"DuckDB extension {name!r} is not installed; run `make setup` "
            f"(it installs duckdb-extension-{name.replace('_', '-')})"
        )
    folder = Path(spec.origin).parent / "extensions" / f"v{duckdb.__version__}"
    path = folder / f"{name}.duckdb_extension"
    if not path.exists():
        raise LakeError(
            f"extension {name!r} for duckdb {duckdb.__version__} expected at {path}; "
            "install the versions that constraints.txt pins"
        )
    return path


def attach_statements(root: Path, data_folder: Path, *, read_only: bool = False) -> list[str]:
    """SQL that any DuckDB client of this version runs to see the lake in `root` as `lake`."""
    options = [
        f"DATA_PATH {quoted(str(data_folder))}",
        "META_JOURNAL_MODE 'WAL'",
        "META_BUSY_TIMEOUT 5000",
    ]
    if read_only:
        options.append("READ_ONLY")
    catalog = quoted(f"ducklake:sqlite:{root / 'catalog.sqlite'}")
    return [
        *(f"LOAD {quoted(str(extension_path(name)))}" for name in EXTENSIONS),
        f"ATTACH {catalog} AS {CATALOG_NAME} ({', '.join(options)})",
        f"USE {CATALOG_NAME}",
    ]
