"""Every error message is in a table, tests/messages.txt, so that each change of one is seen in review; all follow the same rules.

After a change of a message, `python tests/test_messages.py` writes the table again.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).with_name("messages.txt")
SOURCES = ("resynth_fast", "export")
BUILT_IN = {"ValueError", "TypeError"}
DIALECT = re.compile(r"\b(abreast|asked|drawn|given|kept|lends?|lent|looked|merging|nobody|place|who|whoever|what is)\b")
WAY_OUT = re.compile(r"; |\b(must|needs)\b")
NAMES = {"ONNX", "OpenVINO", "TensorRT"}

WITHOUT_VALUE = {
    "an argument is missing, so there is no value": [
        "an attributor needs at least one candidate; name one, for example zoo:",
        "blocks is empty; name at least one block",
        "the encoder takes pictures of any size; choose one with --size, for example 224",
        "there are no candidates; name at least one, for example zoo:",
    ],
    "options contradict each other, and the message names them": [
        "--prompt and --prompts-from-folders exclude each other; give one of them",
        "--race is for zoo:, whose references are generated; a dataset in a folder has its references; leave --race out",
        "--without scaling needs --without whitening too; the covariance is that of scaled features",
        "policy look-up generates nothing; leave out together, same_source, race, max_pictures and deadline",
        "recipe layer compares one of several equal taps, which this extractor lacks; use an extractor exported from an image encoder",
        "protocol open leaves each generator out once, so it needs at least three generators and --references 1 or more",
        "together and a gallery exclude each other, as both provide the prior; leave out one of the two",
        "together and same_source rest on all references of all probes; leave out race, max_pictures and deadline",
    ],
    "the whole data set, bundle or run is at fault, not one value": [
        "a score is not finite; verify the bundles (resynth candidates list --verify)",
        "no probe is by a generator that has references; add references to the dataset, or probes by generators that have them",
        "no probe has another picture of its prompt by every candidate; add pictures, or use --recipe default",
        "out of GPU memory; ask for fewer references or set a smaller batch",
        "the deadline passed before a single picture was generated for every probe; allow more seconds, or fewer steps",
        "the pictures changed while they were read; evaluate again when no program writes to the dataset",
        "TensorRT failed to run the plan; build it again with `resynth export plans`",
    ],
    "a part is absent, and the message names it": [
        "recipe paper needs the extractor's last layer, which was not exported; export it again with --last",
        "the texture extractor has no embedding; choose an extractor exported with --last",
        "this Stable Diffusion 3 lacks a CLIP encoder; use a checkpoint with text_encoder and text_encoder_2",
        "this Stable Diffusion XL is no base model (two text encoders, addition_embed_type text_time); use the base model",
        "this PixArt takes the picture's size and aspect ratio (use_additional_conditions), as PixArt-α does; use a PixArt-Σ",
        "this U-Net has no time_cond_proj_dim, so it takes no guidance scale; use a latent consistency model whose U-Net has it",
    ],
    "the command writes the picture's path before it": [
        "is not in the folder of a prompt; move it into one, or leave --prompts-from-folders out",
    ],
}
"""Messages that quote no value, by the reason why there is none."""


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
    found = {"ResynthError", "error_class"} | BUILT_IN
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
        case ast.FormattedValue(value=value, conversion=conversion, format_spec=spec):
            return f"{{{ast.unparse(value)}{f'!{chr(conversion)}' if conversion > 0 else ''}{f':{rendered(spec)}' if spec else ''}}}"
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return rendered(left) + rendered(right)
        case _:
            return f"{{{ast.unparse(node)}}}"


def alternatives(node: ast.expr) -> Iterator[ast.expr]:
    """The expression, or both branches of a conditional one."""
    if isinstance(node, ast.IfExp):
        yield from (*alternatives(node.body), *alternatives(node.orelse))
    else:
        yield node


def messages() -> Iterator[tuple[str, str, str]]:
    """(module, class, message) of each place that makes an error with a message."""
    trees = modules()
    classes = error_classes(trees)
    for path, tree in trees.items():
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[message, *_]) if name in classes:
                    yield from ((path, name, rendered(each)) for each in alternatives(message))


def table() -> str:
    """One line for each distinct message: module, class and message."""
    return "".join(sorted({f"{path}: {name}: {message}\n" for path, name, message in messages()}))


def user_facing() -> list[str]:
    """Messages of the package's own errors, and of wrong arguments to a kernel.

    A ValueError or TypeError elsewhere is caught and quoted by an error of the package, or marks a defect of the code. A message that is
    one expression passes another error on.
    """
    return sorted(
        {
            message
            for path, name, message in messages()
            if (name not in BUILT_IN or path.startswith("resynth_fast/kernels/")) and prose(message) != "…"
        }
    )


def prose(message: str) -> str:
    """The message without its computed parts."""
    while (shorter := re.sub(r"\{[^{}]*\}", "…", message)) != message:
        message = shorter
    return message


def test_the_table_of_messages_is_up_to_date() -> None:
    assert TABLE.read_text() == table()


@pytest.mark.parametrize("message", user_facing())
def test_a_message_names_the_value_and_the_way_out_in_plain_words(message: str) -> None:
    words = prose(message)
    assert "{" in message or message in itertools.chain.from_iterable(WITHOUT_VALUE.values()), "it quotes no value"
    assert WAY_OUT.search(message) or "but there is no " in message, "it says neither what is allowed nor what to do"
    assert not DIALECT.search(words), "it has a word that means nothing to a reader"
    assert not words.endswith((".", " ")), "it ends with a full stop or a space"
    assert "\n" not in message, "it has more than one line"
    assert message.split()[0] in NAMES or not re.match("[A-Z]", message), "it starts with a capital letter"


def test_every_exception_from_the_rules_is_a_message() -> None:
    assert set(itertools.chain.from_iterable(WITHOUT_VALUE.values())) <= set(user_facing())


if __name__ == "__main__":
    TABLE.write_text(table())
