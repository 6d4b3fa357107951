"""A city's calls and messages at an emulator: what ``broker emulate calls`` drives.

``mix`` says what a city does, ``source`` through which bindings, ``play`` does it, ``view`` shows it.
"""
