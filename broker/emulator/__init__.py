"""A stand-in for the PrivateNumber platform: its wire over real HTTP, its rules, its state, its faults.

``server.serve`` composes it; ``python -m broker.emulator`` runs it. It shares with the broker the wire's
digest formulas, the table of city codes and the sound format of voice files, and nothing else.
"""
