"""The listener that faces the platform: its notifications, and the questions among them."""
