"""The load tool beside the server: rates, latencies, cost per binding, and a check of every promise."""
