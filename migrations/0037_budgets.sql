-- How much is left of a pool, and budgets of an X.
-- docs/decisions/0022-learned-from-calls.md says why in this way.
--
-- Constraints of new columns check rows of configuration only: as many as there are apps, pools and numbers. The one that is
-- dropped comes back wider.
-- squawk-ignore-file constraint-missing-not-valid, ban-drop-constraint

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

ALTER TABLE app
  ADD COLUMN complaint_budget integer CHECK (complaint_budget BETWEEN 0 AND 10000),
  ADD COLUMN complaint_days integer NOT NULL DEFAULT 30 CHECK (complaint_days BETWEEN 1 AND 365),
  ADD COLUMN answer_floor double precision CHECK (answer_floor > 0 AND answer_floor <= 1),
  ADD COLUMN over_budget text NOT NULL DEFAULT 'report' CHECK (over_budget IN ('report', 'freeze'));
COMMENT ON COLUMN app.complaint_budget IS 'Complaints that one X may have within complaint_days; null = any number.';
COMMENT ON COLUMN app.complaint_days IS 'How long a complaint counts.';
COMMENT ON COLUMN app.answer_floor IS 'Share of an X''s calls that must be answered; null = none.';
COMMENT ON COLUMN app.over_budget IS 'What is made of an X over its budget: it is frozen until it is within it, or only reported.';

ALTER TABLE x_number DROP CONSTRAINT x_number_closed_by_check,
  ADD CONSTRAINT x_number_closed_by_check CHECK (closed_by IN ('operator', 'status', 'code', 'budget'));
COMMENT ON COLUMN x_number.closed_by IS
  'Who made it other than open: an operator, a status that the platform pushed, a result code, or its own budget. Null = open, or an operator before this was kept.';
COMMENT ON COLUMN x_number.opened_at IS
  'When an operator opened it last: what was said and complained of before counts no more. Null = never.';

CREATE TABLE complaint (
  id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  app_id integer NOT NULL,
  number text NOT NULL,
  at     timestamptz NOT NULL,
  reason text
);
COMMENT ON TABLE complaint IS 'Complaints about calls from an X, as operators heard of them. By its number: it keeps them in another pool. Kept for 400 days.';
COMMENT ON COLUMN complaint.id IS 'The complaint.';
COMMENT ON COLUMN complaint.app_id IS 'App of the X.';
COMMENT ON COLUMN complaint.number IS 'The X.';
COMMENT ON COLUMN complaint.at IS 'When it was reported.';
COMMENT ON COLUMN complaint.reason IS 'What was complained of, for people.';
CREATE INDEX complaint_number ON complaint (number, at);
CREATE INDEX complaint_age ON complaint (at);

CREATE TABLE x_use (
  pool_id  integer NOT NULL,
  x_id     integer NOT NULL,
  heat     double precision NOT NULL,
  calls    double precision NOT NULL,
  answered double precision NOT NULL,
  as_of    timestamptz NOT NULL,
  PRIMARY KEY (pool_id, x_id)
) WITH (fillfactor = 70);
COMMENT ON TABLE x_use IS 'Calls that each X carried, of apps that have a budget for them. What is long ago counts less and less.';
COMMENT ON COLUMN x_use.pool_id IS 'Pool of the X.';
COMMENT ON COLUMN x_use.x_id IS 'The X.';
COMMENT ON COLUMN x_use.heat IS 'Calls an hour: each counts 1, an hour later 1/e.';
COMMENT ON COLUMN x_use.calls IS 'Calls: each counts 1, seven days later 1/e. 0 when an operator opens the X.';
COMMENT ON COLUMN x_use.answered IS 'Those that were answered, in the same way.';
COMMENT ON COLUMN x_use.as_of IS 'As of when.';

CREATE FUNCTION faded(p_value double precision, p_since timestamptz, p_now timestamptz, p_span interval) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
-- After fifty spans nothing is left; far beyond that exp() is out of range.
AS $$
  SELECT p_value * exp(-greatest(0, least(50, extract(epoch FROM p_now - p_since)::double precision / extract(epoch FROM p_span)::double precision)))
