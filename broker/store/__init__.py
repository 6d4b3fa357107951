"""PostgreSQL: connections, statements and one module per table family."""
