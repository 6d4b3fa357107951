-- no-transaction
-- What A has in the modes without a B: how many X at a time. Neither a_key nor seat changes while such a line lives, but by a
-- change of A; pairs cost nothing.
CREATE INDEX CONCURRENTLY IF NOT EXISTS line_sole ON line (a_key) WHERE b_key IS NULL AND seat IS NOT NULL;
