"""What a verb of the command line is, and what its exit status means."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

    from airflow_provider_varian.cli.output import Output


class ExitStatus(IntEnum):
    """What the shell gets to see."""

    DONE = 0
    FAILED = 1
    WRONG_USAGE = 2
    INCOMPLETE = 3  # partial, short or limited
    NOTHING_FOUND = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One verb: its name, its options, and what it does.

    :param name: what is typed after ``varian-dicom``.
    :param summary: one line for the list of verbs.
    :param examples: complete command lines for ``--help``; shown as they are.
    :param add_arguments: adds the verb's options to its own parser.
    :param run: does the work and says how it ended. Raises only
        :class:`~airflow_provider_varian.errors.DicomError`.
    :param stands: whether it runs until it is stopped, and logs what happens meanwhile, with the time.
    """

    name: str
    summary: str
    examples: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace, Output], ExitStatus]
    stands: bool = False
