-- Allocation: the second of its two statements. No client round trip happens while anything is locked.

CREATE FUNCTION party_lock(pool_id integer, party_key bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT hashint8extended(party_key, pool_id) $$;
COMMENT ON FUNCTION party_lock(integer, bigint) IS '64-bit advisory lock key of a party in a pool.';

CREATE FUNCTION lock_parties(p_pool integer[], p_a bigint[], p_b bigint[], p_mode text) RETURNS bigint[]
LANGUAGE plpgsql
AS $$
DECLARE
  busy bigint[];
BEGIN
  IF p_mode = 'off' THEN
    RETURN '{}';
  END IF;
  IF p_mode = 'wait' THEN
    PERFORM set_config('lock_timeout', '200ms', true);
    PERFORM pg_advisory_xact_lock(s.key) FROM (
      SELECT DISTINCT party_lock(i.pool_id, k.party_key) AS key
      FROM unnest(p_pool, p_a, p_b) AS i (pool_id, a_key, b_key), LATERAL (VALUES (i.a_key), (i.b_key)) AS k (party_key)
      ORDER BY 1 OFFSET 0
    ) AS s;
    PERFORM set_config('lock_timeout', '0', true);
    RETURN '{}';
  END IF;
  -- OFFSET 0 keeps the planner from calling the lock function on rows that DISTINCT would have dropped.
  SELECT array_agg(t.key) FILTER (WHERE NOT t.got) INTO busy FROM (
    SELECT s.key, pg_try_advisory_xact_lock(s.key) AS got FROM (
      SELECT DISTINCT party_lock(i.pool_id, k.party_key) AS key
      FROM unnest(p_pool, p_a, p_b) AS i (pool_id, a_key, b_key), LATERAL (VALUES (i.a_key), (i.b_key)) AS k (party_key)
      ORDER BY 1 OFFSET 0
    ) AS s OFFSET 0
  ) AS t;
  RETURN coalesce(busy, '{}');
END
$$;
COMMENT ON FUNCTION lock_parties(integer[], bigint[], bigint[], text) IS
  'Locks all parties until the end of the transaction, in key order; returns the lock keys that somebody else holds. p_mode: try, wait (200 ms, then 55P03), off (tests).';

CREATE FUNCTION reserve(
  p_mode text, p_lease interval,
  p_pool integer[], p_x integer[], p_cap integer[], p_app integer[], p_caller integer[],
  p_line uuid[], p_binding uuid[], p_a bigint[], p_b bigint[], p_a_sealed bytea[], p_b_sealed bytea[],
  p_direction text[], p_ttl integer[], p_order text[], p_user_data text[], p_metadata text[],
  p_key_hash bytea[], p_key_token integer[]
) RETURNS TABLE (ord integer, outcome text, created_at timestamptz)
LANGUAGE plpgsql
AS $$
DECLARE
  busy bigint[];
  v_now timestamptz;
  ords integer[];
  outcomes text[];
BEGIN
  busy := lock_parties(p_pool, p_a, p_b, p_mode);
  -- A new statement from here on: it sees what was committed before the locks were ours.
  v_now := broker_now();
  WITH item AS MATERIALIZED (
    SELECT i.* FROM unnest(p_pool, p_x, p_cap, p_app, p_caller, p_line, p_binding, p_a, p_b, p_a_sealed, p_b_sealed,
                           p_direction, p_ttl, p_order, p_user_data, p_metadata, p_key_hash, p_key_token) WITH ORDINALITY
      AS i (pool_id, x_id, cap, app_id, caller_id, line_id, binding_id, a_key, b_key, a_sealed, b_sealed,
            direction, ttl_s, order_id, user_data, metadata, key_hash, key_token, ord)
  ),
  judged AS MATERIALIZED (
    SELECT i.*, CASE
      WHEN party_lock(i.pool_id, i.a_key) = ANY (busy) OR party_lock(i.pool_id, i.b_key) = ANY (busy) THEN 'busy'
      WHEN (SELECT x.state FROM x_number AS x WHERE x.pool_id = i.pool_id AND x.x_id = i.x_id) IS DISTINCT FROM 'open'
        OR (SELECT p.state FROM pool AS p WHERE p.id = i.pool_id) IS DISTINCT FROM 'open' THEN 'closed'
      WHEN EXISTS (
        SELECT FROM (VALUES (i.a_key, i.b_key), (i.b_key, i.a_key)) AS v (own, other)
        JOIN slot AS s ON s.pool_id = i.pool_id AND s.party_key = v.own AND s.x_id = i.x_id
        WHERE s.until = 'infinity' OR (s.until > v_now AND s.counterpart_key <> v.other)) THEN 'barred'
      WHEN i.key_hash IS NOT NULL AND NOT EXISTS (
        SELECT FROM idempotency AS d
        WHERE d.app_id = i.app_id AND d.caller_id = i.caller_id AND d.key_hash = i.key_hash
          AND d.token = i.key_token AND d.status IS NULL) THEN 'superseded'
      ELSE 'fit' END AS outcome
    FROM item AS i
  ),
  fit AS MATERIALIZED (
    SELECT j.*, row_number() OVER (PARTITION BY j.pool_id, j.x_id ORDER BY j.ord) AS nth
    FROM judged AS j WHERE j.outcome = 'fit'
  ),
  -- Free seats are probed from a random start: one or two probes while an X is half empty, an exact search when it is full.
  wanted AS MATERIALIZED (
    SELECT f.pool_id, f.x_id, max(f.cap) AS cap, count(*) AS n, floor(random() * max(f.cap))::integer AS start
    FROM fit AS f GROUP BY f.pool_id, f.x_id
  ),
  free AS MATERIALIZED (
    SELECT w.pool_id, w.x_id, s.seat, row_number() OVER (PARTITION BY w.pool_id, w.x_id) AS nth
    FROM wanted AS w CROSS JOIN LATERAL (
      SELECT (w.start + g) % w.cap AS seat FROM generate_series(0, w.cap - 1) AS g
      WHERE NOT EXISTS (
        SELECT FROM line AS l
        WHERE l.pool_id = w.pool_id AND l.x_id = w.x_id AND l.seat = ((w.start + g) % w.cap)::smallint OFFSET 0)
      LIMIT w.n) AS s
  ),
  seated AS MATERIALIZED (
    SELECT f.*, r.seat FROM fit AS f JOIN free AS r USING (pool_id, x_id, nth)
  ),
  keyed AS (
    UPDATE idempotency AS d SET pool_id = s.pool_id, binding_id = s.binding_id
    FROM seated AS s
    WHERE s.key_hash IS NOT NULL AND d.app_id = s.app_id AND d.caller_id = s.caller_id AND d.key_hash = s.key_hash
      AND d.token = s.key_token AND d.status IS NULL AND (d.binding_id IS NULL OR d.binding_id = s.binding_id)
    RETURNING s.ord
  ),
  new_line AS (
    INSERT INTO line (pool_id, id, app_id, x_id, seat, state, direction, calls, ttl_s, a_key, b_key, sweep_at,
                      a_sealed, b_sealed)
    SELECT s.pool_id, s.line_id, s.app_id, s.x_id, s.seat, 'pending', s.direction, 1, s.ttl_s, s.a_key, s.b_key,
           CASE WHEN s.ttl_s > 0 THEN v_now + s.ttl_s * interval '1 second' END, s.a_sealed, s.b_sealed
    FROM seated AS s
    WHERE s.key_hash IS NULL OR s.ord IN (SELECT k.ord FROM keyed AS k)
    ORDER BY s.pool_id, s.x_id, s.seat
    ON CONFLICT (pool_id, x_id, seat) WHERE seat IS NOT NULL DO NOTHING
    RETURNING line.pool_id, line.id
  ),
  won AS MATERIALIZED (
    SELECT s.* FROM seated AS s JOIN new_line AS n ON n.pool_id = s.pool_id AND n.id = s.line_id
  ),
  new_slot AS (
    INSERT INTO slot (pool_id, x_id, party_key, counterpart_key, until, line_id)
    SELECT w.pool_id, w.x_id, v.own, v.other, 'infinity', w.line_id
    FROM won AS w CROSS JOIN LATERAL (VALUES (w.a_key, w.b_key), (w.b_key, w.a_key)) AS v (own, other)
    ORDER BY w.pool_id, v.own, w.x_id
    ON CONFLICT (pool_id, party_key, x_id) DO UPDATE
      SET counterpart_key = excluded.counterpart_key, until = excluded.until, line_id = excluded.line_id
      WHERE slot.until <> 'infinity' AND (slot.until <= v_now OR slot.counterpart_key = excluded.counterpart_key)
    RETURNING slot.pool_id, slot.line_id
  ),
  new_binding AS (
    INSERT INTO binding (pool_id, id, app_id, caller_id, line_id, state, ttl_s, created_at, order_id, user_data, metadata)
    SELECT w.pool_id, w.binding_id, w.app_id, w.caller_id, w.line_id, 'pending', w.ttl_s, v_now, w.order_id, w.user_data,
           w.metadata::jsonb
    FROM won AS w
  ),
  new_call AS (
    INSERT INTO platform_call (pool_id, line_id, no, app_id, op, claimable_at, created_at)
    SELECT w.pool_id, w.line_id, 1, w.app_id, 'bind', clock_timestamp() + p_lease, v_now FROM won AS w
  ),
  verdict AS (
    SELECT j.ord::integer AS ord, CASE
      WHEN j.outcome <> 'fit' THEN j.outcome
      WHEN s.ord IS NULL THEN 'full'
      WHEN s.key_hash IS NOT NULL AND k.ord IS NULL THEN 'superseded'
      WHEN w.ord IS NULL THEN 'busy'
      WHEN h.slots = 2 THEN 'won'
      ELSE 'torn' END AS outcome
    FROM judged AS j
    LEFT JOIN seated AS s ON s.ord = j.ord
    LEFT JOIN keyed AS k ON k.ord = j.ord
    LEFT JOIN won AS w ON w.ord = j.ord
    LEFT JOIN (SELECT n.pool_id, n.line_id, count(*) AS slots FROM new_slot AS n GROUP BY n.pool_id, n.line_id) AS h
      ON h.pool_id = j.pool_id AND h.line_id = j.line_id
  )
  SELECT array_agg(v.ord ORDER BY v.ord), array_agg(v.outcome ORDER BY v.ord) INTO ords, outcomes FROM verdict AS v;
  IF 'torn' = ANY (outcomes) THEN
    -- Only without the locks: somebody took a slot in the meantime. Nothing of this batch stays; the rest is sent again.
    RAISE EXCEPTION 'slot taken meanwhile' USING ERRCODE = 'BB001',
      DETAIL = (SELECT string_agg(t.o::text, ',') FROM unnest(ords, outcomes) AS t (o, r) WHERE t.r = 'torn');
  END IF;
  RETURN QUERY SELECT t.o, t.r, v_now FROM unnest(ords, outcomes) AS t (o, r);
END
$$;
COMMENT ON FUNCTION reserve IS
  'Claims X for a batch. Per item: won; busy (a party or seat is being claimed elsewhere: try again); barred (a party may not have this X); full (no seat); closed (X or pool not open); superseded (the idempotency key belongs to a twin). A loser leaves nothing behind.';

CREATE FUNCTION rechoose(
  p_mode text, p_lease interval, p_pool integer, p_old_line uuid, p_no smallint, p_token integer, p_bar interval,
  p_outcome text, p_http smallint, p_code text,
  p_x integer, p_cap integer, p_line uuid, p_a_sealed bytea, p_b_sealed bytea
) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
  old line;
  bound binding;
  result text;
BEGIN
  UPDATE platform_call AS c
  SET state = 'settled', settled_at = clock_timestamp(), outcome = p_outcome, http = p_http, code = p_code
  WHERE c.pool_id = p_pool AND c.line_id = p_old_line AND c.no = p_no AND c.token = p_token AND c.state = 'open';
  IF NOT FOUND THEN
    RETURN 'superseded';
  END IF;
  UPDATE line AS l SET state = 'failed', seat = NULL, sweep_at = NULL
  WHERE l.pool_id = p_pool AND l.id = p_old_line RETURNING l.* INTO old;
  UPDATE slot AS s SET until = broker_now() + p_bar
  FROM (VALUES (old.a_key), (old.b_key)) AS v (party_key)
  WHERE s.pool_id = p_pool AND s.party_key = v.party_key AND s.x_id = old.x_id AND s.line_id = p_old_line;
  SELECT b.* INTO bound FROM binding AS b WHERE b.pool_id = p_pool AND b.line_id = p_old_line FOR UPDATE;
  IF bound.state = 'releasing' THEN
    UPDATE binding AS b SET state = 'released', reason = coalesce(b.reason, 'released'), ended_at = broker_now()
    WHERE b.pool_id = p_pool AND b.id = bound.id;
    RETURN 'released';
  END IF;
  -- The binding keeps its id and its row; reserve() inserts one, so the old one makes room and hands over its fields.
  DELETE FROM binding AS b WHERE b.pool_id = p_pool AND b.id = bound.id;
  SELECT r.outcome INTO result FROM reserve(
    p_mode, p_lease, ARRAY[p_pool], ARRAY[p_x], ARRAY[p_cap], ARRAY[old.app_id], ARRAY[bound.caller_id],
    ARRAY[p_line], ARRAY[bound.id], ARRAY[old.a_key], ARRAY[old.b_key], ARRAY[p_a_sealed], ARRAY[p_b_sealed],
    ARRAY[old.direction], ARRAY[old.ttl_s], ARRAY[bound.order_id], ARRAY[bound.user_data], ARRAY[bound.metadata::text],
    ARRAY[NULL::bytea], ARRAY[NULL::integer]) AS r;
  IF result <> 'won' THEN
    RAISE EXCEPTION 'X not available: %', result USING ERRCODE = 'BB002', DETAIL = result;
  END IF;
  UPDATE binding AS b SET created_at = bound.created_at WHERE b.pool_id = p_pool AND b.id = bound.id;
  RETURN 'won';
END
$$;
COMMENT ON FUNCTION rechoose IS
  'Gives a pending binding another X after its bind was refused for this one: settles the old call, ends the old line, bars its X for both parties for p_bar, reserves anew. All or nothing (BB002: that X is not available either); superseded: the caller no longer owns the call.';
