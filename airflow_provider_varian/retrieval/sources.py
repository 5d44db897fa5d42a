"""Which files are to be sent: files and folders of this machine, and of stores that fsspec knows.

No message names a file, since a name may hold a patient's: files are told by their place in the list.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from airflow_provider_varian.errors import ConfigurationError, TransientDicomError
from airflow_provider_varian.retrieval.outgoing import FRONT_BYTES, read_front
from airflow_provider_varian.retrieval.remote_files import RemoteFiles

if TYPE_CHECKING:
    from airflow_provider_varian.retrieval.destination import DestinationPath

    SourcePath: TypeAlias = str | Path | DestinationPath

_LOCAL_PROTOCOLS: Final = ("", "file", "local")
_STEP: Final = "files"


@dataclass(frozen=True, slots=True)
class Source:
    """One file.

    :param name: its path or URI; for the person who typed it, never for a log.
    :param front: returns its first bytes; raises OSError.
    :param local: gives it as a local file for the length of a block; raises OSError.
    """

    name: str
    front: Callable[[], bytes]
    local: Callable[[], AbstractContextManager[Path]]


def list_sources(named: Sequence[SourcePath], *, recursive: bool) -> list[Source]:
    """Return the files that some paths stand for, each once, a folder's in the order of their paths.

    In a folder, what begins with a dot is left out: manifests of ours among it, and half-written files of others.

    :param named: files and folders; text with ``://`` is a URI.
    :param recursive: whether folders inside folders are looked into.
    :raises ConfigurationError: when one is not there, told by its place.
    :raises TransientDicomError: when a folder cannot be listed.
    """
    found: dict[str, Source] = {}
    for place, path in enumerate(named, start=1):
        listed = _remote(path, place, recursive) if _is_remote(path) else _local(_as_path(path), place, recursive)
        for source in listed:
            found.setdefault(source.name, source)
    return list(found.values())


def _is_remote(path: SourcePath) -> bool:
    if isinstance(path, str):
        return "://" in path and not path.startswith(("file://", "local://"))
    return getattr(path, "protocol", "") not in _LOCAL_PROTOCOLS


def _as_path(path: Any) -> Path:
    if isinstance(path, str):
        return Path(path.partition("://")[2] or path)
    return Path(getattr(path, "path", None) or path)


def _local(path: Path, place: int, recursive: bool) -> Iterator[Source]:
    if not os.path.lexists(path):
        raise _not_there(place)
    if not path.is_dir():
        yield _local_source(path)
        return
    for folder, folders, names in os.walk(path, onerror=_fail):
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        yield from (_local_source(Path(folder, name)) for name in sorted(names) if not name.startswith("."))


def _local_source(path: Path) -> Source:
    return Source(str(path), lambda: read_front(path), lambda: nullcontext(path))


def _fail(error: OSError) -> None:
    raise TransientDicomError(
        f"a folder of files to be sent cannot be listed ({error.strerror or type(error).__name__})",
        step=_STEP,
        hint="Check that it may be read by this process",
    ) from None


def _remote(path: Any, place: int, recursive: bool) -> Iterator[Source]:
    files, root = _opened(path, place)
    with _telling("listed"):
        found = files.info(root)
        if found is None:
            raise _not_there(place)
        if found["type"] != "directory":
            yield _remote_source(files, root)
            return
        files.forget_listings()
        names = files.fs.find(root, maxdepth=None if recursive else 1)
    # A key that ends in a slash is how S3 consoles make a folder.
    files_alone = (name for name in sorted(names) if not name.endswith("/") and not _is_hidden(name, root))
    yield from (_remote_source(files, name) for name in files_alone)


def _opened(path: Any, place: int) -> tuple[RemoteFiles, str]:
    try:
        if isinstance(path, str):
            from upath import UPath

            path = UPath(path)
        return RemoteFiles(path.fs, uri=str(path)), str(path.path).rstrip("/")
    except Exception as error:  # noqa: BLE001 - each store raises what its client library raises
        raise ConfigurationError(
            f"number {place} of the files to be sent is in a store that cannot be opened ({type(error).__name__})",
            step=_STEP,
            hint="Install the package of that protocol, and check the connection it names",
        ) from None


def _remote_source(files: RemoteFiles, path: str) -> Source:
    def front() -> bytes:
        with _as_os_error():
            return files.reading(path, lambda reader: bytes(reader.read(FRONT_BYTES)))

    @contextmanager
    def local() -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(prefix="dicom-"))  # mkdtemp makes it private
        try:
            with _as_os_error():
                files.reading(path, lambda reader: _copy(reader, folder / "object"))
            yield folder / "object"
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return Source(f"{files.fs.unstrip_protocol(path)}", front, local)


def _copy(reader: Any, target: Path) -> None:
    # Begun again, from nothing, when the store says that the file was replaced meanwhile.
    with target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)


def _is_hidden(name: str, root: str) -> bool:
    relative = PurePosixPath(name.strip("/")).relative_to(root.strip("/"))
    return any(part.startswith(".") for part in relative.parts)


@contextmanager
def _telling(what: str) -> Iterator[None]:
    try:
        yield
    except (ConfigurationError, GeneratorExit):
        raise
    except Exception as error:  # noqa: BLE001 - each store raises what its client library raises
        raise TransientDicomError(
            f"the store of files to be sent cannot be {what} ({type(error).__name__})",
            step=_STEP,
            hint="Check that the store can be reached, and may be read over its connection",
        ) from None


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Tell of a store's errors in our words: in theirs the path may stand."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - each store raises what its client library raises
        number = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
        raise OSError(number, f"{os.strerror(number)}: the store answered {type(error).__name__}") from None


def _not_there(place: int) -> ConfigurationError:
    return ConfigurationError(
        f"number {place} of the files and folders to be sent is not there",
        step=_STEP,
        hint="Check its path, and that this process may look into its folder",
    )
