"""Export image-to-text models of transformers as captioners: a vision graph, a graph of one text step, and decoding settings.

The canonical form, which the runtime decodes without knowing the model:

    vision   pixels (b, 3, S, S) in [0, 1] → cond_* (b, …), everything that the text decoder needs of the picture
    decoder  token, position int64 (b,), cond_*, past_* (b, heads, M, d) → logits (b, vocabulary), new_* (b, heads, d)

past_* holds the keys and values of the positions before `position`; M is the maximum number of tokens. The caller writes
each new_* into past_* at `position`: only one column is copied, and all shapes but the batch are fixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from resynth_fast.bundle import NAME, Bundle
from resynth_fast.captioners.vision_language import VisionLanguage
from resynth_fast.engines.pool import EnginePool
from resynth_fast.errors import BundleError, ConfigError
from resynth_fast.types import Pixels

from . import bundles, checkpoints, preprocessing, verify
from .canonical import TextInput
from .graphs import Network
from .pipelines import PRECISIONS, checkpoint_sha256
from .preprocessing import Preprocessing
from .verify import Parity
from .weights import round_weights

FAMILY = "vision-language"
MAX_TOKENS = 20
"""Tokens of a caption where the checkpoint sets no limit: the default of transformers."""
PICTURES = 3
"""Number of captions compared with transformers before a bundle is written."""

Tensor = torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Captioner:
    """An image-to-text model in the terms of the bundle."""

    networks: dict[str, Network]
    words: TextInput
    start: int
    end: int
    reference: Callable[[Tensor, Sequence[int], int], list[list[int]]]
    """greedy tokens by transformers: normalised pictures (b, 3, S, S), first tokens, maximum number of tokens → tokens"""


def names() -> list[str]:
    """Architectures that can be exported, by the `model_type` of their config."""
    return sorted(_ARCHITECTURES)


@checkpoints.quiet()
def export(
    folder: Path,
    to: Path,
    *,
    name: str,
    licence: str,
    prompt: str = "",
    max_tokens: int | None = None,
    precision: str = "fp16",
    parity: Parity | None = None,
) -> Bundle:
    """Export the model in `folder` to the captioner bundle `to / name`.

    Every caption begins with `prompt` and has at most `max_tokens` tokens, the prompt included; the default is the
    checkpoint's. Raises ConfigError if the model cannot be exported, and BundleError if a caption differs from the greedy
    one of transformers. Nothing is written then.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"name {name[:40]!r} must be letters, digits, '.', '_' or '-', at most 100; choose another with --name")
    if precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}; it must be {' or '.join(PRECISIONS)}")
    pictures, made, kind = _load(folder, limit := max_tokens or _stated_limit(folder), halved=precision == "fp16")
    prefix = [made.start, *(made.words.tokenizer(prompt, add_special_tokens=False).input_ids if prompt else [])]
    if len(prefix) >= limit:
        raise ConfigError(f"max_tokens is {limit}, but the prompt alone has {len(prefix)} tokens; raise it")
    fields = {
        "kind": "captioner",
        "name": name,
        "family": FAMILY,
        "licence": licence,
        "source": {"checkpoint": folder.resolve().name, "architecture": kind, "sha256": checkpoint_sha256(folder)},
        "decoding": {"prefix": prefix, "end": made.end, "max_tokens": limit},
    }

    def check(bundle: Bundle) -> None:
        _verify(bundle, made, pictures)

    return bundles.write(to, fields, made.networks, [made.words], check, precision=PRECISIONS[precision], parity=parity)


@checkpoints.quiet()
def verified(bundle: Bundle, folder: Path) -> Parity:
    """Compare a bundle again with the checkpoint it was exported from; BundleError if they differ."""
    bundle.verify()
    source = bundle.get("source", dict).get("sha256")
    if source != (found := checkpoint_sha256(folder)):
        raise BundleError(
            f"{bundle.name} was exported from a checkpoint with SHA-256 {str(source)[:12]}…, {folder} has {found[:12]}…; "
            "give the checkpoint that it was exported from"
        )
    halved = bundle.components["decoder"].precision == PRECISIONS["fp16"]
    pictures, made, _ = _load(folder, bundle.get("decoding", dict)["max_tokens"], halved=halved)
    _verify(bundle, made, pictures)
    return Parity(components=verify.components(bundle, made.networks))


