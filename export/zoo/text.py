"""The zoo's text side: a CLIP tokenizer in which every word of the grammar is one token, and a small text encoder."""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .attributes import ATTRIBUTES, caption, draw
from .faces import Faces
from .training import Schedule, fit

MAX_TOKENS = 32
WIDTH = 128
SCHEDULE = Schedule(steps=600, batch=64, learning_rate=1e-3, seed=5)


def train_tokenizer() -> CLIPTokenizer:
    """A tokenizer in CLIP's format, its byte-pair merges learnt on sentences of the grammar."""
    tokenizer = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        end_of_word_suffix="</w>",
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator((caption(face) for face in islice(draw(np.random.default_rng(0)), 5000)), trainer)
    with tempfile.TemporaryDirectory() as folder:
        _, merges_file = tokenizer.model.save(folder)
        merges = [tuple(line.split(" ")) for line in Path(merges_file).read_text().splitlines() if not line.startswith("#")]
        return CLIPTokenizer(vocab=tokenizer.get_vocab(), merges=merges, model_max_length=MAX_TOKENS)


def tokens(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """`(n, MAX_TOKENS)` int64, padded and truncated as in the pipelines."""
    return torch.tensor(tokenizer(captions, padding="max_length", max_length=MAX_TOKENS, truncation=True).input_ids)


def build(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The text encoder, untrained."""
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=3 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=WIDTH,
            bos_token_id=start,
            eos_token_id=end,
            pad_token_id=end,
            hidden_act="quick_gelu",
        )
    )


def train(tokenizer: CLIPTokenizer, faces: Faces, checkpoint: Path) -> tuple[CLIPTextModel, dict[str, float]]:
    """Train a text encoder whose pooled state predicts every attribute. All generators of the zoo share it, frozen."""
    torch.manual_seed(SCHEDULE.seed)
    encoder = build(tokenizer)
    torch.nn.init.normal_(encoder.get_input_embeddings().weight, std=0.3)
    heads = torch.nn.ModuleList([torch.nn.Linear(WIDTH, len(labels)) for labels in ATTRIBUTES.values()])
    ids, labels = tokens(tokenizer, faces.captions), torch.from_numpy(faces.labels)

    def loss(rng: torch.Generator) -> torch.Tensor:
        rows = torch.randint(len(faces), (SCHEDULE.batch,), generator=rng)
        pooled = encoder(ids[rows]).pooler_output
        return torch.stack([F.cross_entropy(head(pooled), labels[rows, j], ignore_index=-1) for j, head in enumerate(heads)]).sum()

    record = fit(torch.nn.ModuleList([encoder, heads]), loss, SCHEDULE, checkpoint)
    with torch.no_grad():
        rows = torch.arange(min(len(faces), 1000))
        pooled = encoder(ids[rows]).pooler_output
        right = torch.cat([(head(pooled).argmax(1) == labels[rows, j])[labels[rows, j] >= 0] for j, head in enumerate(heads)])
    record["attribute_accuracy"] = float(right.float().mean())
    return encoder, record


@torch.no_grad()
def embed(encoder: CLIPTextModel, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states `(n, MAX_TOKENS, WIDTH)` and pooled states `(n, WIDTH)`, float16 for the cache."""
    outputs = [encoder(ids[i : i + 250]) for i in range(0, len(ids), 250)]
    return torch.cat([o.last_hidden_state for o in outputs]).half(), torch.cat([o.pooler_output for o in outputs]).half()
