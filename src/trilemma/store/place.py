"""Where the store is, and whether only its owner can have written it.

Results are kept in a form that runs code when it is read (pickle, behind a list of allowed classes), so nothing is
read that another user could have put there.
"""

import os
import stat
import sys
from pathlib import Path
from typing import Final

from trilemma.errors import InputError

VARIABLE: Final = "TRILEMMA_STORE"
OFF: Final = "off"
FILE: Final = "runs.sqlite"
OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
BESIDE: Final = ("", "-wal", "-shm")  # the database, and the files SQLite keeps beside it while it is open


def switched_off() -> bool:
    """Whether the environment says to keep nothing (TRILEMMA_STORE=off)."""
    return named().lower() == OFF


def named() -> str:
    """The file that the environment names, empty where it names none."""
    return os.environ.get(VARIABLE, "").strip()


def usual_path() -> Path:
    """The database of this user: what TRILEMMA_STORE names, otherwise a file in the user's data folder."""
    return Path(named()).expanduser() if named() else _data_folder() / "trilemma" / FILE


def _data_folder() -> Path:
    """Where this system keeps what programs remember for a user."""
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Application Support"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    given = os.environ.get("XDG_DATA_HOME", "")
    return Path(given) if Path(given).is_absolute() else home / ".local" / "share"


def prepare(path: Path) -> None:
    """Makes the file, for its owner alone, where there is none; refuses one that somebody else could have written.

    Raises InputError for a place that cannot hold it, OSError where the folder cannot be made or written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.is_dir():
        raise InputError(f"store {path}", expected="a file", found="a folder")
    _refuse_writable_by_others(path.parent, "a folder", "go-w")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        for ending in BESIDE:
            beside = path.with_name(path.name + ending)
            if beside.exists():
                _refuse_writable_by_others(beside, "a file", "go-rwx")


def _refuse_writable_by_others(path: Path, what: str, remedy: str) -> None:
    """InputError where a path is not the user's own, or others may write it."""
    if not hasattr(os, "getuid"):  # Windows keeps a user's data folder to the user
        return
    found = path.stat()
    if found.st_uid != os.getuid():
        expected, said = f"{what} of your own", "one that belongs to another user"
        raise InputError(f"store {path}", expected=expected, found=said, hint=f"{VARIABLE} names another place")
    if found.st_mode & OTHERS_MAY_WRITE:
        expected, said = f"{what} that only you may write", f"mode {stat.S_IMODE(found.st_mode):03o}"
        raise InputError(f"store {path}", expected=expected, found=said, hint=f"chmod {remedy}, or another {VARIABLE}")
