"""A captioner without a closed vocabulary: a vision network, and a text decoder that is run greedily, once per token.

The manifest holds everything that differs between models: `decoding` has the first tokens of every caption, the token
that ends a caption, and the maximum number of tokens. See `resynth_fast.export.captioners` for the two networks' inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from tokenizers import Tokenizer

from ..bundle import Bundle, Tensor
from ..engines.pool import EnginePool
from ..errors import BundleError
from ..types import Floats, Pixels

BATCH = 8
"""Pictures that are captioned together: the decoder's cache of each is large."""
VISION, DECODER, PAST, NEW, CONDITION = "vision", "decoder", "past_", "new_", "cond_"

Arrays = dict[str, npt.NDArray[Any]]


def matches(source: str | Bundle) -> bool:
    """Whether `source` is a bundle of family `vision-language`."""
    return isinstance(source, Bundle) and source.family == "vision-language"


def open(bundle: Bundle, pool: EnginePool) -> VisionLanguage:
    """The captioner of a bundle."""
    return VisionLanguage(bundle, pool)


class VisionLanguage:
    """Resizes the whole picture to the network's square, and writes the most probable token at each step."""

    def __init__(self, bundle: Bundle, pool: EnginePool) -> None:
        """BundleError if the manifest lacks a network, or its `decoding` is invalid."""
        self.bundle = bundle
        self.name = bundle.name
        self.sha256 = bundle.sha256
        self._pool = pool
        if lacking := [name for name in (VISION, DECODER) if name not in bundle.components]:
            raise BundleError(f"{bundle.folder}: no component {lacking[0]!r}; export the captioner again")
        self._vision, self._decoder = bundle.components[VISION], bundle.components[DECODER]
        side = self._vision.inputs["pixels"].shape[-1] if "pixels" in self._vision.inputs else None
        decoding = bundle.get("decoding", dict)
        self._prefix, self._end, self._most = decoding.get("prefix"), decoding.get("end"), decoding.get("max_tokens")
        numbers = [side, self._end, self._most, *(self._prefix if isinstance(self._prefix, list) else [None])]
        if not all(isinstance(number, int) and number >= 0 for number in numbers) or not 0 < len(self._prefix) < self._most:
            raise BundleError(f"{bundle.folder}: decoding is {str(dict(decoding))[:200]}; export the captioner again")
        self._side = int(side)  # type: ignore[arg-type]  # checked two lines above
        self._past = {name: tensor for name, tensor in self._decoder.inputs.items() if name.startswith(PAST)}
        if any(tensor.shape[2:3] != (self._most,) for tensor in self._past.values()) or len(bundle.tokenizers) != 1:
            raise BundleError(
                f"{bundle.folder}: the decoder keeps other than {self._most} tokens, or there is no one tokenizer; export it again"
            )
        self._tokenizer: Tokenizer | None = None

    def caption(self, pictures: Sequence[Pixels]) -> list[str]:
        """See `Captioner.caption`; BundleError if an output of a network is not finite."""
        if self._tokenizer is None:
            self._tokenizer = Tokenizer.from_str(self.bundle.tokenizers[0].file.read().decode())
        return [text.strip() for text in self._tokenizer.decode_batch(self.tokens(pictures), skip_special_tokens=True)]

    def tokens(self, pictures: Sequence[Pixels]) -> list[list[int]]:
        """The tokens of each caption, with the first ones and without the one that ends it."""
        captions: list[list[int]] = []
        for start in range(0, len(pictures), BATCH):
            captions += self._write(pictures[start : start + BATCH])
        return captions

    def fit(self, pictures: Sequence[Pixels]) -> Floats:
        """(H, W, 3) uint8 each → (n, 3, side, side) float32 in [0, 1], by Pillow's bicubic filter in 8 bits, as transformers does."""
        size = (self._side, self._side)
        squares = [
            picture if picture.shape[:2] == size else np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
            for picture in pictures
        ]
        return np.stack(squares).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)

    def _write(self, pictures: Sequence[Pixels]) -> list[list[int]]:
        """Captions that have ended stay in the batch and their further tokens are dropped: captions differ little in length."""
        vision = self._pool.get(self._vision).run({"pixels": self.fit(pictures)})
        engine, count = self._pool.get(self._decoder), len(pictures)
        past: Arrays = {name: np.zeros(_shape(tensor, count), np.float32) for name, tensor in self._past.items()}
        conditions = {name: vision[name] for name in self._decoder.inputs if name.startswith(CONDITION)}
        tokens = np.empty((count, self._most), np.int64)
        tokens[:, : len(self._prefix)] = self._prefix
        length = np.full(count, self._most)
        for position in range(self._most - 1):
            step = engine.run({"token": tokens[:, position], "position": np.full(count, position), **conditions, **past})
            for name in past:
                past[name][:, :, position] = step[NEW + name.removeprefix(PAST)]
            if position + 1 < len(self._prefix):
                continue
            logits = step["logits"]
            if not np.isfinite(logits).all():
                raise BundleError(f"{self.name}: the decoder's logits are not finite; export the captioner again, in fp32 if it was fp16")
            tokens[:, position + 1] = logits.argmax(1)
            length[(tokens[:, position + 1] == self._end) & (length == self._most)] = position + 1
            if (length < self._most).all():
                break
        return [row[:end].tolist() for row, end in zip(tokens, length, strict=True)]


def _shape(tensor: Tensor, batch: int) -> tuple[int, ...]:
    return tuple(batch if isinstance(size, str) else size for size in tensor.shape)
