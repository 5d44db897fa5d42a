"""What an audit sink does not take waits on the disk of this host, and goes to it before anything else does.

For those who live for one retrieval: a standing receiver keeps what waits in memory and tries again, a task has ended
by then. Each message is a small file; whoever writes to the same sink next, on the same host, brings what waits there
along. A message is removed when the sink has taken it, so one may come twice, and none is lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from airflow_provider_varian.errors import DicomError
from airflow_provider_varian.receiver.audit_sinks import AuditSink
from airflow_provider_varian.receiver.audit_xml import AuditMessage
from airflow_provider_varian.receiver.folders import make_private_folder, sync_folder

logger = logging.getLogger(__name__)

#: A sink that does not answer is left alone for so long: a retrieval of many studies must not wait for each of them.
_AGAIN_SECONDS: Final = 60.0
#: So many of what waits are handed over at once, and before one batch of ours.
_BATCH: Final = 100
_AT_ONCE: Final = 1000
_SUFFIX: Final = ".json"
_UNREADABLE: Final = ".unreadable"


class WaitingSink:
    """A sink in front of another one, which loses nothing while that one is down (:class:`.audit_sinks.AuditSink`).

    :param sink: where the messages go.
    :param folder: where they wait; made (0700) when one has to.
    """

    def __init__(self, sink: AuditSink, folder: Path) -> None:
        self._sink = sink
        self._folder = folder
        self._again_at = 0.0
        self._why = ""
        self._has_said = False

    @property
    def name(self) -> str:
        """The name of the sink behind it."""
        return self._sink.name

    def write(self, messages: Sequence[AuditMessage]) -> None:
        """Write messages, or keep them.

        :raises OSError: when neither is possible.
        """
        if time.monotonic() >= self._again_at and self._hand_over(messages):
            return
        self._keep(messages)
        if not self._has_said:
            self._has_said = True
            logger.error(
                "Audit: %s cannot be written: %s. What it should be told waits in %s, and is handed over by the next "
                "task on this host that can; the work goes on",
                self._sink.name,
                self._why,
                self._folder,
            )

    def close(self) -> None:
        """End."""
        self._sink.close()

    def waiting(self) -> int:
        """Return how many messages wait."""
        return len(self._names())

    def _hand_over(self, messages: Sequence[AuditMessage]) -> bool:
        try:
            self._hand_over_waiting()
            self._sink.write(messages)
        except (OSError, DicomError) as error:
            why = error.explanation if isinstance(error, DicomError) else (error.strerror or type(error).__name__)
            self._again_at = time.monotonic() + _AGAIN_SECONDS
            if why != self._why:
                self._why, self._has_said = why, False
            return False
        self._why = ""
        return True

    def _hand_over_waiting(self) -> None:
        if not self._names():
            return
        with self._alone() as is_ours:
            names = self._names()[:_AT_ONCE] if is_ours else []
            for start in range(0, len(names), _BATCH):
                some = [(path, self._read(path)) for path in map(self._folder.joinpath, names[start : start + _BATCH])]
                self._sink.write([message for _, message in some if message is not None])
                for path, message in some:
                    if message is not None:
                        path.unlink(missing_ok=True)
            if names:
                logger.warning("Audit: %d messages that waited were handed over to %s", len(names), self._sink.name)

    def _names(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(name for name in os.listdir(self._folder) if name.endswith(_SUFFIX))
        return []

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Say whether what waits is ours to hand over: nobody else does it now."""
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
        finally:
            os.close(descriptor)

    def _read(self, path: Path) -> AuditMessage | None:
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            when = datetime.fromisoformat(kept["when"])
            return AuditMessage(xml=str(kept["xml"]), when=when, warns=bool(kept["warns"]))
        except (ValueError, KeyError, TypeError):
            logger.error("Audit: %s is no message that waits; it is left as %s%s", path, path.name, _UNREADABLE)
            path.rename(path.with_name(path.name + _UNREADABLE))
            return None

    def _keep(self, messages: Sequence[AuditMessage]) -> None:
        make_private_folder(self._folder)
        for message in messages:
            kept = {"xml": message.xml, "when": message.when.isoformat(), "warns": message.warns}
            # In the order in which they were told.
            name = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
            temporary = self._folder / f".{name}"
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(json.dumps(kept))
                    file.flush()
                    os.fsync(file.fileno())
                temporary.rename(self._folder / f"{name}{_SUFFIX}")
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        sync_folder(self._folder)
