"""`python -m resynth_fast.export.zoo STAGE [NAME] --work DIR`: one command per model. Training resumes from its last checkpoint."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextModel, CLIPTokenizer

from resynth_fast import zoo

from .. import bundles
from . import assemble, autoencoder, calibrate, denoiser, domain, examples, faces, quality, recipes, restore, tagger, text


def main() -> None:
    parser = argparse.ArgumentParser(prog="resynth_fast.export.zoo", description=__doc__)
    parser.add_argument(
        "--work",
        type=Path,
        help="folder for pictures, checkpoints and trained models; not for restore, calibrate and domain",
    )
    parser.add_argument("--threads", type=int, default=1)
    stages = parser.add_subparsers(dest="stage", required=True)
    stage = stages.add_parser("faces", help="draw the training pictures (needs Node.js and three npm packages, see faces.mjs)")
    stage.add_argument("--node", type=Path, required=True, help="folder that holds node_modules")
    stage.add_argument("--count", type=int, default=20_000)
    stage = stages.add_parser("autoencoder", help="train one autoencoder")
    stage.add_argument("name", choices=recipes.AUTOENCODERS)
    stages.add_parser("text", help="train the tokenizer and the text encoder")
    stage = stages.add_parser("denoiser", help="train one denoiser (after faces, text and its autoencoder)")
    stage.add_argument("name", choices=recipes.DENOISERS)
    stage = stages.add_parser("assemble", help="assemble one generator as a diffusers pipeline")
    stage.add_argument("name", choices=recipes.DENOISERS)
    stage = stages.add_parser("export", help="assemble and export one generator as a bundle")
    stage.add_argument("name", choices=recipes.DENOISERS)
    stage.add_argument("--to", type=Path, required=True, help="folder of bundles")
    stage = stages.add_parser("restore", help="write embedded generators as diffusers pipelines, from their bundles alone")
    stage.add_argument("names", nargs="+", choices=recipes.DENOISERS, metavar="NAME")
    stage.add_argument("--to", type=Path, required=True, help="folder of pipelines")
    stage = stages.add_parser("prompts", help="write captions for evaluation; no model was trained on them")
    stage.add_argument("--to", type=Path, required=True, help="folder of bundles")
    stage.add_argument("--count", type=int, default=1500)
    stage = stages.add_parser("tagger", help="train and export the captioner (after the generators' export)")
    stage.add_argument("--to", type=Path, required=True, help="folder of bundles")
    stage = stages.add_parser("quality", help="print the quality of the zoo, and write contact sheets into the work folder")
    stage.add_argument("--to", type=Path, required=True, help="folder of bundles")
    stage.add_argument("--count", type=int, default=200)
    stage = stages.add_parser(
        "calibrate", help="fit the extractor's constants, what it and the captioner know, and calibrate the verdict (after the captioner)"
    )
    stage.add_argument("--to", type=Path, required=True, help="folder of bundles")
    stage = stages.add_parser("domain", help="fit what extractor and captioner know (a part of calibrate)")
    stage.add_argument("--to", type=Path, required=True, help="folder of bundles")
    stage = stages.add_parser("examples", help="write the example pictures (after the generators' export)")
    stage.add_argument("--to", type=Path, required=True, help="folder of pictures")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.stage == "restore":
        for name in arguments.names:
            print(restore.save(zoo.bundle(name), arguments.to))
        return
    if arguments.stage in ("calibrate", "domain"):
        print(json.dumps((calibrate.calibrate if arguments.stage == "calibrate" else domain.fit)(arguments.to), indent=1))
        return
    if arguments.work is None:
        parser.error(f"{arguments.stage} needs --work")
    work: Path = arguments.work
    pictures = work / "faces"
    if arguments.stage == "faces":
        faces.write(pictures, arguments.node, arguments.count, seed=1)
    elif arguments.stage == "text":
        tokenizer = text.train_tokenizer()
        tokenizer.save_pretrained(work / "tokenizer")
        encoder, record = text.train(tokenizer, faces.Faces(pictures, "train"), work / "text.pt")
        encoder.save_pretrained(work / "text_encoder")
        write_record(work / "text_encoder", record)
    elif arguments.stage == "autoencoder":
        name = arguments.name
        vae, record = autoencoder.train(recipes.AUTOENCODERS[name], faces.Faces(pictures, "train"), work / f"{name}.pt")
        held_out = faces.Faces(pictures, "test").pictures[:500]
        record["psnr_db"] = autoencoder.psnr(held_out, autoencoder.reconstruct(vae, held_out))
        vae.save_pretrained(work / "autoencoders" / name)
        write_record(work / "autoencoders" / name, record)
    elif arguments.stage == "denoiser":
        name = arguments.name
        recipe = recipes.DENOISERS[name]
        vae = AutoencoderKL.from_pretrained(work / "autoencoders" / recipe.autoencoder)
        tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
        encoder = CLIPTextModel.from_pretrained(work / "text_encoder").eval()
        model, record = denoiser.train(recipe, vae, tokenizer, encoder, faces.Faces(pictures, "train"), work / f"{name}.pt")
        model.save_pretrained(work / "denoisers" / name)
        write_record(work / "denoisers" / name, record)
    elif arguments.stage == "assemble":
        print(assemble.assemble(work, arguments.name))
    elif arguments.stage == "export":
        assemble.assemble(work, arguments.name)
        print(assemble.export(work, arguments.name, arguments.to).folder)
        bundles.prune(arguments.to)
    elif arguments.stage == "tagger":
        write_record(work / "tagger", tagger.train(work, arguments.to))
        print(tagger.export(work, arguments.to).folder)
        bundles.prune(arguments.to)
    elif arguments.stage == "quality":
        quality.table(work, arguments.to, arguments.count)
    elif arguments.stage == "prompts":
        (arguments.to / "prompts.txt").write_text("\n".join(assemble.prompts(arguments.count)) + "\n")
    elif arguments.stage == "examples":
        examples.write(arguments.to, pictures)


def write_record(folder: Path, record: dict[str, float]) -> None:
    """Write the record of a model's training, which goes into the card of its bundle."""
    (folder / "training.json").write_text(json.dumps(record))
    print(folder.name, record)


if __name__ == "__main__":
    main()
