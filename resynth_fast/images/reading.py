"""Reads one picture from an untrusted file: every limit of this project on pictures stands here.

Nothing here changes a global setting of Pillow; all functions may be called from several threads at once.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import threading
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from ..errors import InputError
from ..types import Picture

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
MAX_FILE_BYTES = 64 * 2**20
MAX_PIXELS = 40_000_000
MIN_SIDE_PX = 32
MAX_ASPECT = 8
MAX_INFO_ENTRIES = 64
MAX_INFO_KEY_CHARS = 80
MAX_INFO_CHARS = 2**19  # over all entries together: holds any workflow graph seen in practice
MAX_PROFILE_BYTES = 4 * 2**20

_FILE_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_EXIF_ORIENTATION = 0x0112
_EXIF_IFD = 0x8769
_EXIF_USER_COMMENT = 0x9286
_USER_COMMENT = "UserComment"
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MODES_16_BIT = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
_MODES_8_BIT = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})
# C0 and C1 controls except tab, line feed and carriage return; bidirectional marks; lone surrogates
_UNSAFE_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# in entropy-coded JPEG data, 0xff is followed by a stuffed zero, a restart marker or more fill; anything else is a marker
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_MAX_SEGMENTS = 100_000

# `warnings.catch_warnings` swaps process-wide state, so only one thread may be between its two ends
_header_lock = threading.Lock()


def paths(inputs: Iterable[str | Path]) -> list[Path]:
    """The files named by `inputs`, each once and in order; the files of a directory sorted by path.

    A directory is walked to its end without following links to directories, and gives the files whose suffix is
    in SUFFIXES. Anything else is returned as it is, existing or not, so that `read` can say what is wrong with it.
    Raises InputError if a directory cannot be listed, or if no file at all is found.
    """
    given = [Path(entry) for entry in inputs]
    found: dict[Path, None] = {}
    for entry in given:
        for path in _walk(entry) if _is_directory(entry) else (entry,):
            found.setdefault(path)
    if not found:
        names = ", ".join(printable(str(entry)) for entry in given) or "nothing was given"
        raise InputError(f"no picture found ({names}); name a file, or a directory holding {' '.join(sorted(SUFFIXES))}")
    return list(found)


def read(path: str | Path) -> Picture:
    """Read, check and decode one picture.

    Raises InputError, naming the file, the value and the way out, for everything that a file can get wrong.
    """
    name = printable(str(path))
    data = _file_bytes(path, name)
    notes: list[str] = []
    try:
        with _open(data, name) as image:
            _check_size(image.width, image.height, name)
            return _decode(image, data, name, notes)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a decoder facing hostile bytes raises OSError, ValueError, SyntaxError, struct.error, …
        reason = printable(str(error)) or type(error).__name__
        raise InputError(f"{name}: cannot be decoded ({reason}); the file is damaged or truncated, export it again") from error


def digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; the file is checked as by `read`, but not decoded. Raises InputError."""
    return hashlib.sha256(_file_bytes(path, printable(str(path)))).hexdigest()


