-- What the platform says of a number, and moving the bindings of a number to others.

ALTER TABLE x_number
  ADD COLUMN closed_by text CHECK (closed_by IN ('operator', 'status', 'code')),
  ADD COLUMN platform_status text,
  ADD COLUMN platform_status_at timestamptz,
  ADD COLUMN opened_at timestamptz,
  ADD COLUMN statuses integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN x_number.closed_by IS
  'Who made it other than open: an operator, a status that the platform pushed, or a result code. Null = open, or an operator before this was kept.';
COMMENT ON COLUMN x_number.platform_status IS 'The newest status that the platform pushed, in words; null = none yet.';
COMMENT ON COLUMN x_number.platform_status_at IS 'When the platform created that status.';
COMMENT ON COLUMN x_number.opened_at IS 'When an operator opened it last: what the platform said before counts no more. Null = never.';
COMMENT ON COLUMN x_number.statuses IS 'Raised by each status, so that what was decided without one that came meanwhile is not written.';

ALTER TABLE app ADD COLUMN state_since timestamptz;
COMMENT ON COLUMN app.state_since IS 'Since when it is suspended or open again; null = as it was made.';

CREATE TABLE number_status (
  pool_id     integer NOT NULL,
  x_id        integer NOT NULL,
  created     timestamptz NOT NULL,
  status      text NOT NULL,
  cause       text NOT NULL,
  received_at timestamptz NOT NULL,
  PRIMARY KEY (pool_id, x_id, created, status, cause)
);
COMMENT ON TABLE number_status IS 'What the platform said of each X, kept for 30 days. Whether a number is closed follows from all of it, whatever the order in which it came.';
COMMENT ON COLUMN number_status.pool_id IS 'Pool of the X.';
COMMENT ON COLUMN number_status.x_id IS 'The X.';
COMMENT ON COLUMN number_status.created IS 'When the platform created the push (Created of its signature).';
COMMENT ON COLUMN number_status.status IS 'As pushed: 5 normal, 9 suspended, 10 unavailable, 11 binding frozen.';
COMMENT ON COLUMN number_status.cause IS 'As pushed, with 10; else empty.';
COMMENT ON COLUMN number_status.received_at IS 'When it came.';

CREATE TABLE number_refusal (
  pool_id integer NOT NULL,
  x_id    integer NOT NULL,
  a_key   bigint NOT NULL,
  b_key   bigint NOT NULL,
  at      timestamptz NOT NULL,
  PRIMARY KEY (pool_id, x_id, a_key, b_key)
);
COMMENT ON TABLE number_refusal IS
  'Binds that were refused because a number is on the platform''s blacklist, which may be the X or a party. Kept for a day.';
COMMENT ON COLUMN number_refusal.pool_id IS 'Pool of the X.';
COMMENT ON COLUMN number_refusal.x_id IS 'The X that was asked for.';
COMMENT ON COLUMN number_refusal.a_key IS 'Keyed hash of A.';
COMMENT ON COLUMN number_refusal.b_key IS 'Keyed hash of B; of a line without a B, of A.';
COMMENT ON COLUMN number_refusal.at IS 'When it was refused last.';
CREATE INDEX number_refusal_age ON number_refusal (at);

CREATE TABLE evacuation (
  pool_id     integer NOT NULL,
  x_id        integer NOT NULL,
  app_id      integer NOT NULL,
  why         text NOT NULL CHECK (why IN ('operator', 'status')),
  reason      text,
  state       text NOT NULL CHECK (state IN ('open', 'done', 'stopped', 'not_offered')),
  begun_at    timestamptz NOT NULL,
  ended_at    timestamptz,
  owner       uuid,
  lease_until timestamptz NOT NULL,
  PRIMARY KEY (pool_id, x_id)
);
COMMENT ON TABLE evacuation IS 'X numbers whose bindings are to move to others, the newest evacuation of each. Open until no line lives on it, or it is open again.';
COMMENT ON COLUMN evacuation.pool_id IS 'Pool of the X; its bindings stay in it.';
COMMENT ON COLUMN evacuation.x_id IS 'The X.';
COMMENT ON COLUMN evacuation.app_id IS 'Its app.';
COMMENT ON COLUMN evacuation.why IS 'operator: asked for; status: the platform refuses calls to it.';
COMMENT ON COLUMN evacuation.reason IS 'For people.';
COMMENT ON COLUMN evacuation.state IS 'stopped: the X was opened again; not_offered: the platform picks the X of this mode.';
COMMENT ON COLUMN evacuation.begun_at IS 'When it was asked for.';
COMMENT ON COLUMN evacuation.ended_at IS 'When no line lived on the X any more, or it was stopped.';
COMMENT ON COLUMN evacuation.owner IS 'The process that works on it.';
COMMENT ON COLUMN evacuation.lease_until IS 'From then on any process goes on with it.';
CREATE INDEX evacuation_open ON evacuation (begun_at) WHERE state = 'open';

