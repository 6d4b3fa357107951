"""Server settings for this load on a small machine. Every one can be overridden."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from broker.embedded import process
from broker.embedded.account import Account
from broker.embedded.binaries import Binaries

_DEFAULTS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "100",
    "max_locks_per_transaction": "256",  # a batch of 200 bindings locks up to 400 numbers
    "wal_level": "replica",
    # Checkpoints rare and spread out: each one makes the next write of every page a full-page image.
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": "0.9",
    "autovacuum_naptime": "10s",  # queue tables bloat within a minute
    # Our plans are fixed or look up keys. A sample of 30,000 rows of each table that grows, every ten seconds while it
    # is young, takes a tenth of a processor, in one piece.
    "default_statistics_target": "10",
    "jit": "off",  # our statements are shorter than a compilation
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "log_autovacuum_min_duration": "-1",
    # An error's detail and statement hold the phone numbers they are about: the log gets the message alone.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}
_NOT_DURABLE: Mapping[str, str] = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
# Builds differ: the 18.6 wheel has no lz4, versions before 18 no file_copy_method.
_IF_SUPPORTED: Mapping[str, str] = {"wal_compression": "lz4", "file_copy_method": "clone"}
_STATEMENTS: Mapping[str, str] = {
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track_planning": "off",
}


_LEAST_BUFFERS_MB, _MOST_BUFFERS_MB = 128, 2048


def shared_buffers(memory_bytes: int) -> str:
    """An eighth of the machine: what is bound lies there, and nobody waits while room is made for it."""
    return f"{min(max(memory_bytes // 8 // 2**20, _LEAST_BUFFERS_MB), _MOST_BUFFERS_MB)}MB"


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def server_settings(
    binaries: Binaries, account: Account, data_dir: Path, *, durable: bool, overrides: Mapping[str, str]
) -> dict[str, str]:
    """Defaults that this build knows, then ``overrides``."""
    buffers = {"shared_buffers": shared_buffers(_memory_bytes())}
    chosen = {**buffers, **_DEFAULTS, **({} if durable else _NOT_DURABLE)}
    if binaries.has_library("pg_stat_statements"):
        chosen |= _STATEMENTS
    for name, value in _IF_SUPPORTED.items():
        if name not in overrides and _supported(binaries, account, data_dir, name, value):
            chosen[name] = value
    return chosen | dict(overrides)


def _supported(binaries: Binaries, account: Account, data_dir: Path, name: str, value: str) -> bool:
    """Ask the server itself (5 ms): no table of versions and build options to keep."""
    asked = [binaries.postgres, "-D", str(data_dir), "-c", f"{name}={value}", "-C", name]
    return process.run(asked, account).returncode == 0