$$;
COMMENT ON FUNCTION faded IS 'What a value of then counts now: after each span 1/e of it.';

CREATE FUNCTION count_use() RETURNS trigger
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  v_now timestamptz;
BEGIN
  IF NOT EXISTS (SELECT FROM app AS a WHERE a.heat IS NOT NULL OR a.answer_floor IS NOT NULL) THEN
    RETURN NULL;
  END IF;
  v_now := broker_now();
  INSERT INTO x_use AS o (pool_id, x_id, heat, calls, answered, as_of)
  SELECT x.pool_id, x.x_id, sum(faded(1, c.at, v_now, '1 hour')), sum(faded(1, c.at, v_now, '7 days')),
         coalesce(sum(faded(1, c.at, v_now, '7 days')) FILTER (WHERE c.answered_at IS NOT NULL), 0), v_now
  FROM is_now AS c
  JOIN app AS a ON a.id = c.app_id AND (a.heat IS NOT NULL OR a.answer_floor IS NOT NULL)
  JOIN x_number AS x ON x.number = c.x AND x.state <> 'moved'
  JOIN pool AS p ON p.id = x.pool_id AND p.app_id = c.app_id
  -- Calls that nobody was there for were not passed on: nobody's phone rang for them.
  WHERE c.line_id IS NOT NULL
  GROUP BY x.pool_id, x.x_id
  -- In one order, so that two batches never wait for each other in a circle.
  ORDER BY x.pool_id, x.x_id
  ON CONFLICT (pool_id, x_id) DO UPDATE SET
    heat = faded(o.heat, o.as_of, v_now, '1 hour') + excluded.heat,
    calls = faded(o.calls, o.as_of, v_now, '7 days') + excluded.calls,
    answered = faded(o.answered, o.as_of, v_now, '7 days') + excluded.answered,
    as_of = greatest(o.as_of, v_now);
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION count_use() IS 'Counts the calls of each X where its app has a budget for them, in the transaction that enters their records, so once for each.';
CREATE TRIGGER used AFTER INSERT ON cdr REFERENCING NEW TABLE AS is_now FOR EACH STATEMENT EXECUTE FUNCTION count_use();

-- The time is given, so that a planner may merge this into what asks.
CREATE FUNCTION use_of(p_pool integer, p_x integer, p_now timestamptz)
RETURNS TABLE (complaints bigint, heat double precision, calls double precision, answered double precision)
LANGUAGE sql STABLE
AS $$
  SELECT (SELECT count(*) FROM complaint AS k
          WHERE k.number = x.number AND k.app_id = a.id
            AND k.at > greatest(p_now - a.complaint_days * interval '1 day', x.opened_at)),
         faded(u.heat, u.as_of, p_now, '1 hour'), faded(u.calls, u.as_of, p_now, '7 days'),
         faded(u.answered, u.as_of, p_now, '7 days')
  FROM x_number AS x JOIN pool AS p ON p.id = x.pool_id JOIN app AS a ON a.id = p.app_id
  LEFT JOIN x_use AS u ON u.pool_id = x.pool_id AND u.x_id = x.x_id
  WHERE x.pool_id = p_pool AND x.x_id = p_x
$$;
COMMENT ON FUNCTION use_of IS 'What counts for the budgets of an X now: complaints, calls an hour, and calls and answered ones of about a week. Null: not counted.';

CREATE TABLE over_budget (
  pool_id integer NOT NULL,
  x_id    integer NOT NULL,
  why     text[] NOT NULL CHECK (why <> '{}' AND why <@ '{complaints,answers}'),
  since   timestamptz NOT NULL,
  PRIMARY KEY (pool_id, x_id)
);
COMMENT ON TABLE over_budget IS 'X numbers over their budgets, as was told.';
COMMENT ON COLUMN over_budget.pool_id IS 'Pool of the X.';
COMMENT ON COLUMN over_budget.x_id IS 'The X.';
COMMENT ON COLUMN over_budget.why IS 'Which budgets: of complaints, of answered calls.';
COMMENT ON COLUMN over_budget.since IS 'Since when.';

