"""What the parent serves on the admin listener beside health: operator routes and metrics.

::

    routes     the table
    use        from a request to a use case of broker.flows.operate
    listener   authorization, the lazily opened database, answers
    metrics    the folder that all processes count in, and its page
"""
