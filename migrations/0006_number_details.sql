-- Numbers as an operator knows them: who rents them out, for how much, and since when they are in their state.

ALTER TABLE x_number
  ADD COLUMN carrier text CHECK (length(carrier) BETWEEN 1 AND 64),
  ADD COLUMN rent numeric(12, 2) CHECK (rent >= 0),
  ADD COLUMN state_since timestamptz NOT NULL DEFAULT statement_timestamp();
COMMENT ON COLUMN x_number.carrier IS 'Who rents the number out; for people.';
COMMENT ON COLUMN x_number.rent IS 'Rent a month, in the currency of the contract; for people.';
COMMENT ON COLUMN x_number.state_since IS
  'When the state was last changed. An allocation that began before may still commit: retiring waits for it.';
