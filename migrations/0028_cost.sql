-- What a binding costs the log: updates that stay on their page, and slots that are inserted without being confirmed.
--
-- A line, its binding and its call are updated a moment after their insert, all of a page before it can be pruned. Where
-- the page has no room left for that, the new version goes elsewhere and every index gets an entry more.
-- Pages written before keep what they are.
ALTER TABLE line SET (fillfactor = 45);
ALTER TABLE binding SET (fillfactor = 50);
ALTER TABLE platform_call SET (fillfactor = 50);

CREATE OR REPLACE FUNCTION reserve(
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
  broken text;
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
    wanted_slot AS MATERIALIZED (
      -- Two claims of one batch for the same party and X: the one with the lower line id gets the slot, the other is torn.
      SELECT DISTINCT ON (n.pool_id, v.own, n.x_id) n.pool_id, n.x_id, v.own AS party_key, v.other AS counterpart_key, n.id
      FROM new_line AS n CROSS JOIN LATERAL (VALUES (n.a_key, n.b_key), (n.b_key, n.a_key)) AS v (own, other)
      ORDER BY n.pool_id, v.own, n.x_id, n.id
    ),
    -- Not INSERT … ON CONFLICT, which confirms each row by a WAL record of its own. Whoever else writes slots holds the
    -- parties' locks or is met by the key (see the handler below).
    had_slot AS (
      UPDATE slot AS s
      SET counterpart_key = w.counterpart_key, until = 'infinity', line_id = w.id,
          -- The same pair came back before its rest had ended: should nothing come of it, the rest goes on.
          rests_until = CASE WHEN s.until > v_now THEN s.until END
      FROM wanted_slot AS w
      WHERE s.pool_id = w.pool_id AND s.party_key = w.party_key AND s.x_id = w.x_id
        AND s.until <> 'infinity' AND (s.until <= v_now OR s.counterpart_key = w.counterpart_key)
      RETURNING s.line_id
    ),
    new_slot AS (
      INSERT INTO slot (pool_id, x_id, party_key, counterpart_key, until, line_id)
      SELECT w.pool_id, w.x_id, w.party_key, w.counterpart_key, 'infinity', w.id FROM wanted_slot AS w
      WHERE NOT EXISTS (
        SELECT FROM slot AS s WHERE s.pool_id = w.pool_id AND s.party_key = w.party_key AND s.x_id = w.x_id OFFSET 0)
      RETURNING slot.line_id
    ),
    slotted AS (
      SELECT g.line_id FROM (SELECT h.line_id FROM had_slot AS h UNION ALL SELECT n.line_id FROM new_slot AS n) AS g
      GROUP BY g.line_id HAVING count(*) = 2
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
        WHEN (o.line_id IN (SELECT s.line_id FROM slotted AS s)) IS TRUE THEN 'won'
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
EXCEPTION WHEN unique_violation THEN
  GET STACKED DIAGNOSTICS broken = CONSTRAINT_NAME;
  IF broken <> 'slot_pkey' THEN
    RAISE;
  END IF;
  -- As a slot that is seen to be taken: nothing of this batch stays. Whose it was is asked anew, and is committed by now.
  RAISE EXCEPTION 'slot taken meanwhile' USING ERRCODE = 'BB001', DETAIL = (
    SELECT string_agg(i.ord::text, ',') FROM unnest(p_pool, p_x, p_a, p_b) WITH ORDINALITY AS i (pool_id, x_id, a_key, b_key, ord)
    WHERE i.ord = 1 OR EXISTS (
      SELECT FROM slot AS s WHERE s.pool_id = i.pool_id AND s.party_key = i.a_key AND s.x_id = i.x_id OFFSET 0) OR EXISTS (
      SELECT FROM slot AS s WHERE s.pool_id = i.pool_id AND s.party_key = i.b_key AND s.x_id = i.x_id OFFSET 0));
END
$$;
COMMENT ON FUNCTION reserve IS
  'Claims X for a batch. Per item: won; busy (a party or seat is being claimed elsewhere, or the pair has got a line since: try again); barred (a party may not have this X); full (no seat); closed (X or pool not open); superseded (the idempotency key belongs to a twin). A loser leaves nothing behind.';
