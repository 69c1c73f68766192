"""Metadata of a picture file about its origin: generation parameters and C2PA content credentials.

These are hints that anybody can write or remove. They are shown beside a verdict and never change it. Nothing here raises,
whatever a file holds: unknown metadata is "unparsed" or "unreadable". The parsers are our own, because the libraries tried
(sd-parsers 0.6) find neither model nor prompt in the graphs of today's models and raise on hostile text.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ..types import Picture
from . import cleaned

MAX_PROMPT_CHARS = 10_000
MAX_NAME_CHARS = 300
MAX_NODES = 5_000
"""Limit on the nodes of a ComfyUI graph; real graphs have up to a few hundred."""
MAX_CODES = 40
_MAX_SETTINGS_CHARS = 4_000
_MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif", "TIFF": "image/tiff"}
_SETTING = re.compile(r'(\w[\w \-/]{0,40}):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
_WEIGHTS = (".safetensors", ".sft", ".ckpt", ".gguf", ".pth", ".pt", ".bin")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Generation parameters. A field is None where the file does not state it."""

    status: Literal["absent", "parsed", "unparsed", "not examined"] = "not examined"
    """unparsed: the file has text in a field for such parameters, in no known form."""
    generator: str | None = None
    """The program whose format the parameters have; other programs write that format too."""
    software: str | None = None
    model: str | None = None
    prompt: str | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """C2PA content credentials.

    Validation codes are those of the standard. Most genuine files have some, for an expired or unlisted certificate.
    """

    status: Literal["absent", "present", "unreadable", "not examined"] = "not examined"
    issuer: str | None = None
    """Organisation named by the signing certificate; who issued the certificate is not checked."""
    common_name: str | None = None
    generator: str | None = None
    """The generator that the claim names."""
    hash: Literal["matches", "differs"] | None = None
    """Whether the file's bytes are the signed ones; None where this is not known."""
    codes: tuple[str, ...] = ()
    """Validation codes of failed checks."""


OFFLINE: Json = {
    "core": {"allowed_network_hosts": [], "decode_identity_assertions": False},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
}
"""c2pa's settings: a picture can name hosts of a manifest, of revocation lists and of identities (did:web), and none is asked."""
NOT_EXAMINED: Json = {"parameters": {}, "generation": asdict(Generation()), "c2pa": asdict(Credentials()) | {"codes": []}}


def of(picture: Picture) -> Json:
    """All metadata, in the form of the record."""
    signed = credentials(picture)
    return {
        "parameters": dict(picture.info),
        "generation": asdict(generation(picture.info)),
        "c2pa": asdict(signed) | {"codes": list(signed.codes)},
    }


def generation(info: Mapping[str, str]) -> Generation:
    """Generation parameters in a picture's text (`Picture.info`)."""
    software = _text(info.get("Software"), MAX_NAME_CHARS)
    for key, generator, parse in (
        ("invokeai_metadata", "InvokeAI", _flat),
        ("sd-metadata", "InvokeAI", _invoke_legacy),
        ("prompt", "ComfyUI", _comfy),
        ("workflow", "ComfyUI", _comfy_workflow),
        ("parameters", "AUTOMATIC1111", _a1111),
        ("UserComment", "AUTOMATIC1111", _a1111),
    ):
        if not (text := info.get(key)):
            continue
        try:
            found = parse(text)
        except Exception:  # the text is untrusted, and no more than a hint
            continue
        if any(value is not None for value in (found.model, found.prompt, found.seed, found.steps, found.guidance)):
            return replace(found, status="parsed", generator=generator, software=found.software or software)
    # Cameras write user comments too: an unknown one counts as absent.
    known = any(info.get(key) for key in ("invokeai_metadata", "sd-metadata", "prompt", "workflow", "parameters"))
    return Generation(status="unparsed" if known else "absent", software=software)


