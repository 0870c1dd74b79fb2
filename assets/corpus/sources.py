"""From the path in a study to the files to read, in a fixed order, and their fingerprint.

A folder holds one document a .txt file. Its sub-folders are concepts, and a folder above such a
sub-folder is the parent concept: `animals/dogs/a.txt` is a document of dogs under animals.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from assets.corpus.config import CorpusConfig
from assets.corpus.documents import CorpusError

BUNDLED_PREFIX = "bundled:"
BUNDLED_FOLDER = Path(__file__).parent / "bundled"
TEXT_SUFFIX = ".txt"
FILE_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
MAX_NAMES_SHOWN = 10


@dataclass(frozen=True)
class SourceFile:
    """A file to read; `name` is what rows give as their source, and concepts come from folders."""

    path: Path
    name: str
    concept: str | None = None
    parent_concept: str | None = None


def find_source_files(config: CorpusConfig, study_folder: Path | None = None) -> list[SourceFile]:
    """The files that `config.path` stands for, sorted by name.

    Raises CorpusError for a missing path, an unknown suffix or a folder without .txt files.
    """
    path = _resolve(config.path, study_folder)
    if path.is_dir():
        files = _text_files(path)
        _check_names(files)
        return files
    if path.suffix.lower() not in FILE_SUFFIXES:
        raise CorpusError(
            f"corpus {config.path}: found the suffix {path.suffix or '(none)'!r}; expected a file "
            f"ending in {', '.join(FILE_SUFFIXES)}, or a folder of .txt files, one document each"
        )
    return [SourceFile(path=path, name=path.name)]


def list_source_files(config: CorpusConfig, study_folder: Path | None = None) -> list[Path]:
    """Paths of the files that `read_corpus` would read, in its order; errors as there."""
    return [file.path for file in find_source_files(config, study_folder)]


def corpus_fingerprint(config: CorpusConfig, study_folder: Path | None = None) -> str:
    """sha256 (64 hex digits) over the source files' names and contents.

    Where the corpus lies and when it was written do not count; the config is not part of it.
    """
    digest = hashlib.sha256()
    for file in find_source_files(config, study_folder):
        try:
            with file.path.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise unreadable(file, error) from error
        digest.update(f"{file.name}\0{content}\0".encode())
    return digest.hexdigest()


def unreadable(file: SourceFile, error: OSError) -> CorpusError:
    """The error for a file that is there but that the system does not let us read."""
    return CorpusError(
        f"corpus file {file.path}: {error.strerror or error}; make it readable or name another "
        "file in corpus.path"
    )


def _resolve(path: str, study_folder: Path | None) -> Path:
    if path.startswith(BUNDLED_PREFIX):
        name = path.removeprefix(BUNDLED_PREFIX)
        known = sorted(file.stem for file in BUNDLED_FOLDER.glob("*.jsonl"))
        if name not in known:
            raise CorpusError(
                f"corpus {path}: no bundled corpus {name!r}; expected one of "
                f"{', '.join(BUNDLED_PREFIX + one for one in known)}, or a file or folder"
            )
        return BUNDLED_FOLDER / f"{name}.jsonl"
    given = Path(path).expanduser()
    starts = [study_folder, Path.cwd()] if study_folder is not None else [Path.cwd()]
    candidates = list(dict.fromkeys((start / given).resolve() for start in starts))
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise CorpusError(
        f"corpus {path}: no such file or folder; looked at {', '.join(map(str, candidates))}. "
        f"{_nearest(candidates[0])}; mend corpus.path in the study (a relative path starts at the "
        f"study file's folder, then at the working folder) or use {BUNDLED_PREFIX}concepts"
    )


def _nearest(missing: Path) -> str:
    folder = next(parent for parent in missing.parents if parent.is_dir())
    return f"{folder} holds {_shown(sorted(entry.name for entry in folder.iterdir()))}"


def _shown(names: list[str]) -> str:
    rest = len(names) - MAX_NAMES_SHOWN
    shown = ", ".join(names[:MAX_NAMES_SHOWN]) or "nothing"
    return f"{shown} and {rest} more" if rest > 0 else shown


def _check_names(files: list[SourceFile]) -> None:
    for file in files:
        try:
            file.name.encode()
        except UnicodeEncodeError as error:
            shown = file.name.encode(errors="surrogateescape").decode(errors="replace")
            raise CorpusError(
                f"corpus file {shown}: its name is no valid UTF-8; rename the file or folder"
            ) from error


def _text_files(folder: Path) -> list[SourceFile]:
    relative = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    names = sorted(
        path.as_posix() for path in relative if not any(part.startswith(".") for part in path.parts)
    )
    texts = [name for name in names if Path(name).suffix.lower() == TEXT_SUFFIX]
    if not texts:
        suffixes = Counter(Path(name).suffix or "(none)" for name in names)
        found = ", ".join(f"{count} x {suffix}" for suffix, count in sorted(suffixes.items()))
        raise CorpusError(
            f"corpus folder {folder}: found no .txt file ({found or 'it is empty'}); expected one "
            f"document a .txt file, or name one {', '.join(FILE_SUFFIXES)} file in corpus.path"
        )
    files = []
    for name in texts:
        folders = name.split("/")[:-1]
        files.append(
            SourceFile(
                path=folder / name,
                name=name,
                concept=folders[-1] if folders else None,
                parent_concept=folders[-2] if len(folders) > 1 else None,
            )
        )
    return files
