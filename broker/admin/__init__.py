"""What the parent serves on the admin listener beside health: operator routes.

::

    routes     the table
    use        from a request to a use case of broker.flows.operate
    listener   authorization, the lazily opened database, answers
"""
