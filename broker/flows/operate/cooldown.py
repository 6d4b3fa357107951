"""A proposal for a quarantine, from the calls that came after the end of their binding."""

from __future__ import annotations

from dataclasses import asdict

from broker.domain.cooldown import curve, edge_s, exposure, propose, sample_load
from broker.errors import NotFound
from broker.flows.operate.desk import Desk, Shown, app_id
from broker.flows.operate.fields import Cooldown
from broker.log import scrubbed
from broker.store import learned
from broker.store.statements import statements


async def show(desk: Desk, app: str, pool: str, wanted: Cooldown) -> Shown:
    """Return the proposal for a pool, what it rests on, and what the present quarantine leaves.

    Raises:
        NotFound: there is no such app or pool.
    """
    owner = await app_id(desk, app)
    row = await desk.db.fetchrow(statements("operate")["resting_of_pool"], owner, pool)
    if row is None:
        raise NotFound(f"The app has no pool '{scrubbed(pool)}'.")
    known = (await learned.of_pools(desk.db, [row["id"]]))[row["id"]]
    proposal = propose(known.cohorts, wanted.risk)
    now = exposure(known.cohorts, row["quarantine_s"])
    return {
        "pool": pool,
        "risk_per_million": wanted.risk,
        "quarantine_s": row["quarantine_s"],
        "proposed_s": proposal.rest_s,
        "why": proposal.why,
        "exposure": None if now is None else asdict(now),
        "proposed_exposure": None if proposal.exposure is None else asdict(proposal.exposure),
        "sample": {
            "share": row["sample_share"],
            "factor": row["sample_factor"],
            "releases": sum(one.releases for one in known.cohorts),
            "of_resting": sample_load(row["quarantine_s"], row["sample_share"], row["sample_factor"]),
        },
        "ages": [asdict(age) | {"per_hour": age.per_hour} for age in curve(known.cohorts)],
        "outside_the_sample": [
            {"from_s": edge_s(place), "calls": calls} for place, calls in enumerate(known.outside) if calls
        ],
    }


def words(answer: Shown) -> list[str]:
    """Return the proposal in sentences for people."""
    sample, now = answer["sample"], answer["exposure"]
    proposed = "none" if answer["proposed_s"] is None else f"{answer['proposed_s']} s"
    told = [
        f"Proposed quarantine: {proposed}, now: {answer['quarantine_s']} s.",
        f"For at most {answer['risk_per_million']:g} late calls for a million orders: {answer['why']}.",
        f"Sample: {sample['share']:.3%} of releases rest {sample['factor']} times as long, {sample['releases']} did.",
        f"{sample['of_resting']:.1%} of all that rests does so for the sample.",
    ]
    if now is not None:
        counted = f"{now['calls']} calls after {now['releases']} releases, followed for {now['seen_s']} s"
        limits = f"95 %: {now['low']:.1f} to {now['high']:.1f}"
        told.append(f"Late calls now, for a million orders: {now['per_million']:.1f} ({limits}; {counted}).")
    return told
