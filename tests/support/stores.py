"""fsspec file systems that behave as stores do: writing in place, remembering listings, refusing to rename."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem


class Root:
    """What a destination needs of a ``UPath``, with a file system that need not be registered."""

    def __init__(self, fs: AbstractFileSystem, path: str | Path) -> None:
        self.fs = fs
        self.path = str(path)
        self.protocol = fs.protocol

    def __str__(self) -> str:
        return f"{self.protocol}://{self.path}"


class InPlace(LocalFileSystem):
    """Writes to the path itself, as SFTP and SMB do.

    :param at_half: called with a path when half of what is written to it is there.
    """

    protocol = "inplace"
    cachable = False

    def __init__(self, at_half: Callable[[str], object] | None = None) -> None:
        super().__init__()
        self._at_half = at_half

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        opened = super()._open(path, mode, **kwargs)
        if self._at_half is None or "r" in mode:
            return opened
        return _Halting(opened, lambda: self._at_half(path))

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        with self.open(path1, "rb") as reader, self.open(path2, "wb") as writer:
            writer.write(reader.read())

    # Not the short cut of local files: the client of a real store writes to an open file too.
    put_file = AbstractFileSystem.put_file


class _Halting(io.RawIOBase):
    """A file for writing that calls somebody half-way."""

    def __init__(self, raw: Any, at_half: Callable[[], object]) -> None:
        super().__init__()
        self._raw = raw
        self._at_half = at_half

    def write(self, data: Any) -> int:
        half = len(data) // 2
        self._raw.write(data[:half])
        self._raw.flush()
        self._at_half()
        self._raw.write(data[half:])
        return len(data)

    def close(self) -> None:
        self._raw.close()
        super().close()


class CopyOnly(InPlace):
    """Cannot rename: fsspec makes a copy and a removal of it."""

    protocol = "copyonly"
    mv = AbstractFileSystem.mv


class Neither(InPlace):
    """Can neither rename nor copy."""

    protocol = "neither"
    mv = AbstractFileSystem.mv
    cp_file = AbstractFileSystem.cp_file


class Refusing(InPlace):
    """Renames onto nothing only, as SMB does.

    :param silent: it does not say that it did not (WebHDFS).
    :param at_rename: called with both paths before each rename.
    """

    protocol = "refusing"

    def __init__(self, *, silent: bool = False, at_rename: Callable[[str, str], object] = lambda *_: None) -> None:
        super().__init__()
        self._silent = silent
        self._at_rename = at_rename

    def mv(self, path1: str, path2: str, **_: Any) -> None:
        self._at_rename(path1, path2)
        if not Path(path2).exists():
            Path(path1).rename(path2)
        elif not self._silent:
            raise OSError(errno.EEXIST, "Object name already exists")


class NumberedErrors(InPlace):
    """Tells that nothing is there by a number, not by the class of the error, as the client library of SMB does."""

    protocol = "numbered"

    def info(self, path: str, **kwargs: Any) -> Any:
        return self._numbered(super().info, path, **kwargs)

    def ls(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        return self._numbered(super().ls, path, detail=detail, **kwargs)

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        return self._numbered(super()._open, path, mode, **kwargs)

    @staticmethod
    def _numbered(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except FileNotFoundError as error:
            raise _NumberedError(error.errno) from None


class _NumberedError(OSError):
    def __init__(self, number: int | None) -> None:
        super().__init__()
        self.errno = number


class Remembering(InPlace):
    """Lists each folder once, and answers from memory until it is told to look anew."""

    protocol = "remembering"

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, list[dict[str, Any]]] = {}

    def ls(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        path = self._strip_protocol(path)
        if path not in self._seen:
            self._seen[path] = InPlace().ls(path, detail=True, **kwargs)
        return self._seen[path] if detail else [item["name"] for item in self._seen[path]]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        for item in self.ls(self._parent(path), detail=True):
            if item["name"] == self._strip_protocol(path):
                return item
        raise FileNotFoundError(path)

    def invalidate_cache(self, path: str | None = None) -> None:
        self._seen.clear()


class ObjectStore(MemoryFileSystem):
    """Shows whole uploads only; a file that is opened for writing would be committed half by an error.

    :param at_upload: called with a key before its upload is complete.
    """

    protocol = ("s3", "s3a")
    cachable = False
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    def __init__(self, at_upload: Callable[[str], object] = lambda _: None) -> None:
        super().__init__()
        self._at_upload = at_upload

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if mode != "rb":
            raise AssertionError("opened for writing")
        return super()._open(path, mode, **kwargs)

    def put_file(self, lpath: str, rpath: str, callback: Any = None, mode: str = "overwrite", **_: Any) -> None:
        self._commit(rpath, Path(lpath).read_bytes(), mode)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        self._commit(path, value, mode)

    def _commit(self, path: str, value: bytes, mode: str) -> None:
        self._at_upload(path)
        if mode == "create" and self.exists(path):
            raise RuntimeError("PreconditionFailed")
        super()._open(path, "wb", data=value)
