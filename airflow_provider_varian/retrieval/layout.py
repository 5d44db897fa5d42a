"""Where an object is filed: a template of DICOM keywords made into a safe relative path.

Values come from a peer or a person and are not to be trusted (prior-art 5.3: a PatientID of ``../x``
is legal DICOM). Each becomes part of one path component that cannot climb, hide or collide with the
manifests. Standard library only.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Final

from airflow_provider_varian.errors import ConfigurationError

DEFAULT_LAYOUT: Final = "{StudyInstanceUID}/{SeriesInstanceUID}/{Modality}.{SOPInstanceUID}.dcm"

#: What stands for a keyword that an object does not have.
ABSENT: Final = "unknown"
#: Longest value, in bytes of UTF-8.
MAX_VALUE_BYTES: Final = 128
#: Longest file name that common file systems take, with room for a conflict's mark.
MAX_COMPONENT_BYTES: Final = 220

_KEYWORD: Final = re.compile(r"[A-Z][A-Za-z0-9]*")
#: What most values are made of, UIDs among them: nothing of it is replaced.
_PLAIN: Final = re.compile(r"[A-Za-z0-9._-]*")
_RESERVED: Final = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?", re.IGNORECASE)


class Layout:
    """A template such as ``{AcquisitionDate}/{StudyInstanceUID}/{Modality}.{SOPInstanceUID}.dcm``.

    :param template: components separated by ``/``; DICOM keywords in braces.
    :raises ConfigurationError: when it could file two objects under one name, or outside the root.
    """

    def __init__(self, template: str = DEFAULT_LAYOUT) -> None:
        self.template = template
        self._components = [_parsed(template, component) for component in template.split("/")]
        self.keywords = tuple(dict.fromkeys(key for component in self._components for _, key in component if key))
        if not any(key == "SOPInstanceUID" for _, key in self._components[-1]):
            raise _wrong(template, "does not name {SOPInstanceUID} in its last component", "objects would collide")

    def __repr__(self) -> str:
        return f"Layout({self.template!r})"

    def is_known(self, values: Mapping[str, object]) -> bool:
        """Say whether all keywords have values, so that the path can be told before the object is here."""
        return all(_text(values.get(key)) for key in self.keywords)

    def path(self, values: Mapping[str, object]) -> PurePosixPath:
        """Return the relative path of an object.

        :param values: the object's values by keyword; lists are joined, absent ones are ``unknown``.
        """
        return PurePosixPath(*(_filled(component, values) for component in self._components))


def safe_value(value: object, *, max_bytes: int = MAX_VALUE_BYTES) -> str:
    """Make a value fit to be part of a path component: letters, digits, ``-``, ``_`` and inner dots.

    :param value: what the object says; a list for several values.
    :param max_bytes: longest result in bytes of UTF-8.
    """
    text = _text(value)
    if not _PLAIN.fullmatch(text):
        text = unicodedata.normalize("NFC", text)
        text = "".join(char if char.isalnum() or char in "-_." else "_" for char in text)
    text = text.encode("utf-8")[:max_bytes].decode("utf-8", "ignore").rstrip(".")
    return text or ABSENT


def _filled(component: list[tuple[str, str]], values: Mapping[str, object]) -> str:
    name = ""
    for max_bytes in (MAX_VALUE_BYTES, 64, 32, 16):
        name = "".join(
            literal + (safe_value(values.get(key), max_bytes=64 if key.endswith("UID") else max_bytes) if key else "")
            for literal, key in component
        )
        if len(name.encode("utf-8")) <= MAX_COMPONENT_BYTES:
            break
    name = name.rstrip(". ") or ABSENT
    if name.startswith(".") or _RESERVED.fullmatch(name):
        name = f"_{name.lstrip('.')}"
    if len(name.encode("utf-8")) > MAX_COMPONENT_BYTES:
        raise ConfigurationError(
            f"a path component of the layout is longer than {MAX_COMPONENT_BYTES} bytes",
            step="layout",
            hint="Name fewer keywords between two slashes of the layout",
        )
    return name


def _parsed(template: str, component: str) -> list[tuple[str, str]]:
    try:
        parts = [
            (literal, key or "", spec or "", conversion)
            for literal, key, spec, conversion in string.Formatter().parse(component)
        ]
    except ValueError as error:
        raise _wrong(template, "is not well formed", str(error)) from error
    for literal, key, spec, conversion in parts:
        if spec or conversion or (key and not _KEYWORD.fullmatch(key)):
            raise _wrong(template, f"names {key!r}", "only DICOM keywords stand in braces, e.g. {Modality}")
        if _is_unsafe(literal):
            raise _wrong(template, "has characters that are not fit for every file system", "use letters and digits")
    if not parts or component in (".", "..") or component.startswith("."):
        raise _wrong(template, "has a component that is empty or begins with a dot", "write a/b/c without them")
    return [(literal, key) for literal, key, _, _ in parts]


def _is_unsafe(literal: str) -> bool:
    return any(not char.isprintable() or char in '\\:*?"<>|' for char in literal)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return "_".join(_text(part) for part in value)
    return str(value).strip(" \0")


def _wrong(template: str, what: str, hint: str) -> ConfigurationError:
    return ConfigurationError(f"layout {template!r} {what}", step="layout", hint=hint[:1].upper() + hint[1:])
