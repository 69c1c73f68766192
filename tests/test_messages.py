"""Every error message is in a table, tests/messages.txt, so that each change of one is seen in review.

After a change of a message, `python tests/test_messages.py` writes the table again.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).with_name("messages.txt")
SOURCES = ("resynth_fast", "export")
BUILT_IN = {"ValueError", "TypeError"}


def modules() -> dict[str, ast.Module]:
    """The syntax trees of all modules, by their paths."""
    paths = sorted(itertools.chain.from_iterable((ROOT / folder).rglob("*.py") for folder in SOURCES))
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in paths}


def error_classes(trees: dict[str, ast.Module]) -> set[str]:
    """The names of ResynthError, of all classes that inherit from it, and of the built-in errors that callers can cause."""
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found = {"ResynthError"} | BUILT_IN
    while new := {name for name, of in bases.items() if of & found} - found:
        found |= new
    return found


def rendered(node: ast.expr) -> str:
    """The message that an expression makes, each computed part as its source in braces."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(rendered(part) for part in parts)
        case ast.FormattedValue(value=ast.Constant(value=str(text))):
            return text
        case ast.FormattedValue():
            return ast.unparse(ast.JoinedStr([node]))[2:-1]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return rendered(left) + rendered(right)
        case _:
            return f"{{{ast.unparse(node)}}}"


def messages() -> Iterator[tuple[str, str, str]]:
    """(module, class, message) of each place that makes an error with a message."""
    trees = modules()
    classes = error_classes(trees)
    for path, tree in trees.items():
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Name(id=name), args=[message, *_]) if name in classes or name == "error_class":
                    yield path, name, rendered(message)


def table() -> str:
    """One line for each distinct message: module, class and message."""
    return "".join(sorted({f"{path}: {name}: {message}\n" for path, name, message in messages()}))


def test_the_table_of_messages_is_up_to_date() -> None:
    assert TABLE.read_text() == table()


if __name__ == "__main__":
    TABLE.write_text(table())
