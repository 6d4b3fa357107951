"""HTTP in: the routes for order systems."""
