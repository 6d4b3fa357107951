"""Wav files for tests, made field by field."""

from __future__ import annotations

import math
import struct
from array import array

from broker.domain import g711, wav


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """A wav file of these chunks."""
    body = b"".join(name + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2) for name, part in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def form(tag: int, channels: int, rate: int, bits: int, *, block: int | None = None) -> bytes:
    """A format chunk's bytes; ``block`` unless it is what channels and bits make it."""
    block = channels * bits // 8 if block is None else block
    return struct.pack("<HHIIHH", tag, channels, rate, rate * block % 2**32, block, bits)


def wav_of(data: bytes, *, tag: int = wav.PCM, channels: int = 1, rate: int = 8_000, bits: int = 16) -> bytes:
    """A wav file of one form."""
    return riff((b"fmt ", form(tag, channels, rate, bits)), (b"data", data))


def pcm(samples: list[int], *, channels: int = 1, rate: int = 8_000) -> bytes:
    """A 16-bit PCM file."""
    return wav_of(struct.pack(f"<{len(samples)}h", *samples), channels=channels, rate=rate)


def sine(hertz: float, rate: int, seconds: float = 0.25, level: int = 10_000) -> array[int]:
    """A pure note."""
    return array("h", [round(level * math.sin(2 * math.pi * hertz * at / rate)) for at in range(int(rate * seconds))])


def loudness(samples: array[int]) -> float:
    """Root of the mean square."""
    return math.sqrt(sum(sample * sample for sample in samples) / len(samples))


def tone(hertz: float = 440, seconds: float = 0.25) -> bytes:
    """A file as the platform takes it."""
    return wav.write_alaw(g711.alaw(sine(hertz, 8_000, seconds)), 8_000)
