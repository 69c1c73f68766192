"""A candidate whose bundle runs in this process: its step table is the sampler, so there is no code for any family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ..backends import Arrays, Engine
from ..bundle import Bundle, Guidance, StepTable
from ..devices.base import CPU, Device, transfer
from ..engines.pool import EnginePool, engine_ref
from ..errors import BundleError, ConfigError
from ..sampling import rescaled, walk
from ..scheduler import BatchKey, Work
from ..types import Array, Floats, Integers, Pixels
from . import ScheduledCandidate, bundles, is_bundle

Conditions = dict[str, Floats]


def matches(text: str) -> bool:
    """Whether `text` is zoo:, zoo:NAME or a path."""
    return is_bundle(text)


def open(text: str, pool: EnginePool) -> list[EngineCandidate]:
    """The candidates of a bundle's folder or of a folder of bundles; ConfigError for a bundle of another kind."""
    opened = bundles(text)
    for bundle in opened:
        if bundle.kind != "generator":
            raise ConfigError(f"candidate {bundle.name!r} is a bundle of kind {bundle.kind!r}; a candidate must be a generator")
    return [EngineCandidate(bundle, pool) for bundle in opened]


class EngineCandidate(ScheduledCandidate):
    """Text encoder, denoiser and decoder of one bundle."""

    warnings: tuple[str, ...] = ()

    def __init__(self, bundle: Bundle, pool: EnginePool) -> None:
        self.bundle = bundle
        self.name = bundle.name
        self.family = bundle.family
        self.sha256 = bundle.sha256
        self._pool = pool
        self._tokenizers: list[Tokenizer] | None = None
        self._tables: dict[int, StepTable] = {}

    def make(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> list[Pixels]:
        """See `GenerativeCandidate.make`; BundleError if an output of a network is not finite."""
        device, levels = self.draw(prompts, seeds, steps)
        return list(device.to_host(levels))

    def draw(self, prompts: Sequence[str], seeds: Sequence[int], steps: int, guidance: float = 1.0) -> tuple[Device[Any], Array]:
        """See `ScheduledCandidate.draw`."""
        table, scaled = self._table(steps), self.bundle.guidance.scaled(guidance)
        conditions = self._encode(prompts, scaled)
        scale = scaled.scale if scaled.mode == "batch-2" else None
        calls = len(seeds) * len(table.rows) * (2 if scaled.doubled else 1)
        with self._pool.hold(self.bundle.components["denoiser"], rows=calls) as engine:
            device = engine.device
            denoise = self._denoiser(engine, device, conditions, scaled)
            latents = walk(table, lambda call: device.normal_rows(seeds, [call] * len(seeds), self.bundle.latents), denoise, scale, device)
            self._check(
                device.all_finite(latents), "denoiser"
            )  # checked once, since the check waits for the device; a value that is not finite stays so
        with self._pool.hold(self.bundle.components["decoder"], rows=len(seeds)) as engine:
            decoder_device = engine.device
            image = engine.run({"latents": transfer(latents, device, decoder_device)})["image"]
            self._check(decoder_device.all_finite(image), "decoder")
            return decoder_device, decoder_device.to_uint8(image)

    def encode(self, prompts: Sequence[str]) -> None:
        """See `ScheduledCandidate.encode`; the pool's text cache keeps the states, and each distinct prompt is encoded once."""
        self._encode(list(dict.fromkeys(prompts)), self.bundle.guidance)

    def work(self, steps: int) -> Work:
        """See `ScheduledCandidate.work`."""
        bundle = self.bundle
        denoiser = bundle.components["denoiser"]
        return Work(
            key=BatchKey(bundle.sha256, bundle.resolution_px, denoiser.precision, bundle.guidance, steps),
            text=engine_ref(bundle.components["text"]),
            denoiser=engine_ref(denoiser),
            decoder=engine_ref(bundle.components["decoder"]),
            calls=len(self._table(steps).rows),
            rows=2 if bundle.guidance.doubled else 1,
            in_lane=self._pool.in_lane(denoiser),
        )

    def _table(self, steps: int) -> StepTable:
        if steps not in self._tables:
            self._tables[steps] = self.bundle.step_table(steps)
        return self._tables[steps]

    def _denoiser(
        self, engine: Engine, device: Device[Any], conditions: tuple[Conditions, Conditions | None], guidance: Guidance
    ) -> Callable[[Any, float], Any]:
        conditional, unconditional = conditions
        component = self.bundle.components["denoiser"]
        names = [name for name in component.inputs if name.startswith("cond_")]
        inputs = {
            name: device.to_device(conditional[name] if unconditional is None else np.concatenate([unconditional[name], conditional[name]]))
            for name in names
        }

        def denoise(latents: Any, timestep: float) -> Any:
            rows = latents if unconditional is None else device.concatenate([latents, latents])
            output = engine.run({"latents": rows, "timestep": device.full(len(rows), timestep), **inputs})["model_output"]
            return rescaled(output, guidance, device) if guidance.mode == "rescaled" else output

        return denoise

    def _encode(self, prompts: Sequence[str], guidance: Guidance) -> tuple[Conditions, Conditions | None]:
        """Text states of `prompts`, and of the empty prompt if guidance needs them. Each distinct text is encoded once."""
        distinct = list(dict.fromkeys(prompts))
        rows = [distinct.index(prompt) for prompt in prompts]
        zeros = guidance.unconditional == "zeros"
        text = self.bundle.components["text"]
        states = self._pool.text_cache(text.file.sha256, self._tokens(distinct, empty_too=guidance.doubled and not zeros), self._run_text)
        for name, state in states.items():
            self._check(CPU.all_finite(state), f"text ({name})")
        conditional = {name: state[rows] for name, state in states.items()}
        if not guidance.doubled:
            return conditional, None
        return conditional, {name: np.zeros_like(conditional[name]) if zeros else state[[-1] * len(rows)] for name, state in states.items()}

    def _run_text(self, tokens: Arrays) -> Conditions:
        with self._pool.hold(self.bundle.components["text"], rows=len(next(iter(tokens.values())))) as engine:
            return engine.run(tokens)

    def _tokens(self, captions: Sequence[str], empty_too: bool) -> dict[str, Integers]:
        """Inputs of the text component: a row per caption and, with `empty_too`, a last row for the empty text."""
        if self._tokenizers is None:
            tokenizers = []
            for entry in self.bundle.tokenizers:
                tokenizer = Tokenizer.from_str(entry.file.read().decode())
                tokenizer.no_padding()
                tokenizer.enable_truncation(entry.max_tokens)
                tokenizers.append(tokenizer)
            self._tokenizers = tokenizers  # assigned complete: another thread may read it meanwhile
        inputs = {}
        for i, (tokenizer, entry) in enumerate(zip(self._tokenizers, self.bundle.tokenizers, strict=True)):
            texts = [entry.prefix + (caption.lower().strip() if entry.lowercase else caption) for caption in captions]
            inputs[f"tokens_{i}"] = _pad(tokenizer, [*texts, ""] if empty_too else texts, entry.max_tokens, entry.pad_id)
        return inputs

    def _check(self, finite: bool, component: str) -> None:
        if not finite:
            raise BundleError(
                f"{self.name}: the {component} gave values that are not finite; export the bundle again, in float32 if it was float16"
            )


def _pad(tokenizer: Tokenizer, texts: Sequence[str], length: int, pad: int) -> Integers:
    """(n, length) int64: tokens, truncated so that the end token stays, then padding."""
    rows = np.full((len(texts), length), pad, np.int64)
    for row, encoding in zip(rows, tokenizer.encode_batch(list(texts)), strict=True):
        row[: len(encoding.ids)] = encoding.ids
    return rows
