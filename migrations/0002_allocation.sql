-- Allocation in two statements; no client round trip happens while anything is locked.
--
-- All hot statements are PL/pgSQL functions that tell the planner to go by index: on tables that were empty a moment ago
-- its statistics lag, and a plan that reads whole tables, once cached, costs 100 times as much after 5,000 rows.

CREATE FUNCTION histories(p_pool integer[], p_party bigint[])
RETURNS TABLE (pool_id integer, party_key bigint, x_id integer, counterpart_key bigint, live boolean, held boolean,
               until_s double precision, line_id uuid)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := broker_now();
BEGIN
  RETURN QUERY
  SELECT s.pool_id, s.party_key, s.x_id, s.counterpart_key, s.until = 'infinity', s.until > v_now,
         CASE WHEN s.until = 'infinity' THEN 0 ELSE extract(epoch FROM s.until)::double precision END,
         CASE WHEN s.until = 'infinity' THEN s.line_id END
  FROM (SELECT DISTINCT u.pool_id, u.party_key FROM unnest(p_pool, p_party) AS u (pool_id, party_key)) AS i
  JOIN slot AS s ON s.pool_id = i.pool_id AND s.party_key = i.party_key;
END
$$;
COMMENT ON FUNCTION histories(integer[], bigint[]) IS
  'What each (pool, party) is behind (live), rests on (held) and had: a row per X, with the end of its rest, or with its line while it is live.';

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

CREATE FUNCTION renewal_margin(ttl_s integer) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT make_interval(secs => least(greatest(ttl_s / 10, 30), 86400)) $$;
COMMENT ON FUNCTION renewal_margin(integer) IS
  'How long before a line''s end at the platform a longer-lived binding has it renewed: a tenth of its lifetime, 30 s to a day.';

CREATE FUNCTION reserve(
  p_mode text, p_lease interval,
  p_pool integer[], p_x integer[], p_cap integer[], p_app integer[], p_caller integer[],
  p_line uuid[], p_binding uuid[], p_a bigint[], p_b bigint[], p_a_sealed bytea[], p_b_sealed bytea[],
  p_direction text[], p_options text[], p_joinable boolean[], p_line_ttl integer[], p_ttl integer[], p_chosen text[],
  p_order text[], p_user_data text[], p_metadata text[], p_key_hash bytea[], p_key_token integer[],
  p_lines_seen integer[], p_seen_by_a boolean[]
) RETURNS TABLE (ord integer, outcome text, created_at timestamptz)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  busy bigint[];
  v_now timestamptz;
  outcomes text[];
  seats smallint[];
