"""Small grey pictures, made without an image library: stand-ins for thumbnails in the right format and size."""

from __future__ import annotations

import struct
import zlib

GREY = 128
EXTENSIONS = frozenset({"jpg", "jpeg", "png", "tiff", "tif", "gif", "webp", "ppm", "bmp"})
# How the files of these formats begin.
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"GIF8", b"RIFF", b"P6", b"P5", b"P3", b"BM")


def is_image(head: bytes) -> bool:
    """Tell whether a file that begins so is a picture."""
    return head.startswith(SIGNATURES)


def grey_png(width: int, height: int) -> bytes:
    """Return a grey PNG."""
    rows = (b"\0" + bytes([GREY]) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, data) for kind, data in chunks)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def grey_jpeg(width: int, height: int) -> bytes:
    """Return a grey baseline JPEG: each block is two zero bits, "same as before" and "nothing more"."""
    blocks = -(-width // 8) * -(-height // 8)
    bits = "00" * blocks
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    one_code = bytes([1]) + bytes(15) + b"\0"  # a Huffman table with a single code of one bit, for the value 0
    segments = (
        (0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"),
        (0xDB, b"\0" + b"\x01" * 64),
        (0xC0, struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\0"),
        (0xC4, b"\x00" + one_code),
        (0xC4, b"\x10" + one_code),
        (0xDA, b"\x01\x01\0\0\x3f\0"),
    )
    head = b"".join(struct.pack(">BBH", 0xFF, kind, len(data) + 2) + data for kind, data in segments)
    return b"\xff\xd8" + head + scan + b"\xff\xd9"
