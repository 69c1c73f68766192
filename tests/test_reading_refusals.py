"""Every fault that a picture file can have; each file is made here, small, and refused with a message."""

from __future__ import annotations

import io
import os
import socket
import struct
import time
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from image_files import png_chunk, png_header, saved, scene, with_text_chunk
from PIL import Image

from resynth_fast import errors
from resynth_fast.errors import InputError
from resynth_fast.images import reading as images


def refusal(path: Path) -> str:
    """The message with which `path` is refused: one line that names the file and a way out."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError) as caught:
            images.read(path)
    message = str(caught.value)
    assert message.startswith(images.printable(str(path)))
    assert "\n" not in message
    assert ";" in message
    return message


def test_modes_without_a_range_are_refused(tmp_path: Path) -> None:
    assert "'F'" in refusal(saved(tmp_path / "f.tiff", np.ones((40, 40), np.float32)))
    assert "70000" in refusal(saved(tmp_path / "i.tiff", np.full((40, 40), 70_000, np.int32)))


@pytest.mark.parametrize("side", [30_000, 10_000, 6_400])  # Pillow raises at the first, warns at the second, is silent at the third
@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "webp"])
def test_a_header_that_claims_too_many_pixels_is_refused_at_once(tmp_path: Path, suffix: str, side: int) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "png":
        path.write_bytes(png_header(side, side) + png_chunk(b"IDAT", zlib.compress(bytes(1000))))
    elif suffix == "bmp":
        path.write_bytes(b"BM" + struct.pack("<IIIIiiHHIIiiII", 1000, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(900))
    elif suffix == "gif":
        picture = saved(path, scene()).read_bytes()
        path.write_bytes(picture[:6] + struct.pack("<HH", side, side) + picture[10:])
    else:
        side = min(side, 16_383)
        canvas = (side - 1).to_bytes(3, "little")
        picture = saved(path, scene(), lossless=True).read_bytes()[12:]
        body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + canvas + canvas + picture
        path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    start = time.perf_counter()
    message = refusal(path)
    assert time.perf_counter() - start < 1
    if suffix != "webp":  # libwebp itself finds that canvas and picture disagree
        assert "40,000,000 pixels" in message


@pytest.mark.parametrize(("size", "word"), [((1, 65_500), "too small"), ((31, 64), "too small"), ((40, 400), "elongated")])
def test_tiny_and_extreme_shapes_are_refused(tmp_path: Path, size: tuple[int, int], word: str) -> None:
    message = refusal(saved(tmp_path / "a.jpg", Image.new("RGB", size)))
    assert word in message
    assert f"{size[0]}x{size[1]}" in message


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff", "gif"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = saved(tmp_path / f"a.{suffix}", noise)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "a." in refusal(path)


def test_broken_image_data_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    data = bytearray(path.read_bytes())
    data[60:80] = bytes(20)
    path.write_bytes(data)
    assert "checksum" in refusal(path)


def test_other_formats_are_refused_whatever_their_name(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.png", b"x" * 1000)
    contents = {
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n",
        "zip": archive.getvalue(),
        "ppm": b"P6 64 64 255\n" + bytes(64 * 64 * 3),
        "pickle": b"\x80\x04\x95\x0b\0\0\0\0\0\0\0}\x94\x8c\x01a\x94K\x01s.",
        "text": b"hello",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }
    for kind, data in contents.items():
        path = tmp_path / f"{kind}.png"
        path.write_bytes(data)
        assert "is not a readable PNG, JPEG" in refusal(path)


def test_a_text_bomb_is_refused(tmp_path: Path) -> None:
    bomb = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(30_000_000), 9))
    path = saved(tmp_path / "a.png", scene())
    path.write_bytes(with_text_chunk(path.read_bytes(), bomb))
    assert "too large" in refusal(path)


def test_a_file_over_the_byte_cap_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.truncate(images.MAX_FILE_BYTES + 1)  # sparse: takes no room
    assert "67,108,864 bytes" in refusal(path)


def test_a_file_that_grows_while_it_is_read_meets_the_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(bytes(2000))
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 1000)
    monkeypatch.setattr(images, "_check_regular", lambda status, name: None)
    assert "over the limit of 1,000 bytes" in refusal(path)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    expected = {
        "empty.png": "empty",
        "folder.png": "is a directory",
        "pipe.png": "is a named pipe",
        "loop.png": "levels of symbolic links",
        "broken.png": "No such file",
        "device.png": "is a device",
        "missing.png": "No such file",
        "nul\0.png": "null",
    }
    for name, words in expected.items():
        assert words in refusal(tmp_path / name)
    assert "is a device" in refusal(Path("/dev/zero"))


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket may be 108 bytes long, no more
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.png")
        assert "is a socket" in refusal(Path("s.png"))


def test_a_pipe_that_replaces_a_file_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, pipe = saved(tmp_path / "a.png", scene()), tmp_path / "pipe"
    os.mkfifo(pipe)
    opened = os.open
    monkeypatch.setattr(os, "open", lambda name, flags, *rest: opened(pipe, flags, *rest))
    assert "is a named pipe" in refusal(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", scene())
    path.chmod(0)
    assert "Permission denied" in refusal(path)


@pytest.mark.parametrize("name", ["a\nb.png", "\x1b[31m.png", "\u202egnp.exe", "=1+1.png", "<script>.png", "a\udcffb.png"])
def test_a_hostile_name_cannot_drive_a_terminal(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"nothing")
    message = refusal(path)
    assert message.isprintable()
    message.encode()  # no lone surrogates


def test_each_kind_of_error_has_its_exit_code() -> None:
    kinds = (errors.ConfigError, errors.InputError, errors.BundleError, errors.DeviceError, errors.DeadlineError)
    assert [kind.exit_code for kind in kinds] == [2, 1, 3, 4, 5]
    assert all(issubclass(kind, errors.ResynthError) for kind in kinds)


def test_random_damage_never_escapes_as_another_exception(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a"
    for file_format in images.FORMATS:
        buffer = io.BytesIO()
        Image.fromarray(scene()).save(buffer, file_format, **({} if file_format in ("BMP", "GIF") else {"exif": exif}))
        for _ in range(60):
            data = np.frombuffer(buffer.getvalue(), np.uint8).copy()
            data[rng.integers(0, min(len(data), 600), 4)] = rng.integers(0, 256, 4)
            path.write_bytes(data.tobytes())
            try:
                picture = images.read(path)
            except InputError:
                continue
            assert picture.pixels.shape == (picture.height, picture.width, 3)
