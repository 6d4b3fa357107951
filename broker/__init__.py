"""Binding broker: decides which X number each order gets and makes the telecom platform agree."""

__version__ = "0.1.0"
