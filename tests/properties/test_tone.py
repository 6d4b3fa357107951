from __future__ import annotations

import struct
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain import g711, wav
from broker.domain import tone as rules
from broker.domain.resample import lower_rate
from broker.domain.tone import CannotConvert
from broker.domain.wav import BadWav
from tests.tones import form, loudness, pcm, riff, sine, tone, wav_of

_SAMPLES = st.integers(-32_768, 32_767)
_EVERY_BYTE = bytes(range(256))


@given(_SAMPLES)
def test_a_sample_stays_within_half_a_step(sample: int) -> None:
    """A-law keeps each sample's sign, and its size within a thirty-second of it, or 8 where it is small."""
    (kept,) = g711.from_alaw(g711.alaw([sample]))
    assert abs(kept - sample) <= max(8, abs(sample) / 32)
    assert (kept > 0) == (sample >= 0)


def test_every_byte_comes_back() -> None:
    """Decoding and encoding again changes no A-law byte; the standard's corner values are what they are."""
    assert g711.alaw(g711.from_alaw(_EVERY_BYTE)) == _EVERY_BYTE
    assert g711.alaw([0, -1, 32_767, -32_768]) == bytes.fromhex("d555aa2a")
    assert list(g711.from_alaw(bytes.fromhex("d555aa2a"))) == [8, -8, 32_256, -32_256]


def test_mu_law_is_read_by_the_standard() -> None:
    """Mu-law: zero, both ends, and levels that rise with the sample."""
    assert list(g711.from_ulaw(bytes.fromhex("ff7f8000"))) == [0, 0, 32_124, -32_124]
    rising = g711.from_ulaw(bytes(range(255, 127, -1)))
    assert list(rising) == sorted(set(rising))


@given(st.lists(_SAMPLES, max_size=50).map(sorted))
def test_louder_stays_louder(samples: list[int]) -> None:
    """A-law keeps the order of samples."""
    kept = list(g711.from_alaw(g711.alaw(samples)))
    assert kept == sorted(kept)


@pytest.mark.parametrize("rate", [11_025, 16_000, 22_050, 44_100, 48_000])
def test_resampling_keeps_speech_and_drops_what_would_fold_back(rate: int) -> None:
    """Notes of the speech band keep their loudness; those above half the new rate leave nothing."""
    for hertz in (300, 1_000, 3_000):
        kept = lower_rate(sine(hertz, rate), rate, 8_000)
        assert len(kept) == int(rate * 0.25) * 8_000 // rate
        assert loudness(kept[200:-200]) == pytest.approx(10_000 / 2**0.5, rel=0.02)
    folded = lower_rate(sine(4_600, rate), rate, 8_000)
    assert loudness(folded[200:-200]) < 20


@given(st.lists(_SAMPLES, min_size=1, max_size=60), st.sampled_from([8_000, 11_025, 16_000, 48_000]))
def test_resampling_never_overflows(samples: list[int], rate: int) -> None:
    """Whatever the samples, the result is in range and as long as it should be; equal rates change nothing."""
    kept = lower_rate(array("h", samples), rate, 8_000)
    assert len(kept) == len(samples) * 8_000 // rate
    if rate == 8_000:
        assert list(kept) == samples


@given(st.binary(min_size=1, max_size=500))
def test_what_is_written_is_what_the_platform_takes(encoded: bytes) -> None:
    """A written file reads back to the same bytes and meets every demand."""
    file = wav.write_alaw(encoded, rules.RATE)
    sound = wav.read(file)
    assert (sound.data, sound.tag, sound.frames) == (encoded, wav.ALAW, len(encoded))
    assert rules.unmet(sound, len(file)) == []


@given(st.data())
def test_a_damaged_file_is_refused_or_read_never_more(data: st.DataObject) -> None:
    """Bytes changed, cut or added anywhere: a sentence or a sound within the file, never anything else."""
    good = data.draw(st.sampled_from([tone(seconds=0.01), pcm([1, -2, 3, -4], channels=2, rate=44_100)]))
    broken = bytearray(good)
    for place in data.draw(st.lists(st.integers(0, min(60, len(good) - 1)), max_size=4)):
        broken[place] = data.draw(st.integers(0, 255))
    cut = bytes(broken[: data.draw(st.integers(0, len(broken)))])
    said = ""
    try:
        sound = wav.read(cut)
        assert sound.data in cut
        assert sound.frames > 0
        made = rules.convert(sound)
        assert rules.unmet(wav.read(made), len(made)) == []
    except (BadWav, CannotConvert) as error:
        said = str(error)
    assert said.count(".") == said.endswith(".")
    assert "\n" not in said


@given(st.binary(max_size=200))
def test_random_bytes_are_no_wav(content: bytes) -> None:
    """Random bytes are refused, behind a good beginning too."""
    for file in (content, b"RIFF" + struct.pack("<I", len(content) + 4) + b"WAVE" + content):
        with pytest.raises(BadWav):
            wav.read(file)