BEGIN
  busy := lock_parties(p_pool, p_a, p_b, p_mode);
  -- A new statement from here on: it sees what was committed before the locks were ours.
  v_now := broker_now();
  -- OFFSET 0 in an EXISTS keeps it a look-up of one key; without it the planner may hash the whole table instead.
  WITH judged AS MATERIALIZED (
    SELECT i.ord, i.pool_id, i.x_id, i.cap, CASE
      WHEN party_lock(i.pool_id, i.a_key) = ANY (busy) OR party_lock(i.pool_id, i.b_key) = ANY (busy) THEN 'busy'
      WHEN (SELECT x.state FROM x_number AS x WHERE x.pool_id = i.pool_id AND x.x_id = i.x_id) IS DISTINCT FROM 'open'
        OR (SELECT p.state FROM pool AS p WHERE p.id = i.pool_id) IS DISTINCT FROM 'open' THEN 'closed'
      WHEN EXISTS (
          SELECT FROM slot AS s WHERE s.pool_id = i.pool_id AND s.party_key = i.a_key AND s.x_id = i.x_id
          AND (s.until = 'infinity' OR (s.until > v_now AND s.counterpart_key <> i.b_key)) OFFSET 0)
        OR EXISTS (
          SELECT FROM slot AS s WHERE s.pool_id = i.pool_id AND s.party_key = i.b_key AND s.x_id = i.x_id
          AND (s.until = 'infinity' OR (s.until > v_now AND s.counterpart_key <> i.a_key)) OFFSET 0) THEN 'barred'
      -- The pair has got a line since, which it might share. One of the two is asked for it: who has fewer X.
      WHEN i.lines_seen IS NOT NULL AND i.lines_seen <> (
        SELECT count(*) FROM slot AS s
        WHERE s.pool_id = i.pool_id AND s.party_key = CASE WHEN i.seen_by_a THEN i.a_key ELSE i.b_key END
          AND s.counterpart_key = CASE WHEN i.seen_by_a THEN i.b_key ELSE i.a_key END AND s.until = 'infinity') THEN 'busy'
      WHEN i.key_hash IS NOT NULL AND NOT EXISTS (
        SELECT FROM idempotency AS d
        WHERE d.app_id = i.app_id AND d.caller_id = i.caller_id AND d.key_hash = i.key_hash
          AND d.token = i.key_token AND d.status IS NULL OFFSET 0) THEN 'superseded'
      END AS loss
    FROM unnest(p_pool, p_x, p_cap, p_app, p_caller, p_a, p_b, p_key_hash, p_key_token, p_lines_seen, p_seen_by_a)
      WITH ORDINALITY
      AS i (pool_id, x_id, cap, app_id, caller_id, a_key, b_key, key_hash, key_token, lines_seen, seen_by_a, ord)
  ),
  wanted AS MATERIALIZED (
    SELECT j.pool_id::bigint * 100000 + j.x_id AS x_key, max(j.cap) AS cap, floor(random() * max(j.cap))::integer AS start,
           array_agg(j.ord ORDER BY j.ord) AS ords
    FROM judged AS j WHERE j.loss IS NULL GROUP BY j.pool_id, j.x_id
  ),
  -- Free seats are probed from a random start, one after the other until enough are found (which is why
  -- generate_series stands in the select list): one or two probes while an X is half empty, an exact search when it is full.
  seated AS (
    SELECT u.ord, u.seat FROM wanted AS w CROSS JOIN LATERAL unnest(w.ords, ARRAY(
      SELECT g.seat FROM (SELECT ((w.start + generate_series(0, w.cap - 1)) % w.cap)::smallint AS seat) AS g
      WHERE NOT EXISTS (
        SELECT FROM line AS l WHERE l.x_key = w.x_key AND l.seat = g.seat OFFSET 0)
      LIMIT cardinality(w.ords))) AS u (ord, seat)
  ),
  verdict AS (
    SELECT j.ord, j.loss, NULL::smallint AS seat FROM judged AS j WHERE j.loss IS NOT NULL
    UNION ALL
    SELECT s.ord, CASE WHEN s.seat IS NULL THEN 'full' END, s.seat FROM seated AS s
  )
  SELECT array_agg(v.loss ORDER BY v.ord), array_agg(v.seat ORDER BY v.ord) INTO outcomes, seats FROM verdict AS v;

  IF array_position(outcomes, NULL) IS NOT NULL THEN
    -- Membership is tested in the form (… IN (SELECT …)) IS TRUE, which is one hash table and not a join of lists.
    WITH item AS MATERIALIZED (
      SELECT i.* FROM unnest(p_pool, p_x, p_app, p_caller, p_line, p_binding, p_a, p_b, p_a_sealed, p_b_sealed,
                             p_direction, p_options, p_joinable, p_line_ttl, p_ttl, p_chosen, p_order, p_user_data,
                             p_metadata, p_key_hash, p_key_token, seats)
        WITH ORDINALITY
        AS i (pool_id, x_id, app_id, caller_id, line_id, binding_id, a_key, b_key, a_sealed, b_sealed,
              direction, options, joinable, line_ttl_s, ttl_s, chosen, order_id, user_data,
              metadata, key_hash, key_token, seat, ord)
      WHERE i.seat IS NOT NULL
    ),
    keyed AS (
      UPDATE idempotency AS d SET pool_id = i.pool_id, binding_id = i.binding_id
      FROM (SELECT o.* FROM item AS o WHERE o.key_hash IS NOT NULL ORDER BY o.app_id, o.caller_id, o.key_hash) AS i
      WHERE d.app_id = i.app_id AND d.caller_id = i.caller_id AND d.key_hash = i.key_hash
        AND d.token = i.key_token AND d.status IS NULL AND (d.binding_id IS NULL OR d.binding_id = i.binding_id)
      RETURNING i.ord
    ),
    new_line AS (
      INSERT INTO line (pool_id, id, app_id, x_id, seat, state, direction, calls, ttl_s, joinable, a_key, b_key, sweep_at,
                        a_sealed, b_sealed, options)
      SELECT i.pool_id, i.line_id, i.app_id, i.x_id, i.seat, 'pending', i.direction, 1, i.line_ttl_s, i.joinable,
             i.a_key, i.b_key, CASE
               WHEN i.line_ttl_s = i.ttl_s AND i.ttl_s > 0 THEN v_now + i.ttl_s * interval '1 second'
               WHEN i.line_ttl_s > 0 THEN v_now + i.line_ttl_s * interval '1 second' - renewal_margin(i.line_ttl_s) END,
             i.a_sealed, i.b_sealed, i.options
      FROM item AS i
      WHERE i.key_hash IS NULL OR i.ord IN (SELECT k.ord FROM keyed AS k)
      ORDER BY i.pool_id, i.x_id, i.seat
      ON CONFLICT (x_key, seat) WHERE seat IS NOT NULL DO NOTHING
      RETURNING line.pool_id, line.id, line.app_id, line.x_id, line.a_key, line.b_key
    ),
    new_slot AS (
      -- Two claims of one batch for the same party and X: the one with the lower line id gets the slot, the other is torn.
      INSERT INTO slot (pool_id, x_id, party_key, counterpart_key, until, line_id)
      SELECT DISTINCT ON (n.pool_id, v.own, n.x_id) n.pool_id, n.x_id, v.own, v.other, 'infinity'::timestamptz, n.id
      FROM new_line AS n CROSS JOIN LATERAL (VALUES (n.a_key, n.b_key), (n.b_key, n.a_key)) AS v (own, other)
      ORDER BY n.pool_id, v.own, n.x_id, n.id
      ON CONFLICT (pool_id, party_key, x_id) DO UPDATE
        SET counterpart_key = excluded.counterpart_key, until = excluded.until, line_id = excluded.line_id,
            -- The same pair came back before its rest had ended: should nothing come of it, the rest goes on.
            rests_until = CASE WHEN slot.until > v_now THEN slot.until END
        WHERE slot.until <> 'infinity' AND (slot.until <= v_now OR slot.counterpart_key = excluded.counterpart_key)
      RETURNING slot.line_id
    ),
    new_binding AS (
      INSERT INTO binding (pool_id, id, app_id, caller_id, line_id, state, ttl_s, created_at, chosen, order_id, user_data,
                           metadata)
      SELECT i.pool_id, i.binding_id, i.app_id, i.caller_id, i.line_id, 'pending', i.ttl_s, v_now, i.chosen, i.order_id,
             i.user_data, i.metadata::jsonb
      FROM item AS i WHERE (i.line_id IN (SELECT n.id FROM new_line AS n)) IS TRUE
    ),
    new_call AS (
      INSERT INTO platform_call (pool_id, line_id, no, app_id, op, claimable_at, created_at)
      SELECT n.pool_id, n.id, 1, n.app_id, 'bind', clock_timestamp() + p_lease, v_now FROM new_line AS n
    ),
    verdict AS (
      SELECT o.ord, CASE
        WHEN o.loss IS NOT NULL THEN o.loss
        WHEN p_key_hash[o.ord] IS NOT NULL AND (o.ord IN (SELECT k.ord FROM keyed AS k)) IS NOT TRUE THEN 'superseded'
        WHEN (o.line_id IN (SELECT n.id FROM new_line AS n)) IS NOT TRUE THEN 'unseated'
        WHEN (o.line_id IN (SELECT n.line_id FROM new_slot AS n GROUP BY n.line_id HAVING count(*) = 2)) IS TRUE THEN 'won'
        ELSE 'torn' END AS outcome
      FROM unnest(outcomes, p_line) WITH ORDINALITY AS o (loss, line_id, ord)
    )
    SELECT array_agg(v.outcome ORDER BY v.ord) INTO outcomes FROM verdict AS v;
    IF 'torn' = ANY (outcomes) THEN
      -- Without the locks somebody took a slot in the meantime. Nothing of this batch stays; the rest is sent again.
      RAISE EXCEPTION 'slot taken meanwhile' USING ERRCODE = 'BB001',
        DETAIL = (SELECT string_agg(t.ord::text, ',') FROM unnest(outcomes) WITH ORDINALITY AS t (r, ord) WHERE t.r = 'torn');
    END IF;
    IF 'unseated' = ANY (outcomes) THEN
      -- Another batch took the seat: a moment later there will be another one. The key must not name what was not made.
      UPDATE idempotency AS d SET pool_id = NULL, binding_id = NULL
      FROM unnest(outcomes, p_app, p_caller, p_key_hash, p_key_token, p_binding)
        AS i (outcome, app_id, caller_id, key_hash, key_token, binding_id)
      WHERE i.outcome = 'unseated' AND d.app_id = i.app_id AND d.caller_id = i.caller_id AND d.key_hash = i.key_hash
        AND d.token = i.key_token AND d.binding_id = i.binding_id;
      outcomes := array_replace(outcomes, 'unseated', 'busy');
    END IF;
  END IF;
  RETURN QUERY SELECT t.ord::integer, t.r, v_now FROM unnest(outcomes) WITH ORDINALITY AS t (r, ord);