def printable(text: str, limit: int = 500) -> str:
    """`text` on one line of at most `limit` characters: what a terminal would obey or reorder is shown as an escape."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:limit])
    return shown[:limit] + ("…" if len(text) > limit or len(shown) > limit else "")


def cleaned(text: str) -> str:
    """`text` without control characters, bidirectional marks and lone surrogates; tabs and line ends are kept."""
    return _UNSAFE_TEXT.sub("", text)


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a link loop or a NUL in the name: `read` reports it
        return False


def _walk(directory: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(f"{printable(str(directory))}: cannot be listed ({error.strerror}); check its permissions") from error

    return sorted(
        Path(folder, file)
        for folder, _, files in os.walk(directory, onerror=refuse)
        for file in files
        if Path(file).suffix.lower() in SUFFIXES
    )


def _file_bytes(path: str | Path, name: str) -> bytes:
    """The bytes of a regular file, never more than MAX_FILE_BYTES of them in memory."""
    try:
        # Checked before opening, because opening a device or a pipe can have effects or never return …
        _check_regular(os.stat(path), name)
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            _check_regular(os.fstat(descriptor), name)  # … and after, because the name may refer to another file by now.
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"{name}: cannot be read ({reason}); check that it exists and may be read") from error
    if not data:
        raise InputError(f"{name}: is empty (0 bytes); copy or export the picture again")
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"{name}: is over the limit of {MAX_FILE_BYTES:,} bytes; save a smaller copy")
    return data


def _check_regular(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _FILE_KINDS.get(stat.S_IFMT(status.st_mode), "a special file")
        raise InputError(f"{name}: is {kind}, not a regular file; name a picture file")
    if status.st_size > MAX_FILE_BYTES:
        raise InputError(f"{name}: {status.st_size:,} bytes is over the limit of {MAX_FILE_BYTES:,} bytes; save a smaller copy")


def _open(data: bytes, name: str) -> ImageFile.ImageFile:
    """Parse the header, no pixels. Only the parsers of FORMATS ever see the bytes, whatever the file is called."""
    try:
        with _header_lock, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{name}: its header claims far more than {MAX_PIXELS:,} pixels; save a smaller copy") from error
    except UnidentifiedImageError as error:
        known = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise InputError(f"{name}: is not a readable {known} file, whatever its suffix; convert it to PNG") from error


def _check_size(width: int, height: int, name: str) -> None:
    size = f"{width}x{height} px"
    if width * height > MAX_PIXELS:
        raise InputError(f"{name}: {size} is over the limit of {MAX_PIXELS:,} pixels; save a smaller copy")
    if min(width, height) < MIN_SIDE_PX:
        raise InputError(f"{name}: {size} is too small, the shorter side must be at least {MIN_SIDE_PX} px; find a larger copy")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InputError(f"{name}: {size} is more elongated than 1:{MAX_ASPECT}; crop the part that matters")


def _decode(image: ImageFile.ImageFile, data: bytes, name: str, notes: list[str]) -> Picture:
    # a JPEG holding further pictures is called MPO by Pillow, which reaches it through its JPEG reader
    file_format = "JPEG" if image.format == "MPO" else str(image.format)
    profile = image.info.get("icc_profile")
    orientation = _orientation(image, notes)
    if getattr(image, "is_animated", False):
        notes.append("the file holds several frames; only the first is used")
    if image.format != "MPO":  # whose further pictures follow the end of the first
        end = _end_of_picture(data, file_format)
        if end is None:
            notes.append("the mark at the end of the picture is missing; its last rows may be wrong")
        elif end < len(data):
            notes.append(f"{len(data) - end:,} bytes follow the end of the picture; they are ignored")
    image.load()
    rgb = _rgb(image, profile, name, notes)
    # Read again after decoding: the TIFF reader has rotated the picture and dropped the tag by then.
    turn = _UPRIGHT.get(_orientation(image, notes))
    pixels = np.array(rgb.transpose(turn) if turn is not None else rgb, np.uint8)
    pixels.setflags(write=False)
    return Picture(
        pixels=pixels,
        sha256=hashlib.sha256(data).hexdigest(),
        format=file_format,
        width=pixels.shape[1],
        height=pixels.shape[0],
        exif_orientation=orientation,
        info=_text(image, file_format, notes),
        data=data,
        warnings=tuple(dict.fromkeys(notes)),
    )


def _orientation(image: Image.Image, notes: list[str]) -> int:
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # as above: hostile bytes. A picture whose EXIF is broken is still a picture
        notes.append("the EXIF data cannot be read; the picture is taken as upright")
        return 1
    return value if value in _UPRIGHT else 1


def _rgb(image: Image.Image, profile: bytes | None, name: str, notes: list[str]) -> Image.Image:
    """8-bit sRGB of any mode that the allowed formats can hold, alpha composited over white."""
    if image.mode in _MODES_16_BIT:
        image = _eight_bit(image, name)
        notes.append("16-bit greyscale is scaled to 8 bits")
    elif image.mode not in _MODES_8_BIT:
        raise InputError(f"{name}: colour mode {image.mode!r} has no fixed range of values; convert it to 8-bit RGB")
    alpha = None
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        alpha, image = rgba.getchannel("A"), rgba.convert("RGB")
    elif image.mode in ("P", "RGBX", "YCbCr"):
        image = image.convert("RGB")
    elif image.mode == "1":
        image = image.convert("L")
    rgb = _srgb(image, profile, notes)
    if alpha is not None and alpha.getextrema() != (255, 255):
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)
        notes.append("transparent parts are composited over white")
    return rgb


def _eight_bit(image: Image.Image, name: str) -> Image.Image:
    """Full-scale 16-bit grey to 8 bits, rounded to nearest; Pillow's own conversion clips at 255 instead."""
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65_535:
        raise InputError(f"{name}: grey values {low} … {high} are outside 0 … 65535; convert it to 8-bit RGB")
    return Image.fromarray(((values * 255 + 32_767) // 65_535).astype(np.uint8))


def _srgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """`image` (L, RGB or CMYK) in sRGB, by its embedded ICC profile where that can be used."""
    if profile:
        try:
            if len(profile) > MAX_PROFILE_BYTES:
                raise ValueError(f"{len(profile):,} bytes")
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            description = printable(ImageCms.getProfileDescription(source).strip(), 60)
            if "srgb" in description.lower() and image.mode == "RGB":
                return image
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            assert converted is not None  # None only when converting in place
            notes.append(f"colours are converted to sRGB from the embedded profile '{description}'")
            return converted
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
            notes.append(f"the embedded colour profile cannot be used ({printable(str(error), 80)}); colours may be off")
    if image.mode == "CMYK":
        notes.append("CMYK is converted to RGB without a colour profile; colours may be off")
    return image.convert("RGB")


def _text(image: Image.Image, file_format: str, notes: list[str]) -> dict[str, str]:
    """The text stored with the picture, within the limits. Of EXIF only the user comment is read, of XMP nothing."""
    info: dict[str, str] = {}
    room = MAX_INFO_CHARS
    for key, raw in (*image.info.items(), (_USER_COMMENT, _user_comment(image))):
        value = raw.decode("utf-8", "replace") if key == "comment" and isinstance(raw, bytes) else raw
        if not isinstance(value, str) or not (file_format == "PNG" or key in ("comment", _USER_COMMENT)):
            continue
        if len(info) == MAX_INFO_ENTRIES or len(key) > MAX_INFO_KEY_CHARS or len(value) > room:
            notes.append("text metadata is over the limit; part of it is dropped")
        if len(info) == MAX_INFO_ENTRIES:
            break
        kept = value[:room]
        room -= len(kept)
        info[cleaned(str(key)[:MAX_INFO_KEY_CHARS])] = cleaned(kept)
    return info


def _user_comment(image: Image.Image) -> str | None:
    """The EXIF user comment, where generators of JPEG and WebP files put their parameters."""
    try:
        raw = image.getexif().get_ifd(_EXIF_IFD).get(_EXIF_USER_COMMENT)
    except Exception:  # as above: hostile bytes
        return None
    if not isinstance(raw, bytes) or not raw[8:].strip(b"\0 "):
        return None
    text = raw[8 : 8 + 4 * MAX_INFO_CHARS]
    if not raw.startswith(b"UNICODE"):
        return text.decode("utf-8", "replace")
    # The byte order is not stated, and writers differ: in most scripts, one byte of each pair has few values.
    return text.decode("utf-16-be" if len(set(text[::2])) <= len(set(text[1::2])) else "utf-16-le", "replace")


def _end_of_picture(data: bytes, file_format: str) -> int | None:
    """Offset of the first byte after the picture: the file's length where the format does not mark the end, None if no end is found."""
    if file_format == "PNG":
        return _end_of_png(data)
    if file_format == "JPEG":
        return _end_of_jpeg(data)
    if file_format == "WEBP":
        size = int.from_bytes(data[4:8], "little")
        return 8 + size + size % 2  # RIFF pads to an even length
    return len(data)


def _end_of_png(data: bytes) -> int | None:
    """Raises ValueError if the checksum of a chunk of pixels is wrong: Pillow would decode other pixels without a word."""
    at = 8
    for _ in range(_MAX_SEGMENTS):
        body = at + 8
        end = body + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : body]
        if kind == b"IDAT" and zlib.crc32(memoryview(data)[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ValueError("the checksum of its pixel data is wrong")
        at = end + 4
        if kind == b"IEND":
            return at
        if at >= len(data):
            break
    return None


def _end_of_jpeg(data: bytes) -> int | None:
    at = 2
    for _ in range(_MAX_SEGMENTS):
        # Thumbnails inside a segment have end markers of their own, so segments are skipped by their length.
        marker = _JPEG_MARKER.search(data, at)
        if marker is None:
            break
        if marker.group() == b"\xff\xd9":
            return marker.end()
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return None
