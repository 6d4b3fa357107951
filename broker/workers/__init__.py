"""What goes on after a request was accepted: services with a start and a stop."""
