"""Release a binding: mark it, send the unbind, wait for its outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from broker.clock import boottime
from broker.errors import Conflict
from broker.flows.bind import settled
from broker.flows.calls import Dispatch, PlatformCall
from broker.store.bindings import Binding, ReleaseAsk, Releasing
from broker.store.calls import CallKey

Read = Callable[[], Awaitable[Binding]]
Begin = Callable[[ReleaseAsk], Awaitable[Releasing | None]]

#: How often the state is read while another process, or the bind still under way, ends the line.
_LOOK_S = 0.1


async def release(
    binding: Binding, *, begin: Begin, read: Read, dispatch: Dispatch, lease_s: float, deadline: float, wait: bool
) -> Binding:
    """End ``binding`` and return it as it is at the deadline (boottime) or once nobody is behind its X any more.

    Releasing what has ended already changes nothing.

    Raises:
        Conflict: if the release could not even begin; nothing was changed.
    """
    while binding.state in {"pending", "active"}:
        asked_at = boottime()
        begun = await begin(ReleaseAsk(binding.pool_id, binding.id, binding.app_id))
        if begun is None:
            # Its line was changing hands at that moment (or it ended): look again.
            binding = await read()
            if binding.state in {"pending", "active"}:
                if boottime() >= deadline:
                    raise Conflict(
                        "The binding is being changed at this moment.", code="change_in_progress", retry_after_s=1
                    )
                await asyncio.sleep(_LOOK_S / 10)
            continue
        if begun.to_send:
            call = _call(binding, begun, lease_until=asked_at + lease_s, urgency=deadline)
            if wait:
                call.done = asyncio.get_running_loop().create_future()
            dispatch.start(call)
            await settled(call.done, deadline=deadline)
        binding = await read()
        break
    while wait and binding.state == "releasing" and boottime() < deadline and not dispatch.leaving:
        await asyncio.sleep(min(_LOOK_S, max(deadline - boottime(), 0.0)))
        binding = await read()
    return binding


def _call(binding: Binding, begun: Releasing, *, lease_until: float, urgency: float) -> PlatformCall:
    return PlatformCall(
        key=CallKey(binding.pool_id, begun.line_id, begun.no, 1),
        op="unbind",
        app_id=binding.app_id,
        caller_id=binding.caller_id,
        x_id=binding.x_id,
        x=begun.x or "",
        a=binding.a,
        b=binding.b,
        a_key=binding.a_key,
        b_key=binding.b_key,
        direction=binding.direction,
        ttl_s=0,
        lease_until=lease_until,
        urgency=urgency,
        subscription_id=begun.subscription_id,
    )
