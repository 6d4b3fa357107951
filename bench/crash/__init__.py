"""Processes killed or frozen at every place of a call's life, under load; then all books are judged."""
