"""A code version changes with what the code does, and with nothing else."""

from pathlib import Path

import pytest

from assets.shared import code_hash
from assets.shared.code_hash import (
    imported_closure,
    imports_in_function,
    modules_hash,
)

FIRST = '''"""Words."""
from assets.room.second import twice
from assets.room import tables

def made(value):
    """More words."""
    return twice(value) + Field(default=1, description="what it is")
'''
SECOND = "def twice(value):\n    return 2 * value\n"
ENTRY = "assets.room.first"


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A room of two modules, the first of which imports the second and the tables."""
    folder = tmp_path / "room"
    folder.mkdir()
    (folder / "first.py").write_text(FIRST)
    (folder / "second.py").write_text(SECOND)
    (folder / "tables.py").write_text("TABLES = ()\n")
    (folder / "lonely.py").write_text("x = 1\n")
    monkeypatch.setattr(code_hash, "ASSETS_FOLDER", tmp_path)
    return folder


def version_with(room: Path, name: str, text: str) -> str:
    (room / name).write_text(text)
    code_hash._hash_and_imports.cache_clear()
    return modules_hash([ENTRY])


@pytest.fixture(autouse=True)
def forget_files() -> None:
    code_hash._hash_and_imports.cache_clear()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("first.py", FIRST.replace("Words", "Other words").replace("More", "Fewer")),
        ("first.py", "# a comment\n" + FIRST.replace("    return", "\n    return")),
        ("first.py", FIRST.replace("what it is", "what it was")),
        ("tables.py", "TABLES = (1,)\n"),
        ("lonely.py", "x = 2\n"),
    ],
    ids=["docstrings", "comments", "descriptions", "tables", "not imported"],
)
def test_what_makes_no_number_makes_no_new_version(room: Path, name: str, text: str) -> None:
    before = modules_hash([ENTRY])
    assert version_with(room, name, text) == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("first.py", FIRST.replace("default=1", "default=2")),
        ("second.py", SECOND.replace("2 *", "3 *")),
        ("first.py", FIRST.replace("from assets.room import tables", "import assets.room.lonely")),
    ],
    ids=["a default", "an imported module", "one more import"],
)
def test_what_may_make_another_number_makes_a_new_version(room: Path, name: str, text: str) -> None:
    before = modules_hash([ENTRY])
    assert version_with(room, name, text) != before


def test_the_closure_follows_imports_also_in_circles_and_inside_functions(room: Path) -> None:
    (room / "second.py").write_text(
        "def twice(value):\n    from assets.room.first import made\n    return made(value)\n"
    )
    assert imported_closure([ENTRY]) == {ENTRY, "assets.room.second"}
    assert imports_in_function("assets.room.second", "twice") == {ENTRY}
    with pytest.raises(ValueError, match=r"assets\.room\.second has no function 'thrice'"):
        imports_in_function("assets.room.second", "thrice")


def test_the_projects_own_stages_have_versions_that_their_rooms_share_code_in() -> None:
    closure = imported_closure(["assets.steering.calibration"])
    assert "assets.activations.suffix_forward" in closure
    assert not {name for name in closure if name.endswith((".prompts", ".tables", ".definitions"))}


def test_modules_outside_of_assets_count_where_they_are_named(room: Path) -> None:
    folder = room.parent.parent / "resources"
    folder.mkdir(exist_ok=True)
    (folder / "reading.py").write_text("from assets.room.lonely import x\ny = x\n")
    first = modules_hash(["resources.reading"])
    assert code_hash.imported_closure(["resources.reading"]) == {
        "resources.reading",
        "assets.room.lonely",
    }
    (folder / "reading.py").write_text("from assets.room.lonely import x\ny = x + 1\n")
    code_hash._hash_and_imports.cache_clear()
    assert modules_hash(["resources.reading"]) != first
