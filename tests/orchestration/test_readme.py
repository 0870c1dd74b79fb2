"""The README's notebook example runs as it stands (its SQL is run by test_main_job.py)."""

import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def test_the_notebook_example_runs() -> None:
    (block,) = re.findall(
        r"```python\n(.*?)```", (PROJECT / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    names: dict = {}
    exec(block, names)  # the project's own README
    snmf, coefficients = names["snmf"], names["coefficients"]
    assert tuple(coefficients.shape) == (2000, 16) and bool((coefficients >= 0).all())
    assert tuple(snmf.components_.shape) == (16, 256)


def test_every_make_target_that_the_readme_names_exists() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", readme, re.MULTILINE))
    assert {"demo", "test", "ui", "sql", "run"} <= named
    assert not [target for target in named if not re.search(rf"^{target}:", makefile, re.MULTILINE)]


def test_no_placeholder_is_left() -> None:
    for path in (PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"@[A-Z_]+@|^[A-Z_]{6,}$|\. [A-Z_]{6,}$", text, re.MULTILINE), path


def test_every_file_that_the_docs_link_to_exists() -> None:
    for path in (PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")):
        links = re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8"))
        assert not [link for link in links if not (path.parent / link).exists()], path