CREATE OR REPLACE FUNCTION turn_number(
  p_pool integer, p_x integer, p_statuses integer, p_state text, p_by text, p_reason text, p_data jsonb
) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
  v_app integer;
  v_number text;
BEGIN
  UPDATE x_number AS x
  SET state = p_state, state_reason = p_reason, closed_by = CASE WHEN p_state <> 'open' THEN p_by END,
      state_since = CASE WHEN x.state <> p_state THEN statement_timestamp() ELSE x.state_since END
  WHERE x.pool_id = p_pool AND x.x_id = p_x AND (p_statuses IS NULL OR x.statuses = p_statuses)
    -- A status and a budget open what they have closed; what the platform says takes the place of a budget.
    AND (x.state = 'open' OR (p_by IN ('status', 'budget') AND x.closed_by = p_by)
         OR (x.closed_by = 'budget' AND p_by <> 'budget' AND p_state <> 'open'))
    AND NOT (x.state = 'open' AND p_state = 'open') AND (x.state, x.state_reason) IS DISTINCT FROM (p_state, p_reason)
  RETURNING x.number INTO v_number;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  SELECT p.app_id INTO v_app FROM pool AS p WHERE p.id = p_pool;
  PERFORM emit_event(v_app, 'number.status', p_pool, NULL, p_data || jsonb_build_object('state', p_state, 'by', p_by),
                     v_number, NULL, p_reason);
  RETURN true;
END
$$;
COMMENT ON FUNCTION turn_number(integer, integer, integer, text, text, text, jsonb) IS
  'Closes or opens an X for a status, a result code or its budget, unless somebody else has closed it, or another status came since p_statuses were counted. False: nothing was changed.';

CREATE FUNCTION keep_budget(
  p_pool integer, p_x integer, p_was text[], p_why text[], p_freeze boolean, p_reason text, p_data jsonb
) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
  v_now CONSTANT timestamptz := broker_now();
  v_x x_number;
  v_was text[];
BEGIN
  SELECT x.* INTO v_x FROM x_number AS x WHERE x.pool_id = p_pool AND x.x_id = p_x FOR NO KEY UPDATE;
  SELECT o.why INTO v_was FROM over_budget AS o WHERE o.pool_id = p_pool AND o.x_id = p_x;
  -- Whoever comes second has decided on what is no longer so.
  IF v_was IS DISTINCT FROM p_was THEN
    RETURN false;
  END IF;
  IF p_why IS NULL THEN
    DELETE FROM over_budget AS o WHERE o.pool_id = p_pool AND o.x_id = p_x;
  ELSE
    INSERT INTO over_budget AS o (pool_id, x_id, why, since) VALUES (p_pool, p_x, p_why, v_now)
    ON CONFLICT (pool_id, x_id) DO UPDATE SET why = excluded.why;
  END IF;
  IF p_why IS NOT NULL AND p_freeze THEN
    IF turn_number(p_pool, p_x, NULL, 'frozen', 'budget', p_reason, p_data) THEN
      RETURN true;
    END IF;
  ELSIF turn_number(p_pool, p_x, NULL, 'open', 'budget', NULL, p_data) THEN
    RETURN true;
  END IF;
  IF v_was IS NOT DISTINCT FROM p_why THEN
    RETURN false;
  END IF;
  PERFORM emit_event(p.app_id, 'number.status', p_pool, NULL, p_data || jsonb_build_object('state', v_x.state, 'by', 'budget'),
                     v_x.number, NULL, p_reason)
  FROM pool AS p WHERE p.id = p_pool;
  RETURN true;
END
$$;
COMMENT ON FUNCTION keep_budget IS
  'Keeps which budgets an X is over (null: none), unless that is no longer as p_was says; freezes it or opens what a budget froze, never what anybody else closed; and tells of each change once. True: it was told.';
