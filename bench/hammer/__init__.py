"""Parallel hammering of one mode: many clients, pools that are full, and every book judged at the end."""
