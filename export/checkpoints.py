"""Open a diffusers checkpoint that may be hostile: every file is checked before a library reads it.

A checkpoint is a folder of JSON and safetensors. Pickles, links and shard indices that leave the folder, classes that
are not diffusers' or transformers' own, headers of absurd size, weights that a config does not go with: a ConfigError
each, which names the file.
"""

from __future__ import annotations

import importlib
import json
import math
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from resynth_fast.errors import ConfigError

MAX_JSON_BYTES = 64 << 20  # the largest tokenizers have 35 MB
MAX_HEADER_BYTES = 16 << 20
MAX_TENSORS = 30_000
MAX_ELEMENTS = 1 << 36  # of one tensor
FUSE = "call load_lora_weights, fuse_lora and unload_lora_weights, then save_pretrained"
VARIANT = re.compile(r"^[^.]+\.([A-Za-z][A-Za-z0-9_]*)(-\d+-of-\d+)?\.safetensors$")
LIBRARIES = ("diffusers", "transformers")
PARTS = (torch.nn.Module, diffusers.SchedulerMixin, transformers.PreTrainedTokenizerBase)
# These inspect and change the pictures of a pipeline; they are not part of the generator.
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5")


def pipeline_class(folder: Path) -> str:
    """The `_class_name` of the pipeline in `folder`."""
    if folder.is_file():
        way = (
            "load it with GGUFQuantizationConfig, dequantize it"
            if folder.suffix == ".gguf"
            else "load it with from_single_file of its pipeline"
        )
        raise ConfigError(f"{folder} is a single file; {way} and save it with save_pretrained, then give that folder")
    try:
        name = _json(folder / "model_index.json")["_class_name"]
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"{folder} is not a diffusers pipeline: its model_index.json has no _class_name; give a folder written by save_pretrained"
        ) from error
    if not isinstance(name, str):
        raise ConfigError(f"{folder}/model_index.json: _class_name is {name!r}; it must be the name of a pipeline class")
    return name


def load(folder: Path, kind: Any, settle: Callable[[torch.nn.Module], None] | None = None) -> Any:
    """The pipeline of class `kind` in `folder`, in float32 on the CPU, without what is not part of the generator.

    `settle` is applied to each network before the next is read.
    """
    check(folder)
    parts = dict(_parts(folder))
    networks = {}
    for name, cls in parts.items():
        if issubclass(cls, torch.nn.Module):
            networks[name] = _network(folder / name, cls)
            if settle:
                settle(networks[name])
    index = _json(folder / "model_index.json")
    without = {name: None for name, part in index.items() if name in UNUSED or part == [None, None]}
    if "safety_checker" in without:
        without["requires_safety_checker"] = False  # type: ignore[assignment]
    try:
        pipeline = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, **networks, **without)
    except Exception as error:  # the exceptions of the libraries share no base class
        raise ConfigError(f"{folder} cannot be opened as {kind.__name__} ({line(error)}); correct its files") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def network(folder: Path, cls: Any) -> torch.nn.Module:
    """The network of class `cls` in `folder`, as transformers saves it, in float32 on the CPU."""
    check(folder)
    return _network(folder, cls)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file of a checkpoint; ConfigError if the file is too large, broken or holds something else."""
    return _json(path)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and progress bars of the libraries: an export is compared with the original anyway."""
    libraries = (diffusers.utils.logging, transformers.utils.logging)
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for library, (level, bar) in zip(libraries, before, strict=True):
            library.set_verbosity(level)
            if bar:
                library.enable_progress_bar()


def networks(pipeline: Any) -> list[torch.nn.Module]:
    """The torch modules of a pipeline."""
    return [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]