CREATE TABLE evacuated_line (
  pool_id  integer NOT NULL,
  line_id  uuid NOT NULL,
  x_id     integer NOT NULL,
  state    text NOT NULL CHECK (state IN ('moving', 'waiting', 'moved', 'over')),
  reason   text,
  tries    integer NOT NULL DEFAULT 0,
  retry_at timestamptz,
  stand_in uuid,
  joinable boolean NOT NULL DEFAULT false,
  overlap  interval NOT NULL DEFAULT '0',
  bindings integer NOT NULL DEFAULT 0,
  begun_at timestamptz NOT NULL,
  done_at  timestamptz,
  PRIMARY KEY (pool_id, line_id)
);
COMMENT ON TABLE evacuated_line IS 'How far each line of an X that is evacuated has come. Deleted when the X is evacuated anew, or a month after the end.';
COMMENT ON COLUMN evacuated_line.pool_id IS 'Pool of the line.';
COMMENT ON COLUMN evacuated_line.line_id IS 'The line that is to be left.';
COMMENT ON COLUMN evacuated_line.x_id IS 'The X that it is on.';
COMMENT ON COLUMN evacuated_line.state IS 'moving: its successor is being bound; waiting: not possible now, tried again; moved; over: it ended before.';
COMMENT ON COLUMN evacuated_line.reason IS 'Why it waits: pool_exhausted, party_limit, temporary_callee, changing, or why the platform refused.';
COMMENT ON COLUMN evacuated_line.tries IS 'How often it has been tried.';
COMMENT ON COLUMN evacuated_line.retry_at IS 'When it is tried again.';
COMMENT ON COLUMN evacuated_line.stand_in IS 'The row that holds the new line while it is being bound, and the old one then.';
COMMENT ON COLUMN evacuated_line.joinable IS 'Whether others might join it before, and so may its successor.';
COMMENT ON COLUMN evacuated_line.overlap IS 'How long both X reach the parties before the old one is unbound.';
COMMENT ON COLUMN evacuated_line.bindings IS 'How many bindings moved with it.';
COMMENT ON COLUMN evacuated_line.begun_at IS 'When it was tried first.';
COMMENT ON COLUMN evacuated_line.done_at IS 'When it had moved or was over.';
CREATE UNIQUE INDEX evacuated_line_stand_in ON evacuated_line (stand_in) WHERE stand_in IS NOT NULL;
CREATE INDEX evacuated_line_x ON evacuated_line (pool_id, x_id);

CREATE FUNCTION begin_evacuation(p_pool integer, p_x integer, p_why text, p_reason text) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
  INSERT INTO evacuation AS e (pool_id, x_id, app_id, why, reason, state, begun_at, lease_until)
  SELECT p_pool, p_x, p.app_id, p_why, p_reason, CASE WHEN a.mode = 'axyb' THEN 'not_offered' ELSE 'open' END, broker_now(), '-infinity'
  FROM pool AS p JOIN app AS a ON a.id = p.app_id WHERE p.id = p_pool
  ON CONFLICT (pool_id, x_id) DO UPDATE
    SET why = excluded.why, reason = excluded.reason, state = excluded.state, begun_at = excluded.begun_at, ended_at = NULL,
        owner = NULL, lease_until = excluded.lease_until
    WHERE e.state <> 'open';
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  DELETE FROM evacuated_line AS l WHERE l.pool_id = p_pool AND l.x_id = p_x AND l.state <> 'moving';
  DELETE FROM evacuated_line AS l USING evacuation AS e
  WHERE e.state <> 'open' AND e.ended_at < broker_now() - interval '30 days' AND l.pool_id = e.pool_id AND l.x_id = e.x_id;
  RETURN true;
