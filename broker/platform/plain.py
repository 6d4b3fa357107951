"""The interfaces that not every mode has, not offered: what a driver builds on."""

# ruff: noqa: ARG002 - the signatures are the protocol's, and nothing is done with them
from __future__ import annotations

from broker.platform.protocol import Answer, BindPeer, ModifyLine, NotOffered, Permit


class Plain:
    """Answers each of them with ``NotOffered``; a driver overrides those that its mode has."""

    async def modify(self, request: ModifyLine, *, permit: Permit, timeout_s: float) -> Answer:
        """Not offered: AXYB and X change nothing."""
        raise NotOffered("modify")

    async def set_callee(
        self, subscription_id: str, *, callee: str, ttl_s: int, token: str, permit: Permit, timeout_s: float
    ) -> Answer:
        """Not offered but by AX."""
        raise NotOffered("set_callee")

    async def bind_peer(self, request: BindPeer, *, permit: Permit, timeout_s: float) -> Answer:
        """Not offered but by AXYB."""
        raise NotOffered("bind_peer")

    async def unbind_peer(self, subscription_id: str, *, y: str, permit: Permit, timeout_s: float) -> Answer:
        """Not offered but by AXYB."""
        raise NotOffered("unbind_peer")

    async def stop_call(self, session_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """Not offered."""
        raise NotOffered("stop_call")

    async def recording(self, file_name: str, domain: str, *, permit: Permit, timeout_s: float) -> Answer:
        """Not offered."""
        raise NotOffered("recording")
