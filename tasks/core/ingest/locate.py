"""Which files a list of sources means: files, folders and globs."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import ConfigurationError
from tasks.core.ingest.rows import SourceFile

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".xlsx": "xlsx",
    ".txt": "txt",
    ".md": "md",
}
ACCEPTED = f"accepted are {', '.join(FORMATS)}"

# What this project writes below its root; with `reports ingest .` and the root in the
# same folder, its own output would come back as source files.
_OWN_FOLDERS = frozenset({"reports", "rejected", "datasets", "runs", "translations", "attempts"})
_OWN_SUFFIXES = frozenset({".parquet", ".json", ".jsonl"})
_SHOWN_NAMES = 3


@dataclass(frozen=True, slots=True)
class Located:
    """The files that the sources mean, sorted by name, and what was left out."""

    files: tuple[SourceFile, ...]
    notes: tuple[str, ...]


def locate(sources: Sequence[str], root: Path) -> Located:
    """The files behind the sources; each file once, however often it is given.

    A file is known by its name, by its path below the folder that was given, or by
    its path below the fixed leading folder of the glob. Hidden files, files of other
    formats and what stands in this project's own folders below `root` are left out
    of folders and globs, with a note.

    Raises `ConfigurationError` for a source without a readable file, for an unknown
    format and for two files that would be known by the same name.
    """
    found: dict[Path, SourceFile] = {}
    notes: list[str] = []
    for source in sources:
        files, left_out = _files_of(source, root)
        notes.extend(left_out)
        for file in files:
            found.setdefault(file.path.resolve(), file)
    by_name: dict[str, SourceFile] = {}
    for file in found.values():
        other = by_name.setdefault(file.name, file)
        if other is not file:
            raise ConfigurationError(
                f"{other.path} and {file.path} would both be known as {file.name!r}; "
                "ingest them from their common folder"
            )
    return Located(tuple(by_name[name] for name in sorted(by_name)), tuple(notes))


def _files_of(source: str, root: Path) -> tuple[list[SourceFile], list[str]]:
    if "://" in source:
        raise ConfigurationError(
            f"source {source}: only local files can be read; copy it to a local folder"
        )
    path = Path(source).expanduser()
    if path.is_file():
        if path.suffix.lower() not in FORMATS:
            raise ConfigurationError(f"source {source}: unknown format {path.suffix!r}; {ACCEPTED}")
        return [_source_file(path, path.name)], []
    if path.is_dir():
        return _readable(source, path, _walk(path), root)
    if glob.has_magic(source):
        return _readable(source, _fixed_folder(path), _expand(str(path)), root)
    raise ConfigurationError(
        f"source {source}: there is no such file or folder; give a file, a folder or a glob "
        f"of files ({ACCEPTED})"
    )


def _readable(
    source: str, folder: Path, paths: Iterator[Path], root: Path
) -> tuple[list[SourceFile], list[str]]:
    files: list[SourceFile] = []
    left_out: list[str] = []
    own = 0
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if _is_own(path, root):
            own += 1
        elif _is_hidden(name) or path.suffix.lower() not in FORMATS:
            left_out.append(name)
        else:
            files.append(_source_file(path, name))
    if not files:
        others = len(left_out) + own
        found = f"none of the {others} files there can be read" if others else "nothing is there"
        raise ConfigurationError(f"source {source}: {found}; {ACCEPTED}")
    notes = [_left_out_note(source, sorted(left_out))] if left_out else []
    if own:
        notes.append(f"{source}: {own} files left out that this project wrote below {root}")
    return files, notes


def _left_out_note(source: str, names: Sequence[str]) -> str:
    shown = ", ".join(_storable(name) for name in names[:_SHOWN_NAMES])
    more = ", …" if len(names) > _SHOWN_NAMES else ""
    return f"{source}: {len(names)} hidden or unknown files left out ({shown}{more}); {ACCEPTED}"


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise ConfigurationError(f"source {error.filename}: cannot be listed: {error.strerror}")

    for parent, _, names in os.walk(folder, onerror=refuse):
        for name in names:
            yield Path(parent, name)


def _expand(pattern: str) -> Iterator[Path]:
    for match in glob.iglob(pattern, recursive=True):  # noqa: PTH207 - Path.glob takes no absolute pattern
        if Path(match).is_file():
            yield Path(match)


def _fixed_folder(pattern: Path) -> Path:
    parts = pattern.parts
    magic = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:magic])


def _is_hidden(name: str) -> bool:
    # Office keeps a lock file "~$report.xlsx" next to an open report.xlsx.
    return any(part.startswith((".", "~$")) for part in name.split("/"))


def _is_own(path: Path, root: Path) -> bool:
    resolved = path.resolve()
    if not resolved.is_relative_to(root) or resolved.suffix not in _OWN_SUFFIXES:
        return False
    return resolved.relative_to(root).parts[0] in _OWN_FOLDERS


def _source_file(path: Path, name: str) -> SourceFile:
    return SourceFile(path, _storable(name), FORMATS[path.suffix.lower()])


def _storable(name: str) -> str:
    r"""A file name that is no UTF-8 on disk, with its odd bytes as \xNN."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
