-- no-transaction
-- By order, newest first. Neither column ever changes, so settling stays a HOT update; orders without an id cost nothing.
CREATE INDEX CONCURRENTLY IF NOT EXISTS binding_order ON binding (app_id, order_id, id) WHERE order_id IS NOT NULL;
