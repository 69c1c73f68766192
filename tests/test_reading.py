"""Pictures are read upright, in RGB, with a warning for whatever was changed on the way."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from image_files import png_chunk, png_header, saved, scene
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from resynth_fast.errors import InputError
from resynth_fast.images import reading as images


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "gif", "jpg"])
def test_pixels_hash_and_size_are_those_of_the_file(tmp_path: Path, suffix: str) -> None:
    options: dict[str, object] = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}.get(suffix, {})
    path = saved(tmp_path / f"a.{suffix}", scene(), **options)
    picture = images.read(path)
    slack = {"gif": 40, "jpg": 6}.get(suffix, 0)
    assert np.abs(picture.pixels.astype(int) - scene()).max() <= slack
    assert picture.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (picture.width, picture.height, picture.exif_orientation, picture.warnings) == (64, 48, 1, ())
    assert picture.format == {"jpg": "JPEG"}.get(suffix, suffix.upper())
    assert not picture.pixels.flags.writeable


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    upright = scene()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),  # to be turned by 90 degrees clockwise
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = images.read(saved(tmp_path / f"a.{suffix}", np.ascontiguousarray(stored), exif=exif))
    assert picture.exif_orientation == orientation
    assert np.abs(picture.pixels.astype(int) - upright).max() <= (0 if suffix in ("png", "tiff") else 30)
    assert (picture.width, picture.height) == (64, 48)


def test_a_compressed_tiff_is_turned_once(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.tiff", np.ascontiguousarray(np.rot90(scene())), exif=exif, compression="tiff_lzw")
    assert np.array_equal(images.read(path).pixels, scene())


def test_a_meaningless_orientation_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    picture = images.read(saved(tmp_path / "a.jpg", scene(), exif=exif))
    assert (picture.exif_orientation, picture.width) == (1, 64)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    ramp = np.linspace(0, 65_535, 48 * 64).reshape(48, 64).astype(np.uint16)
    picture = images.read(saved(tmp_path / f"a.{suffix}", ramp))
    assert np.array_equal(picture.pixels[..., 0], np.floor(ramp / 257 + 0.5))
    assert np.array_equal(picture.pixels[..., 0], picture.pixels[..., 2])
    assert picture.warnings == ("16-bit greyscale is scaled to 8 bits",)


def test_16_bit_big_endian_and_32_bit_integers_are_scaled(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65_535, 48 * 64).reshape(48, 64)
    big = Image.frombytes("I;16B", (64, 48), ramp.astype(">u2").tobytes())
    wide = Image.fromarray(ramp.astype(np.int32))
    for name, image in (("big", big), ("wide", wide)):
        picture = images.read(saved(tmp_path / f"{name}.tiff", image))
        assert np.abs(picture.pixels[..., 0] - ramp / 257).max() <= 1


def test_16_bit_colour_keeps_its_high_byte(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in scene().astype(np.uint16) * 257)
    body = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 48, 16, 2, 0, 0, 0)) + png_chunk(b"IDAT", zlib.compress(rows))
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b""))
    assert np.array_equal(images.read(path).pixels, scene())


def test_cmyk_jpeg_has_its_colours_and_a_warning(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.fromarray(scene()).convert("CMYK"), quality=95, subsampling=0)
    picture = images.read(path)
    assert np.abs(picture.pixels.astype(int) - scene()).max() <= 12
    assert picture.warnings == ("CMYK is converted to RGB without a colour profile; colours may be off",)


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA"])
def test_alpha_is_composited_over_white(tmp_path: Path, mode: str) -> None:
    rgba = Image.fromarray(np.full((40, 40, 4), (100, 100, 100, 255), np.uint8))
    rgba.paste((100, 100, 100, 0), (0, 0, 20, 40))
    image = rgba.convert(mode) if mode != "P" else rgba.quantize(4, Image.Quantize.FASTOCTREE)
    assert image.has_transparency_data
    picture = images.read(saved(tmp_path / "a.png", image))
    assert (picture.pixels[:, :20] == 255).all()
    assert np.abs(picture.pixels[:, 20:].astype(int) - 100).max() <= 1
    assert picture.warnings == ("transparent parts are composited over white",)


def test_half_transparent_is_half_white_and_opaque_alpha_needs_no_warning(tmp_path: Path) -> None:
    half = images.read(saved(tmp_path / "half.png", np.full((40, 40, 4), (0, 100, 200, 128), np.uint8)))
    assert np.abs(half.pixels.astype(int) - (127, 177, 227)).max() <= 1
    opaque = images.read(saved(tmp_path / "opaque.png", np.full((40, 40, 4), (0, 100, 200, 255), np.uint8)))
    assert (opaque.pixels == (0, 100, 200)).all()
    assert opaque.warnings == ()


def test_transparent_colour_of_an_rgb_png_is_white(tmp_path: Path) -> None:
    pixels = np.full((40, 40, 3), 9, np.uint8)
    pixels[:, 20:] = 77
    picture = images.read(saved(tmp_path / "a.png", pixels, transparency=(9, 9, 9)))
    assert (picture.pixels[:, :20] == 255).all()
    assert (picture.pixels[:, 20:] == 77).all()


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_and_palette_become_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(scene()).convert(mode)
    picture = images.read(saved(tmp_path / "a.png", image))
    assert np.array_equal(picture.pixels, np.asarray(image.convert("RGB")))


def test_a_foreign_colour_profile_is_converted_srgb_is_left_alone(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = Image.new("L", (40, 40), 128)
    linear = linear_grey_profile()
    kept = images.read(saved(tmp_path / "kept.png", scene(), icc_profile=srgb))
    assert np.array_equal(kept.pixels, scene())
    assert kept.warnings == ()
    moved = images.read(saved(tmp_path / "moved.png", grey, icc_profile=linear))
    assert np.abs(moved.pixels.astype(int) - 188).max() <= 2  # linear light of .5 is 188 in sRGB
    assert moved.warnings == ("colours are converted to sRGB from the embedded profile 'linear grey'",)


def linear_grey_profile() -> bytes:
    """The smallest ICC version 2 grey profile: white point D50, gamma 1."""
    description = b"linear grey\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(description)) + description + bytes(78),
        b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">iii", 63_190, 65_536, 54_061),
        b"kTRC": b"curv\0\0\0\0" + struct.pack(">I", 0),
    }
    table, body, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(">I", at + len(body)) + bytes(4) + b"\x02\x10\0\0mntrGRAYXYZ " + bytes(12) + b"acsp" + bytes(28)
    header += struct.pack(">iii", 63_190, 65_536, 54_061)
    return header.ljust(128, b"\0") + table + body


def test_a_broken_colour_profile_is_a_warning(tmp_path: Path) -> None:
    for name, profile in (("junk", b"no profile"), ("huge", bytes(images.MAX_PROFILE_BYTES + 1)), ("grey", linear_grey_profile())):
        picture = images.read(saved(tmp_path / f"{name}.jpg", scene(), icc_profile=profile))
        assert len(picture.warnings) == 1
        assert "colour profile cannot be used" in picture.warnings[0]
        assert np.abs(picture.pixels.astype(int) - scene()).max() <= 30


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_an_animation_gives_its_first_frame_and_a_warning(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (40, 40), (20 * k, 100, 0)) for k in range(8)]
    path = tmp_path / f"a.{suffix}"
    frames[3].save(path, save_all=True, append_images=frames[4:])
    picture = images.read(path)
    assert np.abs(picture.pixels.astype(int) - (60, 100, 0)).max() <= 3
    assert picture.warnings == ("the file holds several frames; only the first is used",)


def test_a_jpeg_of_several_pictures_is_still_a_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(scene()).save(path, "MPO", save_all=True, append_images=[Image.new("RGB", (40, 40))])
    picture = images.read(path)
    assert (picture.format, picture.width) == ("JPEG", 64)
    assert picture.warnings == ("the file holds several frames; only the first is used",)


@pytest.mark.parametrize("options", [{"format": "JPEG"}, {"format": "JPEG", "progressive": True}, {"format": "PNG"}, {"format": "WEBP"}])
def test_trailing_bytes_are_accepted_with_a_warning(tmp_path: Path, options: dict[str, object]) -> None:
    thumbnail = io.BytesIO()
    Image.new("RGB", (8, 8)).save(thumbnail, "JPEG")  # its end marker is not the picture's
    exif = Image.Exif()
    exif[0x010E] = thumbnail.getvalue().decode("latin-1")
    path = saved(tmp_path / "a", scene(), exif=exif, **options)
    assert images.read(path).warnings == ()
    path.write_bytes(path.read_bytes() + bytes(5_000_000))
    picture = images.read(path)
    assert picture.warnings == ("5,000,000 bytes follow the end of the picture; they are ignored",)
    assert np.abs(picture.pixels.astype(int) - scene()).max() <= 40


def test_text_is_cleaned_and_capped(tmp_path: Path) -> None:
    text = PngInfo()
    text.add_text("parameters", "a cat, steps: 4\nSampler: Euler")
    text.add_text("evil", "<script>\x00\x1b[31m\u202edoc.exe</script>", zip=True)
    text.add_itxt("k" * 79, "ü" * 10)
    picture = images.read(saved(tmp_path / "a.png", scene(), pnginfo=text))
    assert picture.info == {"parameters": "a cat, steps: 4\nSampler: Euler", "evil": "<script>[31mdoc.exe</script>", "k" * 79: "ü" * 10}
    many = PngInfo()
    many.add_text("long", "x" * 900_000)
    for k in range(100):
        many.add_text(f"key {k}", "value")
    capped = images.read(saved(tmp_path / "many.png", scene(), pnginfo=many))
    assert len(capped.info) == images.MAX_INFO_ENTRIES
    assert sum(map(len, capped.info.values())) == images.MAX_INFO_CHARS
    assert capped.warnings == ("text metadata is over the limit; part of it is dropped",)


def test_a_jpeg_comment_is_text_and_exif_is_not(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "secret"
    assert images.read(saved(tmp_path / "a.jpg", scene(), comment="made by hand", exif=exif)).info == {"comment": "made by hand"}


def test_the_smallest_and_the_longest_allowed_shapes_are_read(tmp_path: Path) -> None:
    for size in ((32, 32), (32, 256), (320, 40)):
        picture = images.read(saved(tmp_path / "a.png", Image.new("RGB", size)))
        assert (picture.width, picture.height) == size


def test_a_missing_end_mark_is_a_warning(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", scene())
    path.write_bytes(path.read_bytes()[:-12])
    picture = images.read(path)
    assert picture.warnings == ("the mark at the end of the picture is missing; its last rows may be wrong",)
    assert np.array_equal(picture.pixels, scene())


def test_a_picture_with_a_foreign_suffix_is_read_by_its_content(tmp_path: Path) -> None:
    path = saved(tmp_path / "notes.txt", scene(), format="PNG")
    assert images.read(path).format == "PNG"


def test_threads_do_not_disturb_each_other_or_the_process(tmp_path: Path) -> None:
    good = saved(tmp_path / "good.png", scene())
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png_header(10_000, 10_000) + png_chunk(b"IDAT", zlib.compress(bytes(1000))))
    filters, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    barrier = threading.Barrier(8)

    def work(k: int) -> str:
        barrier.wait()
        try:
            return images.read(bomb if k % 2 else good).sha256
        except InputError as error:
            return "refused" if "far more than" in str(error) else str(error)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(64)))
    assert results == [hashlib.sha256(good.read_bytes()).hexdigest(), "refused"] * 32
    assert list(warnings.filters) == filters
    assert limit == Image.MAX_IMAGE_PIXELS


def test_paths_expand_directories_in_order_and_once(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt", "sub/c.webp", "sub/deep/d.tiff"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)  # followed, this would never end
    os.mkfifo(tmp_path / "pipe.png")
    inside = [tmp_path / name for name in ("a.JPG", "b.png", "pipe.png", "sub/c.webp", "sub/deep/d.tiff")]
    assert images.paths([tmp_path]) == inside
    named = [tmp_path / "notes.txt", tmp_path / "missing.png", tmp_path / "b.png"]
    assert images.paths([*map(str, named), tmp_path]) == [*named, *(path for path in inside if path.name != "b.png")]


def test_paths_that_give_nothing_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no picture found .*\.webp"):
        images.paths([tmp_path])
    with pytest.raises(InputError, match="nothing was given"):
        images.paths([])


def test_printable_is_short_and_on_one_line() -> None:
    assert images.printable("a\tb\r\n") == "a\\tb\\r\\n"
    assert images.printable("é漢") == "é漢"
    assert len(images.printable("\n" * 10_000, 50)) == 51
