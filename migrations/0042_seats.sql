-- Seats are probed in steps of random length, not one after the other, and few; then they are looked at in one walk.
--
-- The seats of an X that fills up stand in rows without a gap; whoever began in one walked to its end. And each process asks
-- an X that is full again now and then: that took a probe of every seat.

CREATE OR REPLACE FUNCTION reserve(
  p_mode text, p_lease interval,
  p_pool integer[], p_x integer[], p_cap integer[], p_app integer[], p_caller integer[],
  p_line uuid[], p_binding uuid[], p_a bigint[], p_b bigint[], p_a_sealed bytea[], p_b_sealed bytea[],
  p_direction text[], p_options text[], p_joinable boolean[], p_line_ttl integer[], p_ttl integer[], p_chosen text[],
  p_order text[], p_user_data text[], p_metadata text[], p_key_hash bytea[], p_key_token integer[],
  p_lines_seen integer[], p_seen_by_a boolean[], p_at_once boolean[] DEFAULT NULL
) RETURNS TABLE (ord integer, outcome text, created_at timestamptz)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  primes CONSTANT integer[] := '{63419, 294157, 300857, 408953, 521243, 588811, 686173, 713501, 757019, 808853, 810839, 846661, 866843, 914189, 915391}';
  most_probes CONSTANT integer := 32;
  busy bigint[];
  v_now timestamptz;
  outcomes text[];
  seats smallint[];
  had_a boolean[];
  had_b boolean[];
  broken text;