def credentials(picture: Picture) -> Credentials:
    """The file's C2PA manifest, checked against its bytes without any network; "not examined" where c2pa-python is not installed."""
    if picture.format not in _MIME or b"jumb" not in picture.data:
        return Credentials(status="absent")
    try:
        import c2pa
    except ImportError:
        return Credentials()
    try:
        context = c2pa.Context.from_dict(OFFLINE)
        reader = c2pa.Reader.try_create(_MIME[picture.format], io.BytesIO(picture.data), context=context)
        if reader is None:
            return Credentials(status="absent")
        with reader:
            return _credentials(json.loads(reader.json()))
    except Exception:  # as above
        return Credentials(status="unreadable")


def _credentials(store: Json) -> Credentials:
    manifest = store["manifests"][store["active_manifest"]]
    signature = manifest.get("signature_info") or {}
    claimed = manifest.get("claim_generator_info") or [{"name": manifest.get("claim_generator")}]
    results = (store.get("validation_results") or {}).get("activeManifest") or {}
    held, failed = ([str(entry["code"]) for entry in results.get(kind) or ()] for kind in ("success", "failure"))
    bytes_held, bytes_failed = (
        any(re.fullmatch(r"assertion\.(data|boxes|bmff)Hash\.\w+", code) for code in codes) for codes in (held, failed)
    )
    return Credentials(
        status="present",
        issuer=_text(signature.get("issuer"), MAX_NAME_CHARS),
        common_name=_text(signature.get("common_name"), MAX_NAME_CHARS),
        generator=_text(claimed[0].get("name"), MAX_NAME_CHARS),
        hash="differs" if bytes_failed else "matches" if bytes_held else None,
        codes=tuple(dict.fromkeys(cleaned(code)[:MAX_NAME_CHARS] for code in failed))[:MAX_CODES],
    )


# --- generation parameters ---------------------------------------------------------------------------------------


def _a1111(text: str) -> Generation:
    """Prompt, `Negative prompt: …`, and a last line `Steps: 20, Sampler: …, CFG scale: 7, Seed: …`; Fooocus writes JSON instead."""
    if text.lstrip().startswith("{"):
        return _flat(text)
    start = max(text.rfind("\nSteps:"), 0 if text.startswith("Steps:") else -1)
    if start < 0:
        return Generation()
    settings = {key.strip(): value.strip(' "') for key, value in _SETTING.findall(text[start : start + _MAX_SETTINGS_CHARS])}
    prompt, _, negative = ("\n" + text[:start]).partition("\nNegative prompt:")
    return Generation(
        software=_text(settings.get("Version"), MAX_NAME_CHARS),
        model=_text(settings.get("Model") or settings.get("Model hash"), MAX_NAME_CHARS),
        prompt=_text(prompt, MAX_PROMPT_CHARS),
        negative_prompt=_text(negative, MAX_PROMPT_CHARS),
        seed=_whole(settings.get("Seed")),
        steps=_whole(settings.get("Steps")),
        guidance=_number(settings.get("CFG scale")),
    )


def _flat(text: str) -> Generation:
    """One JSON object with a key for each parameter."""
    return _fields(_object(text))


def _invoke_legacy(text: str) -> Generation:
    entry = _object(text)
    prompt = entry["image"].get("prompt")
    first = prompt[0].get("prompt") if isinstance(prompt, list) and prompt else prompt
    return _fields({**entry, **entry["image"], "prompt": first, "model": entry.get("model_weights")})


def _fields(entry: Json) -> Generation:
    def first(*keys: str) -> Any:
        return next((entry[key] for key in keys if entry.get(key) is not None), None)

    model = first("model", "model_name", "base_model")
    model = next((model[key] for key in ("name", "model_name") if key in model), None) if isinstance(model, dict) else model
    return Generation(
        software=_text(first("app_version", "version"), MAX_NAME_CHARS),
        model=_text(model, MAX_NAME_CHARS),
        prompt=_text(first("positive_prompt", "prompt"), MAX_PROMPT_CHARS),
        negative_prompt=_text(first("negative_prompt"), MAX_PROMPT_CHARS),
        seed=_whole(first("seed")),
        steps=_whole(first("steps", "num_inference_steps")),
        guidance=_number(first("cfg_scale", "guidance_scale", "guidance")),
    )


