"""Wav files: RIFF chunks read with distrust, and written plainly."""

from __future__ import annotations

import struct
from dataclasses import dataclass

PCM = 1
ALAW = 6
ULAW = 7
_EXTENSIBLE = 0xFFFE
#: The fixed part of the identifiers that an extensible format wraps an ordinary format tag into.
_WRAPPED = bytes.fromhex("000000001000800000aa00389b71")
_WRAPPED_AT = 24
_EXTENSIBLE_BYTES = 40
_FORMAT_BYTES = 16
_HEADER = 12
_MOST_CHUNKS = 1_000
_FOREIGN = {b"RF64": "an RF64", b"BW64": "a BW64", b"RIFX": "a big-endian RIFX"}


class BadWav(ValueError):
    """One sentence: why a file is no wav that can be read."""


@dataclass(frozen=True, slots=True)
class Wav:
    """A file's sound. ``tag`` is its format tag (an extensible one's inner tag), ``data`` the whole frames."""

    tag: int
    extensible: bool
    channels: int
    rate: int
    bits: int
    data: bytes

    @property
    def frames(self) -> int:
        """Samples of each channel."""
        return len(self.data) // (self.channels * self.bits // 8)

    @property
    def duration_ms(self) -> int:
        """How long it plays."""
        return self.frames * 1000 // self.rate


def read(content: bytes) -> Wav:
    """Return the sound of a wav file.

    Raises:
        BadWav: the file is not one, is cut off, or contradicts itself.
    """
    chunks = _chunks(content)
    if "fmt" not in chunks:
        raise BadWav("The file has no format chunk.")
    if "data" not in chunks:
        raise BadWav("The file has no sound: there is no data chunk.")
    return _sound(chunks["fmt"], chunks["data"])


def write_alaw(encoded: bytes, rate: int) -> bytes:
    """Return a mono A-law wav file."""
    parts = (
        # The empty extension and the fact chunk are what the format asks of everything but PCM.
        (b"fmt ", struct.pack("<HHIIHHH", ALAW, 1, rate, rate, 1, 8, 0)),
        (b"fact", struct.pack("<I", len(encoded))),
        (b"data", encoded),
    )
    body = b"".join(name + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2) for name, part in parts)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def _chunks(content: bytes) -> dict[str, bytes]:
    """Return the format and the data chunk, whatever stands between them."""
    if content[:4] in _FOREIGN:
        raise BadWav(f"The file is {_FOREIGN[content[:4]]} file; a plain RIFF wav is needed.")
    if len(content) < _HEADER or content[:4] != b"RIFF" or content[8:_HEADER] != b"WAVE":
        raise BadWav("The file is not a wav file.")
    end = 8 + _size(content, 4)
    if end > len(content):
        raise BadWav(f"The file is cut off: it says that it has {end} bytes and has {len(content)}.")
    found: dict[str, bytes] = {}
    at = _HEADER
    for _ in range(_MOST_CHUNKS):
        if at >= end:
            return found
        if at + 8 > end:
            raise BadWav("The file is cut off in the head of a chunk.")
        size = _size(content, at + 4)
        if at + 8 + size > end:
            raise BadWav(f"The file is cut off: a chunk says that it has {size} bytes and {end - at - 8} are left.")
        name = {b"fmt ": "fmt", b"data": "data"}.get(content[at : at + 4])
        if name in found:
            raise BadWav(f"The file has two {name} chunks.")
        if name is not None:
            found[name] = content[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    raise BadWav(f"The file has more than {_MOST_CHUNKS:,} chunks.")


def _size(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 4], "little")


def _sound(form: bytes, data: bytes) -> Wav:
    if len(form) < _FORMAT_BYTES:
        raise BadWav(f"The file's format chunk has {len(form)} bytes instead of at least {_FORMAT_BYTES}.")
    tag, channels, rate, _, block, bits = struct.unpack("<HHIIHH", form[:_FORMAT_BYTES])
    extensible = tag == _EXTENSIBLE
    if extensible:
        if len(form) < _EXTENSIBLE_BYTES or form[_WRAPPED_AT + 2 : _EXTENSIBLE_BYTES] != _WRAPPED:
            raise BadWav("The file has an extensible format that names no ordinary one.")
        tag = _inner_tag(form)
    if channels == 0 or rate == 0:
        raise BadWav("The file says that it has no channel or no samples a second.")
    if bits == 0 or bits % 8 or block != channels * bits // 8:
        raise BadWav(f"The file contradicts itself: {channels} channels of {bits} bits in {block} bytes.")
    if not data:
        raise BadWav("The file has no sound: its data chunk is empty.")
    if len(data) % block:
        raise BadWav("The file ends in the middle of a sample.")
    return Wav(tag, extensible, channels, rate, bits, data)


def _inner_tag(form: bytes) -> int:
    return int.from_bytes(form[_WRAPPED_AT : _WRAPPED_AT + 2], "little")
