-- Every mode beside AXB: lines of one party, extensions, whole X numbers, and what an app and a pool say of them.
--
-- Constraints of the tables of configuration are exchanged for wider ones; they have as many rows as there are apps, pools
-- and rented numbers, and binds never write to them.
-- squawk-ignore-file constraint-missing-not-valid, require-concurrent-index-creation, ban-drop-not-null

ALTER TABLE app
  ADD COLUMN owner text CHECK (length(owner) BETWEEN 1 AND 64),
  ADD COLUMN extensions_per_x integer NOT NULL DEFAULT 200 CHECK (extensions_per_x BETWEEN 1 AND 9999),
  ADD COLUMN recreate boolean NOT NULL DEFAULT false,
  ADD COLUMN retention_days integer NOT NULL DEFAULT 90 CHECK (retention_days BETWEEN 1 AND 3650);
COMMENT ON COLUMN app.owner IS 'Whose app it is: bindings may move between apps of one owner. Null = it has no siblings.';
COMMENT ON COLUMN app.extensions_per_x IS 'Most extensions of one X that are given out; mode AXE only. The platform''s vendor advises 200.';
COMMENT ON COLUMN app.recreate IS
  'Whether a line is renewed by binding it anew: where the platform''s clock does not restart with a modification; mode AXE only.';
COMMENT ON COLUMN app.retention_days IS 'How long it is kept who was behind which X.';

ALTER TABLE pool
  ADD COLUMN routing text NOT NULL DEFAULT 'pair' CHECK (routing IN ('pair', 'one')),
  ADD COLUMN typo_safe boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN pool.routing IS 'What is behind an X of mode X: two parties, or one that anybody reaches.';
COMMENT ON COLUMN pool.typo_safe IS
  'Give out only extensions of which one wrong digit, or two exchanged neighbours, make none that is given out; mode AXE only.';

ALTER TABLE line
  ALTER COLUMN x_id DROP NOT NULL,
  ALTER COLUMN b_key DROP NOT NULL,
  ALTER COLUMN b_sealed DROP NOT NULL,
  ADD COLUMN extension smallint,
  ADD COLUMN picked text,
  ADD COLUMN callback_sealed bytea,
  ADD COLUMN callee_sealed bytea,
  ADD COLUMN callee_until timestamptz,
  ADD COLUMN callee_user_data text,
  ADD COLUMN gap_ms integer,
  -- Not proved of the lines that there are: that would read them all while nobody can bind. They have none.
  ADD CONSTRAINT line_extension_check CHECK (extension BETWEEN 0 AND 9999) NOT VALID;
COMMENT ON COLUMN line.x_id IS 'Position of the X in the pool; null where the platform picks it and has not, or has picked one of another pool.';
COMMENT ON COLUMN line.extension IS 'What the line has of its X: 0 = the whole of it; null = a pair shares it with other pairs.';
COMMENT ON COLUMN line.picked IS 'The X that the platform picked, where it is none of this pool.';
COMMENT ON COLUMN line.callback_sealed IS 'Whom A reaches who dials X when nobody has called, encrypted (associated data: line, callback, pool_id, id).';
COMMENT ON COLUMN line.callee_sealed IS 'The temporary callee: whom A reaches who dials X, encrypted (associated data: line, callee, pool_id, id).';
COMMENT ON COLUMN line.callee_until IS 'End of the temporary callee.';
COMMENT ON COLUMN line.callee_user_data IS 'The order system''s own words about the temporary callee. Never sent to the platform.';
COMMENT ON COLUMN line.gap_ms IS 'How long nobody was behind the X while the line was last bound anew.';

-- What there is to claim in the modes that give a line a whole X, or an extension of one.
CREATE TABLE place (
  pool_id   integer NOT NULL,
  x_id      integer NOT NULL,
  extension smallint NOT NULL CHECK (extension BETWEEN 0 AND 9999),
  until     timestamptz NOT NULL DEFAULT '-infinity',
  line_id   uuid,
  party_key bigint,
  rests_until timestamptz,
  in_use    boolean NOT NULL DEFAULT true,
  PRIMARY KEY (pool_id, x_id, extension)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE place IS 'A whole X (extension 0) or an extension of one: held by a line (until = infinity), resting (until = end of the rest) or free.';
COMMENT ON COLUMN place.until IS 'Rest ends by reading the clock, not by a sweep.';
COMMENT ON COLUMN place.line_id IS 'The line that holds it or held it last; only that may end it.';
COMMENT ON COLUMN place.party_key IS 'Whose it is or was last: the same A may come back before the rest has ended.';
COMMENT ON COLUMN place.rests_until IS 'End of the rest that the same A broke off by coming back: if nothing comes of that, the rest goes on.';
COMMENT ON COLUMN place.in_use IS 'Whether it may be given out, as the app''s number of extensions and the pool''s safety want it.';
CREATE INDEX place_rest ON place (pool_id, x_id, until) WHERE in_use;
CREATE INDEX place_party ON place (party_key) WHERE party_key IS NOT NULL;
