"""Definitions load light, and from any folder; how fast is benchmarks/test_definitions_load.py."""

import json
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "openai", "sklearn", "scipy", "pandas", "matplotlib", "xllamacpp")


def loaded(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT, check=True
    )
    return done.stdout


def test_loading_definitions_imports_nothing_heavy() -> None:
    script = (
        "import json, sys, orchestration.definitions\n"
        f"sys.stdout.write(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    )
    assert json.loads(loaded(script)) == []


def test_the_workspace_validates_from_another_folder(tmp_path: Path) -> None:
    dagster = Path(sys.executable).with_name("dagster")
    done = subprocess.run(
        [dagster, "definitions", "validate", "--workspace", PROJECT / "workspace.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_bare_dagster_in_the_root_finds_the_same_location(tmp_path: Path) -> None:
    # The runs that the main job starts name this location (orchestration/jobs.py).
    dagster = Path(sys.executable).with_name("dagster")
    done = subprocess.run(
        [dagster, "definitions", "validate"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "code location featurelake" in done.stdout + done.stderr
