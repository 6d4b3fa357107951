"""A stand-in for the PrivateNumber platform: its wire over real HTTP, its rules, its state, its faults.

``server.serve`` composes it; ``python -m broker.emulator`` runs it. It shares the wire's digest formulas with the
broker and nothing else.
"""
