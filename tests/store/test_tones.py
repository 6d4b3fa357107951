from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from broker.errors import Conflict, FieldError, Invalid, NotFound
from broker.flows.operate import tones
from broker.flows.operate.desk import Desk
from broker.flows.operate.fields import NewTone, ToneFilter, read
from broker.flows.tones import check_tones
from broker.store.registry import App, load
from tests.contract.service import eventually
from tests.store.shop import Shop
from tests.store.test_operate import _VAULT, desk_of, furnished
from tests.tones import pcm, tone

_FILE = tone()
_OTHER = tone(660)
_WAITING = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


async def add(desk: Desk, name: str = "a.wav", content: bytes = _FILE, *, convert: bool = False) -> dict[str, Any]:
    """A tone of the app `shop`."""
    return await tones.add(desk, "shop", NewTone(name=name, convert=convert), content)


async def approved(desk: Desk, name: str = "a.wav", content: bytes = _FILE) -> None:
    """A tone that has gone the whole way."""
    await add(desk, name, content)
    await tones.submit(desk, "shop", name)
    await tones.approve(desk, "shop", name)


async def app_of(shop: Shop) -> App:
    """The app as instances see it."""
    await shop.run("UPDATE app SET secret_sealed = $1", _VAULT.seal("app", "secret", 0, "shop", "x"))
    return (await load(shop.db, _VAULT)).apps[shop.app_id]


async def test_a_tone_goes_from_draft_to_approved(shop: Shop) -> None:
    """Each step is shown with its time; the file comes back byte for byte; only approved ones are listed as such."""
    desk = desk_of(shop)
    made = await add(desk)
    assert (made["state"], made["duration_ms"], made["size_bytes"]) == ("draft", 250, len(_FILE))
    assert (made["sha256"], made["converted"]) == (hashlib.sha256(_FILE).hexdigest(), False)
    assert (await tones.submit(desk, "shop", "a.wav"))["state"] == "submitted"
    shown = await tones.approve(desk, "shop", "a.wav")
    assert (shown["state"], shown["state_since"] > made["state_since"]) == ("approved", True)
    assert await tones.export(desk, "shop", "a.wav") == _FILE
    await add(desk, "b.wav")
    assert [row["name"] for row in await tones.every(desk, "shop", ToneFilter(state="approved"))] == ["a.wav"]
    assert len(await tones.every(desk, "shop", ToneFilter())) == 2


async def test_other_content_is_a_draft_again_and_the_same_content_is_not(shop: Shop) -> None:
    """What was approved was the file: a new file under the name wants a new review; adding it twice changes nothing."""
    desk = desk_of(shop)
    await approved(desk)
    assert (await add(desk))["state"] == "approved"
    replaced = await add(desk, content=_OTHER)
    assert (replaced["state"], replaced["sha256"]) == ("draft", hashlib.sha256(_OTHER).hexdigest())
    await tones.submit(desk, "shop", "a.wav")
    rejected = await tones.reject(desk, "shop", "a.wav", "too loud")
    assert (rejected["state"], rejected["state_reason"]) == ("rejected", "too loud")
    again = await add(desk, content=_OTHER)
    assert (again["state"], again["state_reason"]) == ("draft", None)


@pytest.mark.parametrize(
    ("steps", "refused"),
    [
        ([], tones.approve),
        ([tones.submit, tones.approve], tones.submit),
        ([tones.submit, lambda desk, app, name: tones.reject(desk, app, name, "no")], tones.approve),
        ([tones.submit, lambda desk, app, name: tones.reject(desk, app, name, "no")], tones.submit),
    ],
)
async def test_steps_cannot_be_left_out(
    shop: Shop, steps: list[Callable[..., Awaitable[Any]]], refused: Callable[..., Awaitable[Any]]
) -> None:
    """Only what was submitted is approved or rejected, only a draft is submitted; a step twice is one step."""
    desk = desk_of(shop)
    await add(desk)
    for step in steps:
        first = await step(desk, "shop", "a.wav")
        assert await step(desk, "shop", "a.wav") == first
    before = await tones.show(desk, "shop", "a.wav")
    with pytest.raises(Conflict, match="only a tone that is"):
        await refused(desk, "shop", "a.wav")
    assert await tones.show(desk, "shop", "a.wav") == before


async def test_an_approval_never_meets_content_that_was_not_submitted(shop: Shop, database_url: str) -> None:
    """A file replaced between the look at a tone and its approval: the approval is a conflict, the tone a draft."""
    desk = desk_of(shop)
    await add(desk)
    await tones.submit(desk, "shop", "a.wav")
    other = await asyncpg.connect(database_url)
    try:
        replacing = other.transaction()
        await replacing.start()
        await other.execute("UPDATE tone SET content = 'other', state = 'draft'")
        approving = asyncio.create_task(tones.approve(desk, "shop", "a.wav"))

        async def waits() -> bool:
            return bool(await other.fetchval(_WAITING))

        await eventually(waits, "the approval has looked and waits for the row")
        await replacing.commit()
        with pytest.raises(Conflict, match="at this moment"):
            await approving
        assert (await tones.show(desk, "shop", "a.wav"))["state"] == "draft"
    finally:
        await other.close()


