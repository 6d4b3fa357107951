-- How much is left of a pool, and budgets of an X.
-- docs/decisions/0022-learned-from-calls.md says why in this way.
--
-- Constraints of new columns check rows of configuration only: as many as there are apps, pools and numbers.
-- squawk-ignore-file constraint-missing-not-valid

ALTER TABLE pool ADD COLUMN low_percent integer DEFAULT 10 CHECK (low_percent BETWEEN 1 AND 90);
COMMENT ON COLUMN pool.low_percent IS 'pool.low is told when no more than this is left of it; null = neither pool.low nor pool.exhausted is told.';

CREATE TABLE pool_level (
  pool_id      integer PRIMARY KEY,
  state        text NOT NULL CHECK (state IN ('ok', 'low', 'exhausted')),
  left_percent double precision,
  since        timestamptz NOT NULL,
  due_at       timestamptz NOT NULL,
  refused_at   timestamptz
);
COMMENT ON TABLE pool_level IS 'How much is left of each pool, as was told last.';
COMMENT ON COLUMN pool_level.pool_id IS 'The pool.';
COMMENT ON COLUMN pool_level.state IS 'ok, low (pool.low was told) or exhausted (pool.exhausted was told).';
COMMENT ON COLUMN pool_level.left_percent IS 'What was left when it was counted last; null = it has not been counted.';
COMMENT ON COLUMN pool_level.since IS 'Since when it is in this state.';
COMMENT ON COLUMN pool_level.due_at IS 'When an instance is to count it again; whoever does so moves this first.';
COMMENT ON COLUMN pool_level.refused_at IS 'When an order was refused in it last, give or take half a minute.';

CREATE FUNCTION room_of_pool(p_pool integer) RETURNS TABLE (places double precision, party double precision)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  v_now CONSTANT timestamptz := broker_now();
  v_open CONSTANT integer[] := ARRAY(SELECT x.x_id FROM x_number AS x WHERE x.pool_id = p_pool AND x.state = 'open');
  v_app app;
BEGIN
  SELECT a.* INTO v_app FROM pool AS p JOIN app AS a ON a.id = p.app_id WHERE p.id = p_pool;
  IF v_app.mode = 'axyb' THEN
    RETURN QUERY SELECT 1::double precision, 1::double precision;
  ELSIF cardinality(places_of_pool(p_pool)) > 0 THEN
    RETURN QUERY
    SELECT coalesce(c.free::double precision / nullif(c.held + c.resting + c.free, 0), 0), 1::double precision
    FROM count_places(ARRAY[p_pool]) AS c;
  ELSE
    RETURN QUERY
    SELECT coalesce(1 - s.live::double precision / nullif(cardinality(v_open) * v_app.cap, 0), 0),
           -- Of one X everybody has all or nothing, as it is meant to be.
           CASE WHEN cardinality(v_open) > 1 THEN 1 - coalesce(b.barred, 0)::double precision / cardinality(v_open) ELSE 1 END
    FROM (
      SELECT count(*) AS live FROM unnest(v_open) AS o (x_id)
      JOIN line AS l ON l.x_key = p_pool::bigint * 100000 + o.x_id AND l.seat IS NOT NULL
    ) AS s
    CROSS JOIN (
      SELECT max(g.barred) AS barred FROM (
        SELECT count(*) AS barred FROM slot AS s
        WHERE s.pool_id = p_pool AND s.until > v_now AND s.x_id = ANY (v_open) GROUP BY s.party_key
      ) AS g
    ) AS b;
  END IF;
END
$$;
COMMENT ON FUNCTION room_of_pool(integer) IS
  'Which share of a pool is left: of its seats or places, and of its X for the party that may have the fewest others. Reads all seats and slots, or places, of the pool: ask seldom. In mode axyb only the platform knows.';

CREATE FUNCTION note_level(
  p_pool integer, p_was text, p_state text, p_left double precision, p_reason text, p_due interval
) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
  c_order CONSTANT text[] := '{ok,low,exhausted}';
  v_now CONSTANT timestamptz := broker_now();
  v_was text;
BEGIN
  INSERT INTO pool_level (pool_id, state, since, due_at) VALUES (p_pool, 'ok', v_now, v_now) ON CONFLICT DO NOTHING;
  SELECT l.state INTO v_was FROM pool_level AS l WHERE l.pool_id = p_pool FOR UPDATE;
  -- Whoever comes second has decided on what is no longer so.
  IF v_was <> p_was THEN
    RETURN false;
  END IF;
  UPDATE pool_level AS l
  SET state = p_state, left_percent = coalesce(p_left, l.left_percent),
      since = CASE WHEN v_was = p_state THEN l.since ELSE v_now END,
      due_at = coalesce(v_now + p_due, l.due_at), refused_at = CASE WHEN p_was IS NULL THEN v_now ELSE l.refused_at END
  WHERE l.pool_id = p_pool;
  IF array_position(c_order, p_state) <= array_position(c_order, v_was) THEN
    RETURN false;
  END IF;
  PERFORM emit_event(p.app_id, 'pool.' || p_state, p.id, NULL, jsonb_strip_nulls(
    jsonb_build_object('pool', p.name, 'area_code', p.area_code, 'left_percent', l.left_percent)), NULL, NULL, p_reason)
  FROM pool AS p JOIN pool_level AS l ON l.pool_id = p.id WHERE p.id = p_pool;
  RETURN true;
END
$$;
COMMENT ON FUNCTION note_level(integer, text, text, double precision, text, interval) IS
  'Keeps how much is left of a pool, unless it is no longer as p_was says (null: an order was refused just now, whatever it was), and tells of it if it has become worse. True: it was told.';