_FORM = (b"fmt ", form(wav.ALAW, 1, 8_000, 8))
_DATA = (b"data", b"\xd5" * 80)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (b"", "not a wav"),
        (b"ID3\x04" + bytes(40), "not a wav"),
        (b"RF64" + tone()[4:], "RF64"),
        (b"RIFX" + tone()[4:], "big-endian"),
        (tone()[:-5], "cut off"),
        (tone()[:20], "cut off"),
        (b"RIFF" + b"\xff" * 4 + tone()[8:], "cut off"),
        (riff(_FORM, (b"data", b""))[:-4] + b"\xff" * 4, "cut off"),
        (riff(_FORM)[:4] + struct.pack("<I", len(riff(_FORM)) - 4) + riff(_FORM)[8:] + b"data", "head of a chunk"),
        (riff(_DATA), "no format chunk"),
        (riff(_FORM), "no data chunk"),
        (riff(_FORM, (b"data", b"")), "empty"),
        (riff(_FORM, _FORM, _DATA), "two fmt"),
        (riff(_FORM, _DATA, _DATA), "two data"),
        (riff((b"fmt ", b"\x06\x00"), _DATA), "2 bytes"),
        (riff((b"fmt ", form(wav.ALAW, 0, 8_000, 8)), _DATA), "no channel"),
        (riff((b"fmt ", form(wav.ALAW, 1, 0, 8)), _DATA), "no channel"),
        (riff((b"fmt ", form(wav.ALAW, 1, 8_000, 8, block=7)), _DATA), "contradicts"),
        (riff((b"fmt ", form(wav.PCM, 1, 8_000, 0)), _DATA), "contradicts"),
        (riff((b"fmt ", form(wav.PCM, 2, 8_000, 16)), (b"data", bytes(7))), "middle of a sample"),
        (riff((b"fmt ", form(0xFFFE, 1, 8_000, 8)), _DATA), "extensible"),
        (riff(_FORM, *((b"LIST", b"") for _ in range(1_001)), _DATA), "1,000 chunks"),
    ],
)  # fmt: skip
def test_hostile_files_get_one_sentence(file: bytes, words: str) -> None:
    """Each way to be no wav has its words."""
    with pytest.raises(BadWav, match=words):
        wav.read(file)


def test_unknown_chunks_are_passed_over() -> None:
    """Chunks before, between and after the two that count change nothing, odd lengths included."""
    extra = (b"LIST", b"odd")
    assert wav.read(riff(extra, _FORM, extra, _DATA, extra)) == wav.read(riff(_FORM, _DATA))
    assert wav.read(riff(_FORM, _DATA) + b"behind the end") == wav.read(riff(_FORM, _DATA))


def test_every_unmet_demand_is_named() -> None:
    """Format, rate, channels and size are named together; the extensible form of A-law is no plain A-law."""
    file = pcm([0, 0], channels=2, rate=44_100)
    assert rules.unmet(wav.read(file), 3_000_000) == [
        "16-bit PCM instead of A-law", "44100 Hz instead of 8000", "2 channels instead of one",
        "3,000,000 bytes instead of at most 2,000,000",
    ]  # fmt: skip
    inner = struct.pack("<HHIH", 22, 8, 4, wav.ALAW) + bytes.fromhex("000000001000800000aa00389b71")
    sound = wav.read(riff((b"fmt ", form(0xFFFE, 1, 8_000, 8) + inner), _DATA))
    assert rules.unmet(sound, 100) == ["A-law in the extensible format instead of plain A-law"]
    assert wav.read(rules.convert(sound)) == wav.read(riff(_FORM, _DATA))


@pytest.mark.parametrize(("tag", "bits", "zero"), [(wav.PCM, 8, 128), (wav.ALAW, 8, 0xD5), (wav.ULAW, 8, 0xFF)])
def test_silence_stays_silence(tag: int, bits: int, zero: int) -> None:
    """Silence of every kind, in stereo and at another rate, is A-law silence."""
    file = wav_of(bytes([zero]) * 3_200, tag=tag, channels=2, rate=16_000, bits=bits)
    assert set(wav.read(rules.convert(wav.read(file))).data) == {0xD5}


def test_stereo_is_mixed() -> None:
    """Both channels are heard; opposite ones cancel out."""
    left = list(sine(440, 8_000))
    both = wav.read(rules.convert(wav.read(pcm([value for sample in left for value in (sample, sample)], channels=2))))
    assert both.data == g711.alaw(left)
    none = rules.convert(wav.read(pcm([value for sample in left for value in (sample, -sample)], channels=2)))
    assert set(wav.read(none).data) == {0xD5}


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (wav_of(bytes(6), bits=24), "24-bit PCM"),
        (wav_of(bytes(8), tag=3, bits=32), "floating point"),
        (wav_of(bytes(6), channels=3), "3 channels"),
        (wav_of(bytes(6), rate=44_099), "44099 Hz"),
        (wav_of(bytes(2), rate=4_294_967_295), "4294967295 Hz"),
        (wav_of(bytes(2_010_000), bits=8), "at most 249"),
        (wav_of(bytes(2), rate=48_000), "shorter than one sample"),
    ],
)
def test_what_cannot_be_converted_says_so(file: bytes, words: str) -> None:
    """Other widths, channels, rates and lengths: one sentence."""
    with pytest.raises(CannotConvert, match=words):
        rules.convert(wav.read(file))


def test_the_longest_tone_fits(tmp_path: Path) -> None:
    """Of the longest sound that is converted the file keeps the platform's limit."""
    made = rules.convert(wav.read(wav_of(bytes([128]) * 1_999_900, bits=8)))
    (tmp_path / "long.wav").write_bytes(made)
    assert (tmp_path / "long.wav").stat().st_size <= rules.MOST_BYTES


@pytest.mark.parametrize(
    ("name", "good"),
    [("wait_voice1.wav", True), ("A-Z.0@9.wav", True), ("a" * 124 + ".wav", True), ("a" * 125 + ".wav", False),
     (".wav", False), ("a.mp3", False), ("a b.wav", False), ("a.wav\n", False), ("ä.wav", False), ("a/b.wav", False),
     ("a.WAV", False), ("", False)],
)  # fmt: skip
def test_names(name: str, good: bool) -> None:  # noqa: FBT001 - a column of the table
    """The platform's rule for file names."""
    assert rules.is_name(name) == good
