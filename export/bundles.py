"""Write a bundle, whole or not at all. Files with equal content are shared with the bundles beside it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from resynth_fast import files
from resynth_fast.backends.onnx_model import OnnxModel
from resynth_fast.bundle import MANIFEST, OBJECTS, SCHEMA_VERSION, Bundle

from . import graphs, verify
from .canonical import TextInput
from .graphs import Network
from .verify import Parity

DOMAIN = "domain.safetensors"


def write(
    to: Path,
    fields: Mapping[str, Any],
    networks: Mapping[str, Network | bytes],
    text_inputs: Sequence[TextInput] = (),
    check: Callable[[Bundle], None] = lambda bundle: None,
    constants: bytes | None = None,
    domain: bytes | None = None,
    precision: str = "float16-stored",
    parity: Parity | None = None,
) -> Bundle:
    """Export `networks` (or copy finished graphs), compare them with torch and publish the bundle as `to / fields["name"]`.

    Nothing is published unless the comparison and `check` succeed. `fields` are those of the manifest, without the ones that
    follow from the networks and the tokenizers. `constants` is a safetensors file of fitted arrays, `domain` one of a
    `Domain`. Measured differences are written to `parity`. Files are stored in `to / "objects"` under their hash. A bundle of the
    same name is replaced.
    """
    name, parity = fields["name"], parity or Parity()
    draft = to / f".{name}.{os.getpid()}"
    draft.mkdir(parents=True)
    try:
        manifest = {
            "schema_version": SCHEMA_VERSION,
            **fields,
            "components": {key: _component(draft, key, network, precision, parity) for key, network in networks.items()},
        }
        if text_inputs:
            manifest["tokenizers"] = [_tokenizer(draft, i, text_input) for i, text_input in enumerate(text_inputs)]
        if constants is not None:
            manifest["constants"] = _file(draft, "constants.safetensors", constants)
        if domain is not None:
            manifest["domain"] = _file(draft, DOMAIN, domain)
        (draft / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        bundle = Bundle.open(draft)
        errors = verify.components(bundle, {key: network for key, network in networks.items() if isinstance(network, Network)})
        parity.components.update(errors)
        if errors:
            print(name, "against torch:", ", ".join(f"{key} {error:.1e}" for key, error in errors.items()), file=sys.stderr, flush=True)
        check(bundle)
        return _publish(draft, to / name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def set_domain(bundle: Bundle, domain: bytes, **fields: Any) -> Bundle:
    """Give a finished bundle another `domain`, a safetensors file, with `fields` beside it in the manifest. All else stays."""
    sha256 = hashlib.sha256(domain).hexdigest()
    manifest = {**bundle.manifest, "domain": {"file": DOMAIN, "sha256": sha256, **fields}}
    files.write(bundle.folder.parent / OBJECTS / f"{sha256}.safetensors", domain)
    files.write(bundle.folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    return Bundle.open(bundle.folder)


def prune(to: Path) -> None:
    """Remove objects that no bundle in `to` lists any more. Must not run while another export writes there."""
    used = {file.path for path in to.glob(f"[!.]*/{MANIFEST}") for file in Bundle.open(path.parent).files()}
    for path in (to / OBJECTS).iterdir():
        if path not in used:
            path.unlink()


def _component(draft: Path, name: str, network: Network | bytes, precision: str, parity: Parity) -> dict[str, Any]:
    start = time.perf_counter()
    path = draft / f"{name}.onnx"
    work = {}
    if isinstance(network, bytes):
        model, precision = OnnxModel(network), "as given"
        path.write_bytes(network)
    else:
        model = graphs.export(network, path, halved=precision == "float16-stored")
        work = {"flops": graphs.flops(network)}
    parity.seconds[name] = time.perf_counter() - start
    inputs, outputs = graphs.describe(model.graph)
    entry = {"file": path.name, "sha256": hashlib.sha256(model.graph).hexdigest()}
    data = {"data": [{"file": location, "sha256": Path(location).stem} for location in model.data]} if model.data else {}
    return {**entry, **data, "precision": precision, **work, "inputs": inputs, "outputs": outputs}


def _tokenizer(draft: Path, i: int, text_input: TextInput) -> dict[str, Any]:
    """Write `tokenizer.json` without its settings for padding and truncation: the manifest has them."""
    content = json.loads(text_input.tokenizer.backend_tokenizer.to_str())
    content["padding"] = content["truncation"] = None
    text = json.dumps(content, ensure_ascii=False, sort_keys=True).encode()
    entry = {**_file(draft, f"tokenizer_{i}.json", text), "max_tokens": text_input.max_tokens}
    entry["pad_id"] = int(text_input.tokenizer.pad_token_id)
    return entry | ({"prefix": text_input.prefix} if text_input.prefix else {}) | ({"lowercase": True} if text_input.lowercase else {})


def _file(draft: Path, name: str, content: bytes) -> dict[str, str]:
    (draft / name).write_bytes(content)
    return {"file": name, "sha256": hashlib.sha256(content).hexdigest()}


def _publish(draft: Path, final: Path) -> Bundle:
    """Move the files into the shared objects, then rename the folder to its final name."""
    objects = final.parent / OBJECTS
    objects.mkdir(exist_ok=True)
    for file in Bundle.open(draft).files():
        os.replace(file.path, objects / (file.sha256 + file.path.suffix))
    shutil.rmtree(final, ignore_errors=True)
    os.replace(draft, final)
    return Bundle.open(final)