def _comfy(text: str) -> Generation:
    """Read a graph {id: {"class_type", "inputs"}}, whose inputs are values or links [id, output], upstream of the first sampler."""
    graph = {str(name): node for name, node in _object(text).items() if isinstance(node, dict) and isinstance(node.get("inputs"), dict)}
    if len(graph) > MAX_NODES:
        raise ValueError(f"{len(graph)} nodes")
    sampler = _first_sampler(graph)
    nodes = [graph[name]["inputs"] for name in (_upstream(graph, sampler) if sampler else graph)]

    def value(*keys: str) -> Any:
        return next((inputs[key] for key in keys for inputs in nodes if isinstance(inputs.get(key), int | float | str)), None)

    loaders = ((str(node.get("class_type")), list(node["inputs"].values())) for node in graph.values())
    return Generation(
        model=_text(value("ckpt_name", "unet_name", "model_name"), MAX_NAME_CHARS) or _loaded(loaders),
        prompt=_conditioning(graph, sampler, ("positive", "conditioning")) if sampler else None,
        negative_prompt=_conditioning(graph, sampler, ("negative",)) if sampler else None,
        seed=_whole(value("seed", "noise_seed")),
        steps=_whole(value("steps")),
        guidance=_number(value("cfg", "guidance")),
    )


def _comfy_workflow(text: str) -> Generation:
    """Read the editor's graph: its values have no names, so only the model can be found."""
    nodes = [node for node in _object(text)["nodes"] if isinstance(node, dict)]
    values = ((str(node.get("type")), node.get("widgets_values")) for node in nodes)
    return Generation(model=_loaded((kind, found if isinstance(found, list) else []) for kind, found in values))


def _first_sampler(graph: Mapping[str, Json]) -> str | None:
    """The first sampler that takes no other sampler's output."""
    samplers = [name for name, node in graph.items() if "Sampler" in str(node.get("class_type")) and list(_links(node))][:20]
    return next((name for name in samplers if not set(_upstream(graph, name)) & (set(samplers) - {name})), None)


def _conditioning(graph: Mapping[str, Json], sampler: str, wanted: Sequence[str]) -> str | None:
    """The text upstream of the first input whose name is one of `wanted`."""
    aside = {"clip", "image", "latent_image", "model", "noise", "pixels", "sampler", "samples", "sigmas", "vae"}
    found = (
        source for name in _upstream(graph, sampler, aside) for key, source in _links(graph[name]) if key in wanted and source in graph
    )
    start = next(found, None)
    for name in _upstream(graph, start, aside) if start else ():
        node = graph[name]
        if node.get("class_type") == "ConditioningZeroOut":
            return None
        for key in ("text", "t5xxl", "clip_l", "text_g", "prompt", "string", "value"):
            if text := _text(node["inputs"].get(key), MAX_PROMPT_CHARS):
                return text
    return None


def _upstream(graph: Mapping[str, Json], start: str, aside: Collection[str] = ()) -> Iterator[str]:
    """`start` and every node upstream of it, nearest first; inputs named in `aside` are not followed."""
    seen = {start}
    waiting = deque([start])
    while waiting:
        name = waiting.popleft()
        yield name
        for key, source in _links(graph[name]):
            if key not in aside and source in graph and source not in seen:
                seen.add(source)
                waiting.append(source)


def _links(node: Json) -> Iterator[tuple[str, str]]:
    for key, value in node["inputs"].items():
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int):
            yield key, str(value[0])


def _loaded(nodes: Iterable[tuple[str, Sequence[Any]]]) -> str | None:
    """The weights file that a node of type …Loader names, unless it loads a part or an addition of a model."""
    for kind, values in nodes:
        if "loader" in kind.lower() and not re.search("vae|clip|lora|control|upscale|style|embed", kind.lower()):
            for value in values:
                if isinstance(value, str) and value.lower().endswith(_WEIGHTS):
                    return _text(value, MAX_NAME_CHARS)
    return None


def _object(text: str) -> Json:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


def _text(value: object, limit: int) -> str | None:
    return cleaned(value[: 2 * limit])[:limit].strip() or None if isinstance(value, str) else None


def _whole(value: object) -> int | None:
    if isinstance(value, str):
        value = int(value) if len(value) <= 20 and value.isdecimal() else None
    elif isinstance(value, float):
        value = int(value) if value.is_integer() else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64 else None


def _number(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