def check(folder: Path) -> None:
    """Refuse a folder with a file that is not safe to pass to a library."""
    roots = _roots(folder)
    for path in sorted(folder.rglob("*")):
        resolved = path.resolve()
        if not any(resolved.is_relative_to(root) for root in roots):
            raise ConfigError(f"{path} is a link to outside the checkpoint's folder; replace it by the file")
        if path.is_dir():
            continue
        if not path.is_file():
            raise ConfigError(f"{path} is missing or not a regular file; fetch the checkpoint again")
        if path.name.endswith(".index.json"):
            _check_index(path)
        elif path.suffix == ".json":
            _check_size(path, MAX_JSON_BYTES)
        elif path.name == "pytorch_lora_weights.safetensors":
            raise ConfigError(
                f"{path} is a LoRA, which the pipeline does not load; {FUSE}, or move the file elsewhere to export without it"
            )
        elif path.suffix == ".safetensors":
            tensors(path)


def tensors(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a safetensors file; the size of its header and its number of tensors are checked before it is parsed."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if length > size - 8:
            raise ConfigError(f"{path} is truncated: its header states {length} bytes, the file has {size}; fetch it again")
        if length > MAX_HEADER_BYTES:
            raise ConfigError(f"{path}: its header has {length} bytes; a model's has at most {MAX_HEADER_BYTES}: give another checkpoint")
        header = file.read(length)
    # Every tensor has this key; parsing hundreds of thousands of entries takes seconds and hundreds of megabytes.
    if (count := header.count(b'"data_offsets"')) > MAX_TENSORS:
        raise ConfigError(f"{path} has {count} tensors; a model has at most {MAX_TENSORS}: give another checkpoint")
    try:
        entries = {name: tuple(entry["shape"]) for name, entry in json.loads(header).items() if name != "__metadata__"}
        absurd = [name for name, shape in entries.items() if math.prod(shape) > MAX_ELEMENTS]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path}: its header cannot be read ({line(error)}); fetch it again") from error
    if absurd:
        raise ConfigError(
            f"{path}: tensor {absurd[0][:80]!r} has {entries[absurd[0]]} elements; "
            f"a model has at most {MAX_ELEMENTS}: give another checkpoint"
        )
    return entries


def _roots(folder: Path) -> list[Path]:
    """Folders that links may lead to: the checkpoint's own, and the hub cache's store of files if it is a snapshot in that cache."""
    root = folder.resolve()
    cached = root.parent.name == "snapshots" and root.parents[1].name.startswith("models--")
    return [root, root.parents[1] / "blobs"] if cached else [root]


def _parts(folder: Path) -> Iterator[tuple[str, Any]]:
    """(name, class) of each part that `model_index.json` lists."""
    index = _json(folder / "model_index.json")
    for name, entry in index.items():
        if name.startswith("_") or name in UNUSED or not isinstance(entry, list) or None in entry:
            continue
        library, cls = (str(value) for value in (*entry, "", "")[:2])
        found = getattr(importlib.import_module(library), cls, None) if library in LIBRARIES else None
        if not isinstance(found, type) or not issubclass(found, PARTS):
            raise ConfigError(
                f"{folder}/model_index.json: {name} is {library}.{cls}; "
                f"it must be a network, noise scheduler or tokenizer of {' or '.join(LIBRARIES)}"
            )
        if "/" in name or "\\" in name or name == ".." or not (folder / name).is_dir():
            raise ConfigError(f"{folder}: the folder {name!r} is missing; fetch the checkpoint again")
        yield name, found