END
$$;
COMMENT ON FUNCTION begin_evacuation(integer, integer, text, text) IS 'Has the bindings of an X move to others. False: they are moving already.';

CREATE FUNCTION turn_number(
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
    AND (x.state = 'open' OR (p_by = 'status' AND x.closed_by = 'status'))
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
  'Closes or opens an X for a status or a result code, unless somebody else has closed it, or another status came since p_statuses were counted. False: nothing was changed.';

CREATE FUNCTION note_blacklisted(p_pool integer, p_x integer, p_a bigint, p_b bigint) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
  v_now CONSTANT timestamptz := broker_now();
BEGIN
  DELETE FROM number_refusal AS r WHERE r.at < v_now - interval '1 day';
  INSERT INTO number_refusal AS r (pool_id, x_id, a_key, b_key, at) VALUES (p_pool, p_x, p_a, p_b, v_now)
  ON CONFLICT (pool_id, x_id, a_key, b_key) DO UPDATE SET at = excluded.at;
  -- A party that is refused on other X, too, is the one on the list: it says nothing of this X.
  RETURN EXISTS (
    SELECT FROM number_refusal AS r
    WHERE r.pool_id = p_pool AND r.x_id = p_x AND NOT ARRAY[r.a_key, r.b_key] && ARRAY[p_a, p_b]
      AND NOT EXISTS (
        SELECT FROM number_refusal AS o
        WHERE o.pool_id = p_pool AND o.x_id <> p_x AND ARRAY[o.a_key, o.b_key] && ARRAY[r.a_key, r.b_key])
      AND NOT EXISTS (
        SELECT FROM number_refusal AS o
        WHERE o.pool_id = p_pool AND o.x_id <> p_x AND ARRAY[o.a_key, o.b_key] && ARRAY[p_a, p_b]));
END
$$;
COMMENT ON FUNCTION note_blacklisted(integer, integer, bigint, bigint) IS
  'Notes that a bind was refused for a blacklisted number. True: two pairs without a common party were refused on this X within a day, and on no other, so it is the X.';

CREATE FUNCTION take_evacuations(p_owner uuid, p_lease interval)
RETURNS TABLE (pool_id integer, x_id integer, app_id integer, why text)
LANGUAGE sql
AS $$
  UPDATE evacuation AS e SET owner = p_owner, lease_until = clock_timestamp() + p_lease
  FROM (
    SELECT o.pool_id, o.x_id FROM evacuation AS o
    WHERE o.state = 'open' AND (o.owner = p_owner OR o.lease_until < clock_timestamp())
    ORDER BY o.begun_at LIMIT 20 FOR UPDATE SKIP LOCKED
  ) AS due
  WHERE e.pool_id = due.pool_id AND e.x_id = due.x_id
  RETURNING e.pool_id, e.x_id, e.app_id, e.why
$$;
COMMENT ON FUNCTION take_evacuations(uuid, interval) IS 'Evacuations for this process to go on with: one process at a time works on an X.';

CREATE FUNCTION tend_evacuation(p_pool integer, p_x integer, p_retry interval) RETURNS TABLE (state text, moving bigint)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := broker_now();
BEGIN
  -- What the platform refused comes again, with another X.
  UPDATE evacuated_line AS l
  SET state = 'waiting', reason = coalesce(b.reason, 'withdrawn'), retry_at = v_now + p_retry, stand_in = NULL
  FROM binding AS b
  WHERE l.pool_id = p_pool AND l.x_id = p_x AND l.state = 'moving' AND b.pool_id = l.pool_id AND b.id = l.stand_in
    AND b.state IN ('failed', 'released');
  UPDATE evacuated_line AS l SET state = 'over', reason = NULL, retry_at = NULL, done_at = v_now
  FROM line AS o
  WHERE l.pool_id = p_pool AND l.x_id = p_x AND l.state = 'waiting' AND o.pool_id = l.pool_id AND o.id = l.line_id
    AND o.state NOT IN ('pending', 'active');
  UPDATE evacuation AS e
  SET state = CASE WHEN x.state = 'open' THEN 'stopped' ELSE 'done' END, ended_at = v_now, owner = NULL
  FROM x_number AS x
  WHERE e.pool_id = p_pool AND e.x_id = p_x AND e.state = 'open' AND x.pool_id = p_pool AND x.x_id = p_x
    AND (x.state = 'open' OR NOT EXISTS (
      SELECT FROM line AS l
      WHERE l.x_key = p_pool::bigint * 100000 + p_x AND l.seat IS NOT NULL AND l.state IN ('pending', 'active')))
    AND NOT EXISTS (
      SELECT FROM evacuated_line AS l WHERE l.pool_id = p_pool AND l.x_id = p_x AND l.state = 'moving');
  RETURN QUERY
  SELECT CASE WHEN e.state = 'open' AND x.state = 'open' THEN 'stopping' ELSE e.state END,
         (SELECT count(*) FROM evacuated_line AS l WHERE l.pool_id = p_pool AND l.x_id = p_x AND l.state = 'moving')
  FROM evacuation AS e JOIN x_number AS x ON x.pool_id = e.pool_id AND x.x_id = e.x_id
  WHERE e.pool_id = p_pool AND e.x_id = p_x;
END
$$;
COMMENT ON FUNCTION tend_evacuation(integer, integer, interval) IS
  'Takes in what became of the lines that were moving, and ends an evacuation that has nothing left to do. Returns its state (stopping: the X is open again, what moves goes on) and how many lines are moving.';

CREATE FUNCTION lines_to_move(p_pool integer, p_x integer, p_limit integer) RETURNS TABLE (line_id uuid, binding_id uuid)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT l.id, n.id
  FROM (
    SELECT o.id, o.expires_at FROM line AS o
    WHERE o.x_key = p_pool::bigint * 100000 + p_x AND o.seat IS NOT NULL AND o.state = 'active' OFFSET 0
  ) AS l
  CROSS JOIN LATERAL (
    SELECT b.id, b.created_at FROM binding AS b
    WHERE b.line_id = l.id AND b.state = 'active' AND b.moves IS NULL ORDER BY b.created_at DESC LIMIT 1
  ) AS n
  LEFT JOIN evacuated_line AS e ON e.pool_id = p_pool AND e.line_id = l.id
  -- One that is about to end by itself is not worth a call.
  WHERE (l.expires_at IS NULL OR l.expires_at > broker_now() + interval '10 seconds')
    AND (e.line_id IS NULL OR (e.state = 'waiting' AND e.retry_at <= broker_now()))
  ORDER BY n.created_at DESC LIMIT p_limit;
END
$$;
COMMENT ON FUNCTION lines_to_move(integer, integer, integer) IS
  'Lines of an X to be moved next, each with a binding on it: those whose newest order is the youngest first, as an order is called about soonest after it was bound.';

CREATE FUNCTION note_line_waits(p_pool integer, p_x integer, p_line uuid, p_reason text, p_retry interval) RETURNS void
LANGUAGE sql
AS $$
  INSERT INTO evacuated_line AS l (pool_id, line_id, x_id, state, reason, tries, retry_at, begun_at)
  VALUES (p_pool, p_line, p_x, 'waiting', p_reason, 1, broker_now() + p_retry, broker_now())
  ON CONFLICT (pool_id, line_id) DO UPDATE
    SET reason = excluded.reason, retry_at = excluded.retry_at, tries = l.tries + 1
    WHERE l.state = 'waiting'
$$;
COMMENT ON FUNCTION note_line_waits(integer, integer, uuid, text, interval) IS 'Writes down why a line cannot be moved now.';

CREATE FUNCTION begin_line_move(
  p_mode text, p_lease interval, p_pool integer, p_line uuid, p_a bigint, p_b bigint, p_stand_in uuid, p_new uuid,
  p_a_sealed bytea, p_b_sealed bytea, p_callback bytea, p_x integer, p_cap integer, p_prefix integer, p_most integer,
  p_chosen text, p_overlap interval
) RETURNS TABLE (outcome text, x_id integer, extension smallint, number text, ttl_s integer)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  held record; -- not the row type: "line" is also the name of a geometric type
  own binding%ROWTYPE;
  won record;
BEGIN
  IF p_b IS NOT NULL AND lock_parties(ARRAY[p_pool], ARRAY[p_a], ARRAY[p_b], p_mode) <> '{}' THEN
    RETURN QUERY SELECT 'busy', NULL::integer, NULL::smallint, NULL::text, NULL::integer;
    RETURN;
  END IF;
  SELECT l.*, a.mode, e.state AS evacuated, v.why, e.joinable OR l.joinable AS was_joinable INTO held
  FROM line AS l JOIN app AS a ON a.id = l.app_id
  JOIN evacuation AS v ON v.pool_id = l.pool_id AND v.x_id = l.x_id AND v.state = 'open'
  LEFT JOIN evacuated_line AS e ON e.pool_id = l.pool_id AND e.line_id = l.id
  WHERE l.pool_id = p_pool AND l.id = p_line FOR UPDATE OF l;
  -- A new statement: it sees the bindings that were committed before the line was ours.
  SELECT b.* INTO own FROM binding AS b
  WHERE b.line_id = p_line AND b.state = 'active' AND b.moves IS NULL ORDER BY b.created_at DESC LIMIT 1;
  outcome := CASE
    WHEN held.id IS NULL OR held.state <> 'active' OR own.id IS NULL THEN 'over'
    WHEN held.evacuated = 'moving' OR held.changing OR held.a_key <> p_a OR held.b_key IS DISTINCT FROM p_b OR EXISTS (
      SELECT FROM binding AS b WHERE b.line_id = p_line AND b.state = 'active' AND moves_now(b.pool_id, b.moving)) THEN 'changing'
    -- It is set at the platform for the old X. On a dead one nobody reaches anybody anyway.
    WHEN held.callee_until > broker_now() AND held.why <> 'status' THEN 'temporary_callee' END;
  IF outcome IS NULL THEN
    ttl_s := drift_line_end(held.mode, p_pool, p_line);
    IF p_b IS NOT NULL THEN
      SELECT r.outcome, p_x AS x_id, NULL::smallint AS extension INTO won FROM reserve(
        p_mode, p_lease, ARRAY[p_pool], ARRAY[p_x], ARRAY[p_cap], ARRAY[held.app_id], ARRAY[own.caller_id], ARRAY[p_new],
        ARRAY[p_stand_in], ARRAY[p_a], ARRAY[p_b], ARRAY[p_a_sealed], ARRAY[p_b_sealed], ARRAY[held.direction],
        ARRAY[held.options], ARRAY[coalesce(held.was_joinable, held.joinable)], ARRAY[ttl_s], ARRAY[ttl_s], ARRAY[p_chosen],
        ARRAY[NULL::text], ARRAY[NULL::text], ARRAY[NULL::text], ARRAY[NULL::bytea], ARRAY[NULL::integer],
        ARRAY[NULL::integer], ARRAY[NULL::boolean]) AS r;
    ELSE
      -- An extension that was asked for stays the same, on another X.
      SELECT r.outcome, r.x_id, r.extension INTO won FROM reserve_places(
        p_lease, ARRAY[p_most], ARRAY[p_pool], ARRAY[p_prefix],
        ARRAY[CASE WHEN own.chosen = 'asked' THEN held.extension END], ARRAY[held.app_id], ARRAY[own.caller_id],
        ARRAY[p_new], ARRAY[p_stand_in], ARRAY[p_a], ARRAY[p_a_sealed], ARRAY[p_callback], ARRAY[held.direction],
        ARRAY[held.options], ARRAY[ttl_s], ARRAY[ttl_s], ARRAY[NULL::text], ARRAY[NULL::text], ARRAY[NULL::text],
        ARRAY[NULL::bytea], ARRAY[NULL::integer]) AS r;
    END IF;
    outcome := won.outcome;
  END IF;
  IF outcome <> 'won' THEN
    RETURN QUERY SELECT outcome, NULL::integer, NULL::smallint, NULL::text, NULL::integer;
    RETURN;
  END IF;
  UPDATE binding AS b SET moves = own.id, chosen = coalesce(CASE WHEN own.chosen = 'asked' THEN own.chosen END, b.chosen)
  WHERE b.pool_id = p_pool AND b.id = p_stand_in;
  UPDATE binding AS b SET moving = p_stand_in WHERE b.line_id = p_line AND b.state = 'active' AND b.moves IS NULL;
  -- Nobody joins a line that is about to be left.
  UPDATE line AS l SET joinable = false WHERE l.pool_id = p_pool AND l.id = p_line;
  INSERT INTO evacuated_line AS l (pool_id, line_id, x_id, state, tries, stand_in, joinable, overlap, begun_at)
  VALUES (p_pool, p_line, held.x_id, 'moving', 1, p_stand_in, held.joinable, p_overlap, broker_now())
  ON CONFLICT (pool_id, line_id) DO UPDATE
    SET state = 'moving', reason = NULL, retry_at = NULL, tries = l.tries + 1, stand_in = p_stand_in,
        joinable = l.joinable OR excluded.joinable, overlap = p_overlap;
  RETURN QUERY
  SELECT 'won', won.x_id, won.extension, (SELECT x.number FROM x_number AS x WHERE x.pool_id = p_pool AND x.x_id = won.x_id), ttl_s;
END
$$;
COMMENT ON FUNCTION begin_line_move IS
  'Reserves another X for a line of an X that is evacuated, with all that its bindings have there: won (the bind of the new line, no 1, token 1, is ours to send; they go there when the platform has confirmed it). Else nothing was done: over, changing, temporary_callee, busy (try again), or why not this X or none at all, as reserve() and reserve_places() say.';

CREATE OR REPLACE FUNCTION finish_move(p_pool integer, p_stand_in uuid) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  stand_in binding%ROWTYPE;
  own binding%ROWTYPE;
  v_left record;
  v_old uuid;
  v_moved uuid[];
BEGIN
  SELECT b.* INTO stand_in FROM binding AS b WHERE b.pool_id = p_pool AND b.id = p_stand_in;
  SELECT b.* INTO own FROM binding AS b WHERE b.pool_id = p_pool AND b.id = stand_in.moves;
  SELECT e.line_id, e.overlap INTO v_left FROM evacuated_line AS e WHERE e.stand_in = p_stand_in;
  v_old := coalesce(v_left.line_id, own.line_id);
  -- The old line is the older one: in the order in which everybody takes lines.
  PERFORM FROM line AS l WHERE l.pool_id = p_pool AND l.id = v_old FOR UPDATE;
  -- Of an X that is evacuated, all that share the line go. What an order asked for is another line than its mates'.
  WITH moved AS (
    UPDATE binding AS b
    SET line_id = stand_in.line_id, flipped = b.flipped AND v_left.line_id IS NOT NULL, chosen = stand_in.chosen,
        version = b.version + 1
    WHERE b.line_id = v_old AND b.state = 'active' AND b.moves IS NULL AND (b.id = own.id OR v_left.line_id IS NOT NULL)
    RETURNING b.id
  )
  SELECT array_agg(m.id ORDER BY m.id) INTO v_moved FROM moved AS m;
  IF v_moved IS NOT NULL THEN
    -- Each leaves somebody behind on the old line until that is let go of: so its history names them all.
    UPDATE binding AS b SET line_id = v_old, moves = v_moved[1], flipped = own.flipped AND v_left.line_id IS NULL
    WHERE b.pool_id = p_pool AND b.id = p_stand_in;
    INSERT INTO binding (pool_id, id, app_id, caller_id, line_id, state, ttl_s, created_at, expires_at, moves)
    SELECT p_pool, gen_random_uuid(), stand_in.app_id, stand_in.caller_id, v_old, 'active', stand_in.ttl_s,
           stand_in.created_at, broker_now() + nullif(stand_in.ttl_s, 0) * interval '1 second', u.id
    FROM unnest(v_moved[2:]) AS u (id);
    UPDATE line AS l SET sweep_at = broker_now() WHERE l.pool_id = p_pool AND l.id = stand_in.line_id;
  END IF;
  UPDATE evacuated_line AS e
  SET state = CASE WHEN v_moved IS NULL THEN 'over' ELSE 'moved' END, done_at = broker_now(),
      bindings = coalesce(cardinality(v_moved), 0)
  WHERE e.stand_in = p_stand_in;
  -- With the old line, or, if the binding has ended meanwhile, with the new one. Nobody waits for the unbind: whoever
  -- looks for calls without an owner next takes it.
  PERFORM release_bindings(
    array_agg(b.pool_id), array_agg(b.id), array_agg(b.app_id), 'moved',
    CASE WHEN v_moved IS NULL THEN '0' ELSE coalesce(v_left.overlap, '0') END)
  FROM binding AS b
  WHERE b.line_id = CASE WHEN v_moved IS NULL THEN stand_in.line_id ELSE v_old END AND b.moves IS NOT NULL AND b.state = 'active';
END
$$;
COMMENT ON FUNCTION finish_move(integer, uuid) IS
  'The platform has confirmed the line that a stand-in holds: the binding that it moves, or, of an X that is evacuated, all that share its line, go there, and the old line is let go of.';
