"""Use cases: one module each, readable top to bottom."""