END
$$;
COMMENT ON FUNCTION reserve IS
  'Claims X for a batch. Per item: won; busy (a party or seat is being claimed elsewhere, or the pair has got a line since: try again); barred (a party may not have this X); full (no seat); closed (X or pool not open); superseded (the idempotency key belongs to a twin). A loser leaves nothing behind.';

CREATE FUNCTION rechoose(
  p_mode text, p_lease interval, p_pool integer, p_old_line uuid, p_no integer, p_token integer, p_bar interval,
  p_outcome text, p_http smallint, p_code text,
  p_x integer, p_cap integer, p_line uuid, p_a_sealed bytea, p_b_sealed bytea, p_chosen text
) RETURNS text
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  old record; -- not the row type: "line" is also the name of a geometric type
  bound binding%ROWTYPE;
  result text;
BEGIN
  UPDATE platform_call AS c
  SET state = 'settled', settled_at = clock_timestamp(), outcome = p_outcome, http = p_http, code = p_code
  WHERE c.pool_id = p_pool AND c.line_id = p_old_line AND c.no = p_no AND c.token = p_token AND c.settled_at IS NULL;
  IF NOT FOUND THEN
    RETURN 'superseded';
  END IF;
  UPDATE line AS l SET state = 'failed', seat = NULL, sweep_at = NULL
  WHERE l.pool_id = p_pool AND l.id = p_old_line RETURNING l.* INTO old;
  -- Barred with everybody, so with oneself as counterpart: else two refused X numbers would be tried in turn for ever.
  UPDATE slot AS s SET until = greatest(broker_now() + p_bar, s.rests_until), counterpart_key = s.party_key
  FROM (VALUES (old.a_key), (old.b_key)) AS v (party_key)
  WHERE s.pool_id = p_pool AND s.party_key = v.party_key AND s.x_id = old.x_id AND s.line_id = p_old_line;
  UPDATE binding AS b SET state = 'released', reason = coalesce(b.reason, 'released'), ended_at = broker_now()
  WHERE b.line_id = p_old_line AND b.state = 'releasing';
  SELECT b.* INTO bound FROM binding AS b WHERE b.line_id = p_old_line AND b.state = 'pending' ORDER BY b.id LIMIT 1 FOR UPDATE;
  IF NOT FOUND THEN
    RETURN 'released';
  END IF;
  -- A binding keeps its id and its row; reserve() inserts one, so the first makes room and hands over its fields.
  DELETE FROM binding AS b WHERE b.pool_id = p_pool AND b.id = bound.id;
  SELECT r.outcome INTO result FROM reserve(
    p_mode, p_lease, ARRAY[p_pool], ARRAY[p_x], ARRAY[p_cap], ARRAY[old.app_id], ARRAY[bound.caller_id],
    ARRAY[p_line], ARRAY[bound.id], ARRAY[old.a_key], ARRAY[old.b_key], ARRAY[p_a_sealed], ARRAY[p_b_sealed],
    ARRAY[old.direction], ARRAY[old.options], ARRAY[old.joinable], ARRAY[old.ttl_s], ARRAY[bound.ttl_s], ARRAY[p_chosen],
    ARRAY[bound.order_id], ARRAY[bound.user_data], ARRAY[bound.metadata::text], ARRAY[NULL::bytea], ARRAY[NULL::integer],
    ARRAY[NULL::integer], ARRAY[NULL::boolean]) AS r;
  IF result <> 'won' THEN
    RAISE EXCEPTION 'X not available: %', result USING ERRCODE = 'BB002', DETAIL = result;
  END IF;
  UPDATE binding AS b SET created_at = bound.created_at, version = bound.version, flipped = bound.flipped, moves = bound.moves
  WHERE b.pool_id = p_pool AND b.id = bound.id;
  -- Who shares the line moves along.
  UPDATE binding AS b SET line_id = p_line, chosen = p_chosen WHERE b.line_id = p_old_line AND b.state = 'pending';
  -- The sweep works out when to look at a line with these bindings.
  UPDATE line AS l SET sweep_at = broker_now() WHERE l.pool_id = p_pool AND l.id = p_line AND FOUND;
  RETURN 'won';
END
$$;
COMMENT ON FUNCTION rechoose IS
  'Gives the pending bindings of a line another X after its bind was refused for this one: settles the old call, ends the old line, bars its X for both parties for p_bar, reserves anew. All or nothing (BB002: that X is not available either); superseded: the caller no longer owns the call.';
