"""Tiny pipelines with random weights, one for each family, for the tests and the table of families.

They have every kind of part that their full-size relatives have, and are a few hundred kilobytes each.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
LETTERS = [chr(c) for c in range(ord("a"), ord("z") + 1)]
MAX_TOKENS = 16
PIXELS = 16


def clip_tokenizer(pad: str = "<|endoftext|>") -> Any:
    """A CLIP tokenizer whose vocabulary is letters."""
    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{c}</w>" for c in LETTERS), "!"]
    return transformers.CLIPTokenizer(
        vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=MAX_TOKENS, pad_token=pad
    )


def t5_tokenizer() -> Any:
    """A T5 tokenizer whose vocabulary is letters."""
    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", -9.0),
        ("▁", -2.0),
        *((c, -3.0) for c in LETTERS),
        *((f"▁{c}", -4.0) for c in LETTERS),
    ]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.T5TokenizerFast(
        tokenizer_object=tokenizer, model_max_length=MAX_TOKENS, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", extra_ids=0
    )


def gemma_tokenizer() -> Any:
    """A tokenizer that begins texts with <bos>, like Gemma's, with a vocabulary of a few words."""
    words = [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "a",
        "red",
        "house",
        "by",
        "the",
        "sea",
        "far",
        "too",
        "many",
        "words",
        "prompt",
        "user",
        ":",
    ]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=MAX_TOKENS, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>"
    )


def clip_text(projected: bool = False, layers: int = 1) -> Any:
    config = transformers.CLIPTextConfig(
        vocab_size=55,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return (transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel)(config).eval()


def t5_text(width: int = 16) -> Any:
    config = transformers.T5Config(
        vocab_size=56, d_model=width, d_ff=32, d_kv=8, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu", pad_token_id=0
    )
    return transformers.T5EncoderModel(config).eval()


def autoencoder(**changes: Any) -> Any:
    settings = {"shift_factor": 0.25, "scaling_factor": 0.5, "latent_channels": 4, **changes}
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        sample_size=PIXELS,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        **settings,
    )


def unet(**changes: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "attention_head_dim": 4,
            "cross_attention_dim": 16,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            **changes,
        }
    )


def stable_diffusion(scheduler: Any = None, **changes: Any) -> Any:
    torch.manual_seed(0)
    return diffusers.StableDiffusionPipeline(
        vae=autoencoder(shift_factor=None),
        unet=unet(**changes),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        # it adds noise at every step
        scheduler=scheduler or diffusers.EulerAncestralDiscreteScheduler(**NOISE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def latent_consistency() -> Any:
    torch.manual_seed(1)
    return diffusers.LatentConsistencyModelPipeline(
        vae=autoencoder(shift_factor=None),
        unet=unet(time_cond_proj_dim=8),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        scheduler=diffusers.LCMScheduler(**NOISE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl(scheduler: Any = None, **latents: Any) -> Any:
    torch.manual_seed(2)
    return diffusers.StableDiffusionXLPipeline(
        vae=autoencoder(shift_factor=None, **latents),
        text_encoder=clip_text(layers=2),
        text_encoder_2=clip_text(True, 2),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer("!"),
        unet=unet(
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 16,
            cross_attention_dim=32,
            use_linear_projection=True,
        ),
        scheduler=scheduler or diffusers.EulerDiscreteScheduler(**NOISE, steps_offset=1),
    )


def stable_diffusion_3_without_t5() -> Any:
    """A common variant: without the largest text encoder."""
    pipeline = stable_diffusion_3()
    parts = {**pipeline.components, "text_encoder_3": None, "tokenizer_3": None}
    return diffusers.StableDiffusion3Pipeline(**parts)


def stable_diffusion_3() -> Any:
    torch.manual_seed(3)
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=40,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(),
        text_encoder=clip_text(True, 2),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip_text(True, 2),
        tokenizer_2=clip_tokenizer("!"),
        text_encoder_3=t5_text(40),
        tokenizer_3=t5_tokenizer(),
    )


def flux(guidance_embeds: bool = True) -> Any:
    torch.manual_seed(4)
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=(2, 2, 4),
        guidance_embeds=guidance_embeds,
    )
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=autoencoder(),
        transformer=transformer,
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5_text(),
        tokenizer_2=t5_tokenizer(),
    )


def pixart_sigma() -> Any:
    torch.manual_seed(5)
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=8,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=16,
        cross_attention_dim=16,
        in_channels=4,
        out_channels=8,
    )
    return diffusers.PixArtSigmaPipeline(
        transformer=transformer,
        text_encoder=t5_text(),
        tokenizer=t5_tokenizer(),
        vae=autoencoder(shift_factor=None),
        scheduler=diffusers.DPMSolverMultistepScheduler(**NOISE),
    )


def sana() -> Any:
    torch.manual_seed(6)
    vae = diffusers.AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        upsample_block_type="interpolate",
        downsample_block_type="stride_conv",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.5,
    )
    transformer = diffusers.SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=16,
        sample_size=16,  # pixels are multiples of 32
    )
    config = transformers.Gemma2Config(
        vocab_size=17,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    return diffusers.SanaPipeline(
        transformer=transformer,
        vae=vae,
        text_encoder=transformers.Gemma2Model(config).eval(),
        tokenizer=gemma_tokenizer(),
        scheduler=diffusers.DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0),
    )


FAMILIES: dict[str, Callable[[], Any]] = {
    "flux": flux,
    "latent-consistency": latent_consistency,
    "pixart-sigma": pixart_sigma,
    "sana": sana,
    "stable-diffusion": stable_diffusion,
    "stable-diffusion-3": stable_diffusion_3,
    "stable-diffusion-xl": stable_diffusion_xl,
}


def bert_tokenizer() -> Any:
    """A BERT tokenizer whose vocabulary is letters and the words of a prompt."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "picture", "of", ".", *LETTERS, *(f"##{c}" for c in LETTERS)]
    return transformers.BertTokenizerFast(vocab={word: i for i, word in enumerate(words)})


def save_blip(folder: Path, *, layers: int = 2, width: int = 32, heads: int = 4, image_px: int = 32, patch_px: int = 8) -> Any:
    """Write a BLIP captioner with random weights and its processor; its captions depend on the picture and differ in length."""
    tokenizer = bert_tokenizer()
    spread = 1.7 / width**0.5  # with the default of transformers all captions would be the same
    common = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers, "num_attention_heads": heads}
    config = transformers.BlipConfig(
        text_config={
            **common,
            "encoder_hidden_size": width,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 32,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "sep_token_id": 3,
            "pad_token_id": 0,
            "initializer_range": spread,
        },
        vision_config={**common, "image_size": image_px, "patch_size": patch_px, "initializer_range": spread},
    )
    model = transformers.BlipForConditionalGeneration(config).eval()
    processor = transformers.BlipImageProcessorPil(size={"height": image_px, "width": image_px})
    for part in (model, tokenizer, processor):
        part.save_pretrained(folder)
    return model
