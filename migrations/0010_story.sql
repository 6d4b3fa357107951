-- Who has looked at, or done, what an order system did not ask for. Written before the thing itself is done or shown.
CREATE TABLE audit (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at         timestamptz NOT NULL,
  who        text NOT NULL CHECK (length(who) BETWEEN 1 AND 200),
  what       text NOT NULL CHECK (what IN ('reveal', 'release')),
  pool_id    integer NOT NULL,
  binding_id uuid NOT NULL
);
COMMENT ON TABLE audit IS 'What people did with a binding: one row each, never with a phone number.';
COMMENT ON COLUMN audit.id IS 'Order of writing.';
COMMENT ON COLUMN audit.at IS 'When, on the clock of business time.';
COMMENT ON COLUMN audit.who IS 'Account and machine, as root@host.';
COMMENT ON COLUMN audit.what IS 'reveal: saw the real numbers; release: released it by hand.';
COMMENT ON COLUMN audit.pool_id IS 'Pool of the binding.';
COMMENT ON COLUMN audit.binding_id IS 'The binding.';
CREATE INDEX audit_binding ON audit (pool_id, binding_id);