def _load(folder: Path, limit: int, *, halved: bool) -> tuple[Preprocessing, Captioner, str]:
    """Preprocessing of `folder`, its model for captions of at most `limit` tokens, and the architecture."""
    kind = str(checkpoints.read_json(folder / "config.json").get("model_type"))
    if kind not in _ARCHITECTURES:
        raise ConfigError(f"{folder} is a model of type {kind[:80]!r}; the exporter supports {', '.join(names())}")
    pictures = preprocessing.read(folder)
    if pictures.cropped or pictures.resample != preprocessing.BICUBIC:
        raise ConfigError(
            f"{folder}: its processor crops, or resizes by another filter than bicubic; "
            "a captioner must take the whole picture, squeezed to a square"
        )
    return pictures, _ARCHITECTURES[kind](folder, pictures, limit, halved), kind


def _stated_limit(folder: Path) -> int:
    """`max_length` of the checkpoint's generation settings."""
    path = folder / "generation_config.json"
    stated = checkpoints.read_json(path).get("max_length") if path.is_file() else None
    return stated if isinstance(stated, int) and stated > 1 else MAX_TOKENS


def probes() -> list[Pixels]:
    """Pictures of noise at several scales, for the comparison of captions."""
    rng = np.random.default_rng(0)
    small = [Image.fromarray(rng.integers(0, 256, (2 << i, 2 << i, 3)).astype(np.uint8)) for i in range(PICTURES)]
    return [np.asarray(picture.resize((96, 64), Image.Resampling.BICUBIC)) for picture in small]


def _verify(bundle: Bundle, made: Captioner, pictures: Preprocessing) -> None:
    """Compare captions with transformers token by token; BundleError if one differs."""
    given = probes()
    decoding = bundle.get("decoding", dict)
    captioner = VisionLanguage(bundle, EnginePool(threads=torch.get_num_threads()))
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (pictures.mean, pictures.std))
    with torch.no_grad():
        expected = made.reference((torch.from_numpy(captioner.fit(given)) - mean) / std, decoding["prefix"], decoding["max_tokens"])
    for found, wanted in zip(captioner.tokens(given), expected, strict=True):
        if found != wanted:
            raise BundleError(
                f"{bundle.name}: a caption has the tokens {found}, but {wanted} by transformers; nothing was written: export it in fp32"
            )


class Vision(torch.nn.Module):
    """`pixels` (b, 3, S, S) in [0, 1] → keys (b, heads, d, n) and values (b, heads, n, d) of the picture, for each layer of the text."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, pictures: Preprocessing) -> None:
        super().__init__()
        self.vision = model.vision_model
        self.attentions: Any = torch.nn.ModuleList(layer.crossattention.self for layer in model.text_decoder.bert.encoder.layer)
        for name, values in (("mean", pictures.mean), ("std", pictures.std)):
            self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        states = self.vision(pixel_values=(pixels - self.mean) / self.std)[0]
        found: list[Tensor] = []
        for attention in self.attentions:
            keys, values = (_split(linear(states), attention) for linear in (attention.key, attention.value))
            found += [keys.transpose(-1, -2), values]
        return tuple(found)


class Step(torch.nn.Module):
    """One position of BLIP's text decoder (BERT with attention to the picture). The caller holds the cache."""

    def __init__(self, model: Any, length: int) -> None:
        super().__init__()
        self.embeddings = model.text_decoder.bert.embeddings
        self.layers = model.text_decoder.bert.encoder.layer
        self.head = model.text_decoder.cls
        self.length = length

    def forward(self, token: Tensor, position: Tensor, **given: Tensor) -> tuple[Tensor, ...]:
        x = self.embeddings(input_ids=token[:, None], position_ids=position[:, None])
        later = torch.arange(self.length)[None, :] >= position[:, None]  # positions that past_* does not hold yet
        new: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            attention = layer.attention.self
            query, key, value = (_heads(linear, x, attention) for linear in (attention.query, attention.key, attention.value))
            new += [key.squeeze(2), value.squeeze(2)]
            past_keys, past_values = given[f"past_keys_{i}"], given[f"past_values_{i}"]
            scores = (query @ past_keys.transpose(-1, -2)).masked_fill(later[:, None, None, :], -torch.inf)
            own = (query * key).sum(-1, keepdim=True)  # the current position is attended to before it is stored
            weights = (torch.cat([scores, own], -1) / math.sqrt(attention.attention_head_size)).softmax(-1)
            x = layer.attention.output(_joined(weights[..., :-1] @ past_values + weights[..., -1:] * value), x)
            attention = layer.crossattention.self
            weights = (_heads(attention.query, x, attention) @ given[f"cond_keys_{i}"] / math.sqrt(attention.attention_head_size)).softmax(
                -1
            )
            x = layer.crossattention.output(_joined(weights @ given[f"cond_values_{i}"]), x)
            x = layer.feed_forward_chunk(x)
        return self.head(x).squeeze(1), *new


