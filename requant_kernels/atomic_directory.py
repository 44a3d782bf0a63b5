"""A directory that is written whole or not at all: fill a temporary sibling, then rename it into place."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def nearest_existing_ancestor(path: Path) -> Path:
    """The closest parent of `path` that exists (it may be a file)."""
    return next(parent for parent in path.absolute().parents if parent.exists() or parent.is_symlink())


def check_output_directory(directory: str | Path, *, overwrite: bool = False) -> None:
    """Raises FileExistsError or PermissionError if `directory` cannot be written; leaves nothing behind.

    An existing directory is only ever replaced with `overwrite`, and only if it is empty or holds a model
    (`config.json`): a mistyped path must not cost anyone their home directory.
    """
    directory = Path(directory)
    if directory.exists() or directory.is_symlink():
        if not overwrite:
            raise FileExistsError(f"{directory}: already exists; expected a new directory (or ask to overwrite it)")
        if not directory.is_dir() or directory.is_symlink():
            raise FileExistsError(f"{directory}: is not a directory, refusing to overwrite it")
        if any(directory.iterdir()) and not (directory / "config.json").is_file():
            raise FileExistsError(f"{directory}: holds files but no config.json, refusing to overwrite it")
    _temporary_directory_near(directory).rmdir()


@contextmanager
def atomic_directory(directory: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields an empty temporary directory that becomes `directory` when the block ends without an exception.

    On any exception, Ctrl-C included, the temporary directory is removed and `directory` is as it was before. Raises
    FileExistsError or PermissionError at entry, before any work, if the output cannot be written.
    """
    directory = Path(directory)
    check_output_directory(directory, overwrite=overwrite)
    temporary = _temporary_directory_near(directory)
    try:
        yield temporary
        _move_into_place(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary_directory_near(directory: Path) -> Path:
    """Created in the nearest existing ancestor, so that it is on the same file system and no parent is left behind.

    A plain mkdir, because tempfile's directories are private whatever the umask says.
    """
    ancestor = nearest_existing_ancestor(directory)
    temporary = ancestor / f".{directory.name}.{secrets.token_hex(4)}.partial"
    try:
        temporary.mkdir()
    except OSError as error:
        raise PermissionError(f"{directory}: cannot be written: {ancestor}: {error.strerror}") from error
    return temporary


def _move_into_place(temporary: Path, directory: Path) -> None:
    if not directory.exists():
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary.rename(directory)
        return
    replaced = _temporary_directory_near(directory)
    directory.rename(replaced)  # rename(2) replaces the empty directory `replaced`
    try:
        temporary.rename(directory)
    except BaseException:
        replaced.rename(directory)
        raise
    shutil.rmtree(replaced, ignore_errors=True)
