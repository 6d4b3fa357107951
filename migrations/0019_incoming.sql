-- no-transaction
-- What A is about to have in the modes without a B, by a change under way: it counts as much as what A has (x_of_party).
CREATE INDEX CONCURRENTLY IF NOT EXISTS line_incoming ON line (third_key) WHERE b_key IS NULL AND third_key IS NOT NULL;