def _heads(linear: Any, x: Tensor, attention: Any) -> Tensor:
    """(b, 1, width) → (b, heads, 1, d)"""
    return _split(linear(x), attention)


def _split(states: Tensor, attention: Any) -> Tensor:
    """(b, n, heads · d) → (b, heads, n, d)"""
    return torch.unflatten(states, -1, (attention.num_attention_heads, -1)).transpose(1, 2)


def _joined(states: Tensor) -> Tensor:
    """(b, heads, 1, d) → (b, 1, heads · d)"""
    return states.transpose(1, 2).flatten(2)


def _blip(folder: Path, pictures: Preprocessing, limit: int, halved: bool) -> Captioner:
    """BlipForConditionalGeneration."""
    model: Any = checkpoints.network(folder, transformers.BlipForConditionalGeneration)
    if halved:
        round_weights(model)
    text, vision = model.config.text_config, model.config.vision_config
    if limit > text.max_position_embeddings:
        raise ConfigError(f"max_tokens is {limit}, but {folder} has {text.max_position_embeddings} positions; lower it")
    if vision.image_size != pictures.side:
        raise ConfigError(
            f"{folder}: its processor makes pictures of {pictures.side} px, but its config takes {vision.image_size} px; "
            "they must agree: fetch the checkpoint again"
        )
    tokenizer = _tokenizer(folder)
    if not text.sep_token_id < len(tokenizer) <= text.vocab_size:  # the start token may exist only in the model
        raise ConfigError(f"{folder}: its tokenizer has {len(tokenizer)} tokens, its config {text.vocab_size}; fetch the checkpoint again")
    layers, heads, width = text.num_hidden_layers, text.num_attention_heads, text.hidden_size // text.num_attention_heads
    seen = (vision.image_size // vision.patch_size) ** 2 + 1
    rng = torch.Generator().manual_seed(0)

    def picture(batch: int) -> dict[str, Tensor]:
        return {"pixels": torch.rand(batch, 3, pictures.side, pictures.side, generator=rng)}

    def step(batch: int) -> dict[str, Tensor]:
        inputs = {
            "token": torch.randint(0, text.vocab_size, (batch,), generator=rng),
            "position": torch.arange(batch) % limit,
        }
        shapes = {"cond_keys": (width, seen), "cond_values": (seen, width), "past_keys": (limit, width), "past_values": (limit, width)}
        for kind, shape in shapes.items():
            for i in range(layers):
                inputs[f"{kind}_{i}"] = torch.randn(batch, heads, *shape, generator=rng)
        return inputs

    def reference(pixels: Tensor, prefix: Sequence[int], limit: int) -> list[list[int]]:
        found = model.generate(
            pixels,
            input_ids=[[*prefix, text.sep_token_id]] * len(pixels),
            max_length=limit,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            min_length=0,
        ).tolist()
        ends = [row.index(text.sep_token_id, len(prefix)) if text.sep_token_id in row[len(prefix) :] else len(row) for row in found]
        return [row[:end] for row, end in zip(found, ends, strict=True)]

    pairs = [(kind, i) for i in range(layers) for kind in ("keys", "values")]
    return Captioner(
        networks={
            "vision": Network(Vision(model, pictures), picture, tuple(f"cond_{kind}_{i}" for kind, i in pairs)),
            "decoder": Network(Step(model, limit), step, ("logits", *(f"new_{kind}_{i}" for kind, i in pairs))),
        },
        words=TextInput(tokenizer=tokenizer, max_tokens=limit),
        start=text.bos_token_id,
        end=text.sep_token_id,
        reference=reference,
    )


def _tokenizer(folder: Path) -> Any:
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):  # transformers would create an empty one
        raise ConfigError(f"{folder} has no tokenizer (tokenizer.json or vocab.txt); fetch the checkpoint again")
    try:
        return transformers.BertTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the exceptions of the libraries share no base class
        raise ConfigError(f"{folder}: its tokenizer cannot be read ({str(error)[:200]}); fetch the checkpoint again") from error


_ARCHITECTURES: dict[str, Callable[[Path, Preprocessing, int, bool], Captioner]] = {"blip": _blip}