def _network(folder: Path, cls: Any) -> torch.nn.Module:
    """Load a network; its file must hold all of its weights and no others."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = [path.name for path in sorted(folder.iterdir()) if path.suffix in PICKLES]
        if pickles:
            raise ConfigError(
                f"{folder}: {pickles[0]} is a pickle, which can run code when it is loaded; convert the weights to safetensors"
            )
        raise ConfigError(f"{folder} has no weights (*.safetensors); fetch the checkpoint again")
    variant = _variant(files)
    read = [path for path in files if _variant([path]) == variant]
    _check_config(folder / "config.json", sum(len(tensors(path)) for path in read))
    _check_names(folder, sorted({name for path in read for name in tensors(path)}))
    try:
        model, info = cls.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True, variant=variant
        )
    except Exception as error:  # the exceptions of the libraries share no base class
        raise ConfigError(
            f"{folder} cannot be opened as {cls.__name__} ({line(error)}); "
            "its config and its weights do not match: fetch the checkpoint again"
        ) from error
    info = info if isinstance(info, dict) else vars(info)
    for kind in ("missing_keys", "mismatched_keys", "error_msgs"):
        if found := sorted(str(key) for key in info.get(kind) or ()):
            raise ConfigError(
                f"{folder}: {len(found)} {kind.replace('_', ' ')} as {cls.__name__} ({found[0][:120]}); "
                "its config and its weights do not match: fetch the checkpoint again"
            )
    model.eval()
    return model


def _variant(files: list[Path]) -> str | None:
    """None if the plain weights are there, else the variant that the libraries wrote (`*.fp16.safetensors`)."""
    found = [match.group(1) if (match := VARIANT.match(path.name)) else None for path in files]
    return None if None in found else sorted(str(name) for name in found)[0]


def _check_names(folder: Path, names: list[str]) -> None:
    """Refuse weights that libraries would read without the part that makes them what they are."""
    for name in names:
        if name.endswith(("scale_weight", "weight_scale", "scaled_fp8")):
            raise ConfigError(
                f"{folder}: {name[:120]} belongs to scaled 8-bit weights, whose scales the libraries ignore; "
                "multiply the weights by their scales, or give a checkpoint in 16 bits"
            )
        if ".lora_" in name or "lora_layer" in name or ".base_layer." in name:
            raise ConfigError(f"{folder}: {name[:120]} belongs to a LoRA that is not fused; {FUSE}")


def _check_index(path: Path) -> None:
    """Check that a shard index lists only files beside it."""
    weight_map = _json(path).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ConfigError(f"{path} has no weight_map; fetch it again")
    if len(weight_map) > MAX_TENSORS:
        raise ConfigError(f"{path}: {len(weight_map)} tensors; a model has at most {MAX_TENSORS}: give another checkpoint")
    for shard in sorted({str(name) for name in weight_map.values()}):
        if Path(shard).name != shard or "\\" in shard:
            raise ConfigError(f"{path} lists the shard {shard[:80]!r}, which lies outside its folder; fetch it again")
        if path.name.endswith(".safetensors.index.json") and not shard.endswith(".safetensors"):
            raise ConfigError(f"{path} lists the shard {shard[:80]!r}, which is not a safetensors file; fetch it again")
        if not (path.parent / shard).is_file():
            raise ConfigError(f"{path} lists the shard {shard[:80]!r}, which is missing; fetch it again")


def _check_config(path: Path, count: int) -> None:
    """Refuse a config with more layers than the weights have tensors: building such a network would never end."""
    config = _json(path)
    if isinstance(quantised := config.get("quantization_config"), dict):
        raise ConfigError(
            f"{path}: the weights are quantised ({str(quantised.get('quant_method'))[:40]}); "
            "give the checkpoint that is not quantised, or call dequantize and save_pretrained"
        )
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for key, value in part.items():
            if "layers" in key and isinstance(value, int) and value > count:
                raise ConfigError(
                    f"{path}: {key} is {value}, but the weights are {count} tensors; "
                    "its config and its weights do not match: fetch the checkpoint again"
                )


def _check_size(path: Path, limit: int) -> None:
    if (size := path.stat().st_size) > limit:
        raise ConfigError(f"{path} has {size} bytes; a model's has at most {limit}: give another checkpoint")


def _json(path: Path) -> dict[str, Any]:
    try:
        _check_size(path, MAX_JSON_BYTES)
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        kind = "diffusers pipeline" if path.name == "model_index.json" else "checkpoint that can be read"
        raise ConfigError(
            f"{path.parent} is not a {kind}: {path.name} cannot be read ({line(error)}); give a folder written by save_pretrained"
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no JSON object; fetch it again")
    return content


def line(error: BaseException) -> str:
    """The first line of a library's message."""
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0][:240]
