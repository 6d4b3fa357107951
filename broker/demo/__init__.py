"""``broker demo``: a delivery city's lunch hour against a running broker.

::

    city     who orders, who delivers, who phones whom, and when: pure, from a seed
    truth    whom a call may and must reach, from what the broker has answered
    pace     city time against real time, with or without the test clock
    play     carries the hour out over HTTP and counts
    report   what came of it
    view     the same while it runs
    target   which broker, and that it is one to play with
"""
