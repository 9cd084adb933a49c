"""Files made from others that save time to have: machine code, inverted matrices.

They are kept beside the source they are made from (in its `__pycache__`), or where that cannot be written in the user's
cache; NUMBA_CACHE_DIR names a folder that comes before both. Their names carry a digest of all they are made from. What
was kept before is used also where its folder can only be read. What is kept is never a reason to fail: what cannot be
read is made anew, what cannot be written is not kept.
"""

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def places(source: Path) -> Iterator[Path]:
    """Folders for what is made from a source file, the preferred first."""
    own = f"{source.parent.name}_{sha256(str(source.parent).encode()).hexdigest()[:16]}"
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(given) / own
    yield source.parent / "__pycache__"
    with suppress(RuntimeError):  # nobody's home
        yield _user_cache() / "trilemma" / own


def _user_cache() -> Path:
    """Where this system keeps what programs can make again."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    given = os.environ.get("XDG_CACHE_HOME", "")
    return Path(given) if Path(given).is_absolute() else Path.home() / ".cache"


def found(source: Path, name: str) -> Iterator[Path]:
    """Where a file of this name is kept."""
    for folder in places(source):
        with suppress(OSError):
            if (folder / name).is_file():
                yield folder / name


def keep(source: Path, name: str, content: bytes, *, instead: str = "") -> None:
    """Writes the file whole or not at all, in the first folder that takes it; in none where all refuse. `instead` of
    files there that have such names (a pattern)."""
    for folder in places(source):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder, name, content)
        except OSError:
            continue
        for old in folder.glob(instead) if instead else ():
            with suppress(OSError):
                if old.name != name:
                    old.unlink()
        return


def kept_array(
    source: Path, stem: str, digest: str, make: Callable[[], FloatArray], *, shape: tuple[int, ...]
) -> FloatArray:
    """The float64 array that `make` makes, kept in a file that stays on disk: what is read of it is in memory, once for
    all processes. It cannot be written. One array of a stem is kept, that of the latest `digest`."""
    name = f"{stem}-{digest}.npy"
    for path in found(source, name):
        with suppress(OSError, ValueError):
            kept: FloatArray = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
            if kept.shape == shape and kept.dtype == np.float64:
                return kept
    array, content = make(), BytesIO()
    np.save(content, array, allow_pickle=False)
    keep(source, name, content.getvalue(), instead=f"{stem}-*.npy")
    return array


def _write(folder: Path, name: str, content: bytes) -> None:
    temporary = folder / f"{name}.tmp.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        with temporary.open("xb") as file:
            file.write(content)
        temporary.replace(folder / name)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