BEGIN
  busy := lock_parties(p_pool, p_a, p_b, p_mode);
  FOR round IN 1 .. 5 LOOP
    BEGIN
      -- A new statement from here on: it sees what was committed before the locks were ours.
      v_now := broker_now();
      -- OFFSET 0 in an EXISTS keeps it a look-up of one key; without it the planner may hash the whole table instead.
      WITH judged AS MATERIALIZED (
        SELECT i.ord, i.pool_id, i.x_id, i.cap, a.until IS NOT NULL AS had_a, b.until IS NOT NULL AS had_b, CASE
          WHEN party_lock(i.pool_id, i.a_key) = ANY (busy) OR party_lock(i.pool_id, i.b_key) = ANY (busy) THEN 'busy'
          WHEN (SELECT x.state FROM x_number AS x WHERE x.pool_id = i.pool_id AND x.x_id = i.x_id) IS DISTINCT FROM 'open'
            OR (SELECT p.state FROM pool AS p WHERE p.id = i.pool_id) IS DISTINCT FROM 'open' THEN 'closed'
          WHEN a.until = 'infinity' OR (a.until > v_now AND a.counterpart_key <> i.b_key)
            OR b.until = 'infinity' OR (b.until > v_now AND b.counterpart_key <> i.a_key) THEN 'barred'
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
        LEFT JOIN LATERAL (
          SELECT s.until, s.counterpart_key FROM slot AS s
          WHERE s.pool_id = i.pool_id AND s.party_key = i.a_key AND s.x_id = i.x_id OFFSET 0) AS a ON true
        LEFT JOIN LATERAL (
          SELECT s.until, s.counterpart_key FROM slot AS s
          WHERE s.pool_id = i.pool_id AND s.party_key = i.b_key AND s.x_id = i.x_id OFFSET 0) AS b ON true
      ),
      wanted AS MATERIALIZED (
        SELECT j.pool_id::bigint * 100000 + j.x_id AS x_key, max(j.cap) AS cap, floor(random() * max(j.cap))::integer AS start,
               (primes)[1 + floor(random() * cardinality(primes))::integer] % max(j.cap) AS step,
               array_agg(j.ord ORDER BY j.ord) AS ords
        FROM judged AS j WHERE j.loss IS NULL GROUP BY j.pool_id, j.x_id
      ),
      -- Free seats are probed from a random start in random steps (generate_series stands in the select list, so that it ends
      -- with the last one needed): one or two probes while an X is half empty. A step is a prime larger than any X has
      -- seats, so none is met twice.
      probed AS (
        SELECT w.*, ARRAY(
          SELECT g.seat FROM (SELECT ((w.start + generate_series(0, least(w.cap, most_probes) - 1) * w.step) % w.cap)::smallint AS seat) AS g
          WHERE NOT EXISTS (
            SELECT FROM line AS l WHERE l.x_key = w.x_key AND l.seat = g.seat OFFSET 0)
          LIMIT cardinality(w.ords)) AS seats
        FROM wanted AS w
      ),
      -- Where that is not enough, an X is nearly full: all its seats are looked at, in one walk.
      seated AS (
        SELECT u.ord, u.seat FROM probed AS p CROSS JOIN LATERAL unnest(p.ords, CASE
          WHEN cardinality(p.seats) = cardinality(p.ords) THEN p.seats
          ELSE ARRAY(
            SELECT f.seat FROM (
              SELECT generate_series(0, p.cap - 1)::smallint AS seat
              EXCEPT SELECT l.seat FROM line AS l WHERE l.x_key = p.x_key AND l.seat IS NOT NULL) AS f
            ORDER BY random() LIMIT cardinality(p.ords))
          END) AS u (ord, seat)
      ),
      verdict AS (
        SELECT j.ord, j.loss, NULL::smallint AS seat FROM judged AS j WHERE j.loss IS NOT NULL
        UNION ALL
        SELECT s.ord, CASE WHEN s.seat IS NULL THEN 'full' END, s.seat FROM seated AS s
      )
      SELECT array_agg(v.loss ORDER BY v.ord), array_agg(v.seat ORDER BY v.ord),
             (SELECT array_agg(j.had_a ORDER BY j.ord) FROM judged AS j),
             (SELECT array_agg(j.had_b ORDER BY j.ord) FROM judged AS j)
      INTO outcomes, seats, had_a, had_b FROM verdict AS v;

      IF array_position(outcomes, NULL) IS NOT NULL THEN
        -- Membership is tested in the form (… IN (SELECT …)) IS TRUE, which is one hash table and not a join of lists.
        WITH item AS MATERIALIZED (
          SELECT i.* FROM unnest(p_pool, p_x, p_app, p_caller, p_line, p_binding, p_a, p_b, p_a_sealed, p_b_sealed,
                                 p_direction, p_options, p_joinable, p_line_ttl, p_ttl, p_chosen, p_order, p_user_data,
                                 p_metadata, p_key_hash, p_key_token, seats, had_a, had_b, p_at_once)
            WITH ORDINALITY
            AS i (pool_id, x_id, app_id, caller_id, line_id, binding_id, a_key, b_key, a_sealed, b_sealed,
                  direction, options, joinable, line_ttl_s, ttl_s, chosen, order_id, user_data,
                  metadata, key_hash, key_token, seat, had_a, had_b, at_once, ord)
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
          INSERT INTO line (pool_id, id, app_id, x_id, seat, state, confirmed_at, expires_at, subscription_id, direction, calls,
                            ttl_s, joinable, a_key, b_key, sweep_at, a_sealed, b_sealed, options)
          SELECT i.pool_id, i.line_id, i.app_id, i.x_id, i.seat, CASE WHEN i.at_once THEN 'active' ELSE 'pending' END,
                 CASE WHEN i.at_once THEN v_now END,
                 CASE WHEN i.at_once AND i.line_ttl_s > 0 THEN v_now + i.line_ttl_s * interval '1 second' END,
                 CASE WHEN i.at_once THEN 'local-' || replace(i.line_id::text, '-', '') END, i.direction, 1, i.line_ttl_s, i.joinable,
                 i.a_key, i.b_key, CASE
                   WHEN i.line_ttl_s = i.ttl_s AND i.ttl_s > 0 THEN v_now + i.ttl_s * interval '1 second'
                   WHEN i.line_ttl_s > 0 THEN v_now + i.line_ttl_s * interval '1 second' - renewal_margin(i.line_ttl_s) END,
                 i.a_sealed, i.b_sealed, i.options
          FROM item AS i
          WHERE i.key_hash IS NULL OR i.ord IN (SELECT k.ord FROM keyed AS k)
          ORDER BY i.pool_id, i.x_id, i.seat
          RETURNING line.id
        ),
        made AS MATERIALIZED (
          SELECT i.* FROM item AS i WHERE (i.line_id IN (SELECT n.id FROM new_line AS n)) IS TRUE
        ),
        wanted_slot AS MATERIALIZED (
          -- Two claims of one batch for the same party and X: the one with the lower line id gets the slot, the other is torn.
          SELECT DISTINCT ON (n.pool_id, v.own, n.x_id) n.pool_id, n.x_id, v.own AS party_key, v.other AS counterpart_key, v.had,
                 n.line_id AS id
          FROM made AS n
          CROSS JOIN LATERAL (VALUES (n.a_key, n.b_key, n.had_a), (n.b_key, n.a_key, n.had_b)) AS v (own, other, had)
          ORDER BY n.pool_id, v.own, n.x_id, n.line_id
        ),
        -- Not INSERT … ON CONFLICT, which confirms each row by a WAL record of its own. Whoever else writes slots holds the
        -- parties' locks or is met by the key (see the handler below).
        had_slot AS (
          UPDATE slot AS s
          SET counterpart_key = w.counterpart_key, until = 'infinity', line_id = w.id,
              -- The same pair came back before its rest had ended: should nothing come of it, the rest goes on.
              rests_until = CASE WHEN s.until > v_now THEN s.until END
          -- By its place, looked up first: joined by the key, a planner that believes the slots to be none reads them all.
          FROM (
            SELECT o.*, h.ctid AS place FROM wanted_slot AS o
            CROSS JOIN LATERAL (
              SELECT k.ctid FROM slot AS k
              WHERE k.pool_id = o.pool_id AND k.party_key = o.party_key AND k.x_id = o.x_id OFFSET 0) AS h
            WHERE o.had
          ) AS w
          WHERE s.ctid = w.place AND s.until <> 'infinity' AND (s.until <= v_now OR s.counterpart_key = w.counterpart_key)
          RETURNING s.line_id
        ),
        new_slot AS (
          INSERT INTO slot (pool_id, x_id, party_key, counterpart_key, until, line_id)
          SELECT w.pool_id, w.x_id, w.party_key, w.counterpart_key, 'infinity', w.id FROM wanted_slot AS w
          WHERE NOT w.had
          RETURNING slot.line_id
        ),
        slotted AS (
          SELECT g.line_id FROM (SELECT h.line_id FROM had_slot AS h UNION ALL SELECT n.line_id FROM new_slot AS n) AS g
          GROUP BY g.line_id HAVING count(*) = 2
        ),
        new_binding AS (
          INSERT INTO binding (pool_id, id, app_id, caller_id, line_id, state, ttl_s, created_at, expires_at, chosen, order_id,
                               user_data, metadata)
          SELECT i.pool_id, i.binding_id, i.app_id, i.caller_id, i.line_id, CASE WHEN i.at_once THEN 'active' ELSE 'pending' END,
                 i.ttl_s, v_now, CASE WHEN i.at_once AND i.ttl_s > 0 THEN v_now + i.ttl_s * interval '1 second' END, i.chosen,
                 i.order_id, i.user_data, i.metadata::jsonb
          FROM made AS i
        ),
        new_call AS (
          INSERT INTO platform_call (pool_id, line_id, no, app_id, op, claimable_at, created_at)
          SELECT n.pool_id, n.line_id, 1, n.app_id, 'bind', clock_timestamp() + p_lease, v_now FROM made AS n
          WHERE n.at_once IS NOT TRUE
        ),
        verdict AS (
          SELECT o.ord, CASE
            WHEN o.loss IS NOT NULL THEN o.loss
            WHEN p_key_hash[o.ord] IS NOT NULL AND (o.ord IN (SELECT k.ord FROM keyed AS k)) IS NOT TRUE THEN 'superseded'
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
      END IF;
      RETURN QUERY SELECT t.ord::integer, t.r, v_now FROM unnest(outcomes) WITH ORDINALITY AS t (r, ord);
      RETURN;
    EXCEPTION WHEN unique_violation THEN
      GET STACKED DIAGNOSTICS broken = CONSTRAINT_NAME;
      IF broken = 'line_seat' THEN
        -- Another batch took the seat, and has committed it: judge anew.
        CONTINUE;
      END IF;
      IF broken <> 'slot_pkey' THEN
        RAISE;
      END IF;
      -- As a slot that is seen to be taken: nothing of this batch stays. Whose it was is asked anew, and is committed by now.
      RAISE EXCEPTION 'slot taken meanwhile' USING ERRCODE = 'BB001', DETAIL = (
        SELECT string_agg(i.ord::text, ',') FROM unnest(p_pool, p_x, p_a, p_b) WITH ORDINALITY AS i (pool_id, x_id, a_key, b_key, ord)
        WHERE i.ord = 1 OR EXISTS (
          SELECT FROM slot AS s WHERE s.pool_id = i.pool_id AND s.party_key = i.a_key AND s.x_id = i.x_id OFFSET 0) OR EXISTS (
          SELECT FROM slot AS s WHERE s.pool_id = i.pool_id AND s.party_key = i.b_key AND s.x_id = i.x_id OFFSET 0));
    END;
  END LOOP;
  RETURN QUERY SELECT t.ord::integer, 'busy', v_now FROM unnest(p_line) WITH ORDINALITY AS t (l, ord);
END
$$;
