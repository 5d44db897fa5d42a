"""Which tests bear which marker, read from their source: the pages name a promise's test without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class MarkedTest:
    """A test function with a marker.

    :param path: of its file, below the repository.
    :param arguments: of the marker, e.g. ``(5, "row_limit")`` of ``@pytest.mark.quirk(5, "row_limit")``.
    :param fixtures: the names of its parameters.
    """

    path: str
    name: str
    marker: str
    arguments: tuple[object, ...]
    fixtures: tuple[str, ...]


def marked_tests(top: Path, markers: frozenset[str]) -> list[MarkedTest]:
    """List the tests below ``top/tests`` that bear one of the markers, in the order of files and lines."""
    found = []
    for path in sorted((top / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if any(f"pytest.mark.{marker}" in text for marker in markers):
            found += _in_file(path.relative_to(top).as_posix(), ast.parse(text), markers)
    return found


def _in_file(path: str, tree: ast.Module, markers: frozenset[str]) -> Iterator[MarkedTest]:
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        fixtures = tuple(argument.arg for argument in node.args.args)
        # Decorators are written from the outside in; the order of the marks is that of the page.
        for decorator in node.decorator_list:
            marker = _marker(decorator)
            if marker in markers and isinstance(decorator, ast.Call):
                arguments = tuple(ast.literal_eval(argument) for argument in decorator.args)
                yield MarkedTest(path, node.name, marker, arguments, fixtures)


def _marker(decorator: ast.expr) -> str:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = ast.unparse(called)
    return name.removeprefix("pytest.mark.") if name.startswith("pytest.mark.") else ""