async def test_a_file_that_the_platform_would_not_take(shop: Shop) -> None:
    """Refused with every reason; converted when asked for; what is no wav is refused either way."""
    desk = desk_of(shop)
    music = pcm([0, 1_000, 2_000, -3_000] * 2_000, channels=2, rate=16_000)
    with pytest.raises(Invalid) as caught:
        await add(desk, content=music)
    (error,) = caught.value.errors
    assert error.pointer == ""
    assert all(words in error.detail for words in ("16-bit PCM", "16000 Hz", "2 channels"))
    made = await add(desk, content=music, convert=True)
    assert (made["converted"], made["duration_ms"]) == (True, 250)
    assert (await add(desk, "b.wav", await tones.export(desk, "shop", "a.wav")))["converted"] is False
    assert (await add(desk, "b.wav", _FILE, convert=True))["converted"] is False
    for convert in (False, True):
        with pytest.raises(Invalid) as caught:
            await add(desk, content=b"RIFF", convert=convert)
        assert caught.value.errors[0].detail == "The file is not a wav file."
    with pytest.raises(Invalid) as caught:
        read(NewTone, {"name": "a b.wav"})
    assert [error.pointer for error in caught.value.errors] == ["/name"]


async def test_an_app_has_a_bounded_number_of_tones(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than allowed is refused; those that are there can still be replaced."""
    monkeypatch.setattr(tones, "MOST_TONES", 2)
    desk = desk_of(shop)
    await add(desk, "a.wav")
    await add(desk, "b.wav")
    with pytest.raises(Conflict, match="at most 2"):
        await add(desk, "c.wav")
    assert (await add(desk, "b.wav", _OTHER))["sha256"] == hashlib.sha256(_OTHER).hexdigest()


async def test_tones_of_another_app_are_not_there(shop: Shop) -> None:
    """A name belongs to an app: another one neither sees, approves nor removes it, and may have the same."""
    desk = await furnished(shop)
    await add(desk)
    for ask in (tones.show, tones.submit, tones.approve, tones.export, tones.remove):
        with pytest.raises(NotFound):
            await ask(desk, "food", "a.wav")
        with pytest.raises(NotFound):
            await ask(desk, "none", "a.wav")
    await tones.add(desk, "food", NewTone(name="a.wav"), _OTHER)
    assert (await tones.remove(desk, "shop", "a.wav")) == {"name": "a.wav", "removed": True}
    assert await tones.export(desk, "food", "a.wav") == _OTHER


async def test_a_bind_may_name_approved_tones_only(shop: Shop) -> None:
    """Unknown and unapproved tones are named by pointer, an unknown one with the nearest that there is."""
    desk = desk_of(shop)
    await approved(desk, "wait_voice1.wav")
    await add(desk, "goodbye.wav")
    app = await app_of(shop)
    assert check_tones(app, {"/tones/caller": "wait_voice1.wav", "/tones/callee": None}) == []
    assert check_tones(
        app,
        {
            "/tones/caller": "goodbye.wav",
            "/tones/callee": "wait_voice1.wav",
            "/recording/hint_tone": "wiat_voice1.wav",
            "/last_minute_tone": "zzzzzz",
        },
    ) == [
        FieldError("/tones/caller", "is a tone that the platform has not approved: it is draft"),
        FieldError("/recording/hint_tone", "is not a tone of this app; did you mean wait_voice1.wav?"),
        FieldError("/last_minute_tone", "is not a tone of this app"),
    ]
    await tones.remove(desk, "shop", "wait_voice1.wav")
    (gone,) = check_tones(await app_of(shop), {"/tones/callee": "wait_voice1.wav"})
    assert gone.detail.startswith("is not a tone of this app")


async def test_the_nearest_tone_is_found_among_many(shop: Shop) -> None:
    """A slip at the beginning, in the middle or at the end of a name, among hundreds of others, is seen through."""
    await shop.run(
        "INSERT INTO tone (app_id, name, duration_ms, content) SELECT $1, md5(g::text) || '.wav', 1, 'c'"
        " FROM generate_series(1, 300) AS g",
        shop.app_id,
    )
    desk = desk_of(shop)
    await add(desk, "please_wait.wav")
    app = await app_of(shop)
    for slip in ("Please_wait.wav", "please-wait.wav", "please_wait", "please_wait.WAV", "pleasewait.wav"):
        (error,) = check_tones(app, {"/tones/caller": slip})
        assert error.detail.endswith("did you mean please_wait.wav?"), slip
