-- Lines of every mode: those of one party (sole lines) have a place instead of slots, may lack an X until the platform has
-- picked one, and live as long as their mode lets them. The functions are those of 0003, 0004, 0005 and 0011, made wider:
-- what instances of the version before call them with still fits, and they name the columns that they read.
-- squawk-ignore-file ban-drop-function

CREATE FUNCTION platform_ttl(p_mode text, p_ttl integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT CASE p_mode
  WHEN 'axb' THEN least(p_ttl, 7776000)
  WHEN 'ax' THEN 0
  WHEN 'axe' THEN least(ceil(p_ttl / 60.0)::integer * 60, 2592000)
  ELSE p_ttl END $$;
COMMENT ON FUNCTION platform_ttl(text, integer) IS
  'The lifetime that the platform is told of a line whose binding lasts p_ttl seconds more (0 = none): as broker/domain/modes says.';

CREATE FUNCTION sole_lock(p_app integer, p_party bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT hashint8extended(p_party, 4294967296 + p_app) $$;
COMMENT ON FUNCTION sole_lock(integer, bigint) IS
  '64-bit advisory lock key of a party in an app: held while it is counted how many X it has in the modes without a B.';

CREATE FUNCTION x_of_party(p_app integer, p_party bigint, p_but uuid) RETURNS bigint
LANGUAGE sql STABLE
AS $$
  SELECT (SELECT count(*) FROM line AS l
          WHERE l.a_key = p_party AND l.b_key IS NULL AND l.seat IS NOT NULL AND l.app_id = p_app
            AND l.id IS DISTINCT FROM p_but)
    + (SELECT count(*) FROM line AS l
       WHERE l.third_key = p_party AND l.b_key IS NULL AND l.seat IS NOT NULL AND l.app_id = p_app
         AND l.id IS DISTINCT FROM p_but)
$$;
COMMENT ON FUNCTION x_of_party(integer, bigint, uuid) IS
  'How many X a party has in an app in the modes without a B, with those that a change under way gives it; p_but does not count.';

DROP FUNCTION claim_calls;
CREATE FUNCTION claim_calls(p_limit integer, p_lease interval)
RETURNS TABLE (pool_id integer, line_id uuid, no integer, token integer, attempt smallint, op text, app_id integer,
               x_id integer, number text, direction text, ttl_s integer, a_key bigint, b_key bigint,
               a_sealed bytea, b_sealed bytea, options text, subscription_id text, line_state text, wanted text,
               created_at timestamptz, extension smallint, callback_sealed bytea)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := clock_timestamp();
BEGIN
  RETURN QUERY
  WITH due AS MATERIALIZED (
    SELECT c.pool_id, c.line_id, c.no FROM platform_call AS c
    WHERE c.state = 'open' AND c.claimable_at <= v_now
    ORDER BY c.claimable_at LIMIT p_limit FOR UPDATE SKIP LOCKED
  ),
  claimed AS (
    UPDATE platform_call AS c
    -- Capped: one call that overflowed its counter would stop every claim.
    SET token = c.token + 1, attempt = least(c.attempt, 32766) + 1, claimable_at = v_now + p_lease
    FROM due WHERE c.pool_id = due.pool_id AND c.line_id = due.line_id AND c.no = due.no
    RETURNING c.*
  )
  SELECT c.pool_id, c.line_id, c.no, c.token, c.attempt, c.op, c.app_id, l.x_id, coalesce(x.number, l.picked), l.direction, l.ttl_s,
         l.a_key, l.b_key, l.a_sealed, l.b_sealed, l.options, l.subscription_id, l.state, c.wanted::text, c.created_at,
         l.extension, l.callback_sealed
  FROM claimed AS c
  JOIN line AS l ON l.pool_id = c.pool_id AND l.id = c.line_id
  LEFT JOIN x_number AS x ON x.pool_id = l.pool_id AND x.x_id = l.x_id;
END
$$;
COMMENT ON FUNCTION claim_calls IS 'Takes over calls whose owner''s lease has ended; what their owner may have sent is unknown.';

CREATE OR REPLACE FUNCTION settle_ended(p_pool integer[], p_line uuid[], p_no integer[], p_token integer[], p_attempt smallint[],
                             p_state text[], p_reason text[], p_rest_s double precision[], p_outcome text[], p_http smallint[], p_code text[])
RETURNS TABLE (ord integer, ended_at timestamptz)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := broker_now();
  v_ord bigint[];
  v_line uuid[];
  v_state text[];
BEGIN
  WITH call AS (
    UPDATE platform_call AS c
    SET state = 'settled', settled_at = v_now, attempt = i.attempt, outcome = i.outcome, http = i.http, code = i.code
    FROM (
      SELECT u.* FROM unnest(p_pool, p_line, p_no, p_token, p_attempt, p_state, p_rest_s, p_outcome, p_http, p_code)
        WITH ORDINALITY AS u (pool_id, line_id, no, token, attempt, end_state, rest_s, outcome, http, code, ord)
      ORDER BY u.pool_id, u.line_id
    ) AS i
    WHERE c.pool_id = i.pool_id AND c.line_id = i.line_id AND c.no = i.no AND c.token = i.token AND c.settled_at IS NULL
    RETURNING i.*
  ),
  ended AS (
    -- A bind that is refused after its release was asked for ends as released: nothing was ever bound.
    UPDATE line AS l
    SET state = CASE WHEN l.state = 'releasing' THEN 'released' ELSE call.end_state END, seat = NULL, sweep_at = NULL,
        changing = false
    FROM call WHERE l.pool_id = call.pool_id AND l.id = call.line_id
    RETURNING call.ord, l.pool_id, l.id, l.x_id, l.a_key, l.b_key, l.third_key, l.state, l.extension, call.rest_s,
              call.end_state
  ),
  -- The parties as rows before the slots are touched: else a planner that believes the slots to be few looks them up by
  -- pool alone and filters.
  party AS MATERIALIZED (
    SELECT e.pool_id, e.id, e.x_id, e.rest_s, e.end_state, v.party_key
    FROM ended AS e CROSS JOIN LATERAL (VALUES (e.a_key), (e.b_key), (e.third_key)) AS v (party_key)
    WHERE v.party_key IS NOT NULL AND e.extension IS NULL
  ),
  rested AS (
    -- An X that the platform refused is barred with everybody, so with oneself as counterpart: the same pair must not
    -- get it again at once.
    UPDATE slot AS s
    SET until = greatest(v_now + make_interval(secs => p.rest_s), s.rests_until),
        counterpart_key = CASE WHEN p.end_state = 'failed' THEN s.party_key ELSE s.counterpart_key END
    FROM party AS p
    WHERE s.pool_id = p.pool_id AND s.party_key = p.party_key AND s.x_id = p.x_id AND s.line_id = p.id
  ),
  emptied AS (
    -- The same for a place; one that is nobody's is given back to nobody before its rest has ended.
    UPDATE place AS h
    SET until = greatest(v_now + make_interval(secs => e.rest_s), h.rests_until),
        party_key = CASE WHEN e.end_state <> 'failed' THEN h.party_key END
    FROM ended AS e
    WHERE e.extension IS NOT NULL AND h.pool_id = e.pool_id AND h.x_id = e.x_id AND h.extension = e.extension
      AND h.line_id = e.id
  )
  SELECT array_agg(e.ord), array_agg(e.id), array_agg(e.state) INTO v_ord, v_line, v_state FROM ended AS e;
  -- A new statement: it sees the bindings that joined before the lines were ours.
  RETURN QUERY
  WITH ended AS MATERIALIZED (
    SELECT u.ord, u.id, u.state, p_reason[u.ord] AS reason FROM unnest(v_ord, v_line, v_state) AS u (ord, id, state)
  ),
  over AS (
    UPDATE binding AS b
    SET state = ended.state, ended_at = v_now,
        reason = CASE WHEN b.state = 'releasing' THEN coalesce(b.reason, 'released') ELSE ended.reason END
    FROM ended
    WHERE b.line_id = ended.id AND b.state IN ('pending', 'active', 'releasing')
  )
  SELECT ended.ord::integer, v_now FROM ended;
END
$$;
COMMENT ON FUNCTION settle_ended IS
  'The platform certainly does not hold these lines: ends line and bindings, and lets the parties rest on the X for p_rest_s seconds.';

CREATE OR REPLACE FUNCTION release_bindings(p_pool integer[], p_binding uuid[], p_app integer[], p_reason text, p_lease interval)
RETURNS TABLE (ord integer, line_id uuid, no integer, line_state text, number text, subscription_id text)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := broker_now();
  v_locked uuid[];
BEGIN
  -- The lines first, so that of two who release the last two bindings of a line one is second and ends it. Line before
  -- binding, as the settling statements do: they must not wait for each other in a circle.
  v_locked := ARRAY(
    SELECT l.id FROM (
      SELECT DISTINCT b.pool_id, b.line_id
      FROM unnest(p_pool, p_binding) AS i (pool_id, id)
      JOIN binding AS b ON b.pool_id = i.pool_id AND b.id = i.id
      WHERE b.state IN ('pending', 'active')
    ) AS i JOIN line AS l ON l.pool_id = i.pool_id AND l.id = i.line_id
    ORDER BY l.pool_id, l.id FOR UPDATE OF l);
  RETURN QUERY
  WITH asked AS MATERIALIZED (
    SELECT i.ord, b.pool_id, b.id, b.line_id
    FROM unnest(p_pool, p_binding, p_app) WITH ORDINALITY AS i (pool_id, id, app_id, ord)
    JOIN binding AS b ON b.pool_id = i.pool_id AND b.id = i.id
    -- Not one that has another line since: that line is not ours, and somebody may be letting go of it, too.
    WHERE b.app_id = i.app_id AND b.state IN ('pending', 'active') AND b.line_id = ANY (v_locked)
  ),
  wanted AS MATERIALIZED (
    SELECT a.pool_id, a.line_id, min(a.ord) AS ord, count(DISTINCT a.id) = (
        SELECT count(*) FROM binding AS o WHERE o.line_id = a.line_id AND o.state IN ('pending', 'active')) AS last
    FROM asked AS a GROUP BY a.pool_id, a.line_id
  ),
  ending AS (
    UPDATE line AS l
    SET state = CASE WHEN w.last THEN 'releasing' ELSE l.state END,
        sweep_at = CASE WHEN w.last THEN NULL ELSE l.sweep_at END,
        calls = CASE WHEN NOT w.last OR l.confirmed_at IS NULL OR l.changing THEN l.calls ELSE l.calls + 1 END
    FROM wanted AS w WHERE l.pool_id = w.pool_id AND l.id = w.line_id AND l.state IN ('pending', 'active')
    RETURNING w.ord, w.last, l.pool_id, l.id, l.app_id, l.calls, l.confirmed_at, l.changing, l.x_id, l.picked,
              l.subscription_id
  ),
  marked AS (
    UPDATE binding AS b
    SET state = CASE WHEN e.last THEN 'releasing' ELSE 'released' END, reason = p_reason,
        ended_at = CASE WHEN e.last THEN b.ended_at ELSE v_now END
    FROM ending AS e, asked AS a
    WHERE a.line_id = e.id AND b.pool_id = a.pool_id AND b.id = a.id AND b.state IN ('pending', 'active')
  ),
  call AS (
    INSERT INTO platform_call (pool_id, line_id, no, app_id, op, claimable_at, created_at)
    SELECT e.pool_id, e.id, e.calls, e.app_id, 'unbind', clock_timestamp() + p_lease, v_now
    FROM ending AS e WHERE e.last AND e.confirmed_at IS NOT NULL AND NOT e.changing
  )
  SELECT a.ord::integer, e.id, e.calls, CASE
           WHEN NOT e.last THEN 'shared'
           WHEN a.ord = e.ord AND e.confirmed_at IS NOT NULL AND NOT e.changing THEN 'active'
           ELSE 'pending' END, coalesce(x.number, e.picked),
         e.subscription_id
  FROM asked AS a JOIN ending AS e ON e.id = a.line_id LEFT JOIN x_number AS x ON x.pool_id = e.pool_id AND x.x_id = e.x_id;
END
$$;
COMMENT ON FUNCTION release_bindings IS
  'Begins the release. line_state active: an unbind call (no, token 1) is ours to send. pending: another call is still under way, its settling sends the unbind (or another item of this batch has it). shared: the line lives on with other bindings, this one has ended. Not returned: nothing to release, or the binding is changing its line at this moment (look again).';

CREATE FUNCTION expiry_grace(p_extension smallint, p_line_end timestamptz, p_binding_end timestamptz, p_grace interval)
RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT CASE WHEN p_extension IS NOT NULL AND p_line_end IS DISTINCT FROM p_binding_end THEN interval '0' ELSE p_grace END
$$;
COMMENT ON FUNCTION expiry_grace(smallint, timestamptz, timestamptz, interval) IS
  'How long after a binding''s end it is taken to have ended: what the platform ends by itself gets a moment, what we must end gets none.';

CREATE OR REPLACE FUNCTION sweep_lines(p_limit integer, p_grace interval)
RETURNS TABLE (expired bigint, withdrawn bigint, renewed bigint)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  v_now timestamptz;
  v_pool integer[];
  v_line uuid[];
BEGIN
  WITH due AS MATERIALIZED (
    SELECT l.pool_id, l.id FROM line AS l WHERE l.sweep_at <= broker_now()
    ORDER BY l.sweep_at LIMIT p_limit FOR UPDATE OF l SKIP LOCKED
  )
  SELECT array_agg(due.pool_id), array_agg(due.id) INTO v_pool, v_line FROM due;
  IF v_pool IS NULL THEN
    RETURN QUERY SELECT 0::bigint, 0::bigint, 0::bigint;
    RETURN;
  END IF;
  -- A new statement: it sees the bindings that were committed before the lines were ours.
  v_now := broker_now();
  RETURN QUERY
  WITH held AS MATERIALIZED (
    SELECT l.pool_id, l.id, l.state, l.changing, l.expires_at, l.ttl_s, l.extension, app.mode, e.ends, e.last_end
    FROM unnest(v_pool, v_line) AS i (pool_id, id)
    JOIN line AS l ON l.pool_id = i.pool_id AND l.id = i.id
    JOIN app ON app.id = l.app_id
    -- Ends of the bindings that are not over yet: the earliest, and the latest.
    CROSS JOIN LATERAL (
      SELECT min(v.ends) FILTER (WHERE v.ends > v_now) AS ends, max(v.ends) FILTER (WHERE v.ends > v_now) AS last_end
      FROM (
        SELECT CASE
            WHEN b.ttl_s = 0 THEN 'infinity'
            WHEN b.state = 'pending' THEN b.created_at + b.ttl_s * interval '1 second'
            ELSE b.expires_at + expiry_grace(l.extension, l.expires_at, b.expires_at, p_grace) END AS ends
        FROM binding AS b WHERE b.line_id = l.id AND b.state IN ('pending', 'active')
      ) AS v
    ) AS e
  ),
  planned AS MATERIALIZED (
    SELECT h.*, CASE
      WHEN h.state NOT IN ('pending', 'active') THEN 'over'
      WHEN h.ends IS NULL AND h.state = 'pending' THEN 'withdraw'
      WHEN h.changing THEN 'wait'
      -- A moment more is not worth a call.
      WHEN h.ends IS NULL AND h.expires_at + p_grace > v_now
        AND h.expires_at < v_now + CASE WHEN h.extension IS NULL THEN interval '10 seconds' ELSE '1 second' END THEN 'wait'
      WHEN h.ends IS NULL AND h.expires_at + p_grace <= v_now THEN 'end'
      WHEN h.ends IS NULL THEN 'unbind'
      WHEN h.state = 'active' AND h.expires_at + p_grace < h.last_end AND h.expires_at - renewal_margin(h.ttl_s) <= v_now THEN 'renew'
      ELSE 'keep' END AS step
    FROM held AS h
  ),
  turned AS (
    UPDATE line AS l
    SET state = CASE p.step WHEN 'end' THEN 'released' WHEN 'withdraw' THEN 'releasing' WHEN 'unbind' THEN 'releasing' ELSE l.state END,
        seat = CASE WHEN p.step = 'end' THEN NULL ELSE l.seat END,
        calls = CASE WHEN p.step IN ('unbind', 'renew') THEN l.calls + 1 ELSE l.calls END,
        changing = l.changing OR p.step = 'renew',
        sweep_at = CASE p.step
          WHEN 'keep' THEN nullif(least(
            p.ends,
            CASE WHEN l.state = 'pending' AND l.ttl_s > 0 THEN v_now + interval '10 seconds'
                 WHEN l.expires_at + p_grace < p.last_end THEN l.expires_at - renewal_margin(l.ttl_s) END), 'infinity')
          WHEN 'renew' THEN v_now + interval '10 seconds'
          WHEN 'wait' THEN least(v_now + interval '5 seconds', greatest(l.expires_at + p_grace, v_now + interval '1 second'))
          END
    FROM planned AS p WHERE l.pool_id = p.pool_id AND l.id = p.id
    RETURNING p.step, p.last_end, p.mode, l.pool_id, l.id, l.app_id, l.x_id, l.extension, l.expires_at, l.a_key, l.b_key,
              l.third_key, l.calls, l.ttl_s
  ),
  party AS MATERIALIZED (
    SELECT t.pool_id, t.id, t.x_id, app.quarantine_s * interval '1 second' AS rest, v.party_key
    FROM turned AS t JOIN app ON app.id = t.app_id
    CROSS JOIN LATERAL (VALUES (t.a_key), (t.b_key), (t.third_key)) AS v (party_key)
    WHERE t.step = 'end' AND v.party_key IS NOT NULL AND t.extension IS NULL
  ),
  rested AS (
    UPDATE slot AS s SET until = greatest(v_now + p.rest, s.rests_until)
    FROM party AS p
    WHERE s.pool_id = p.pool_id AND s.party_key = p.party_key AND s.x_id = p.x_id AND s.line_id = p.id
  ),
  emptied AS (
    UPDATE place AS h SET until = greatest(v_now + app.quarantine_s * interval '1 second', h.rests_until)
    FROM turned AS t JOIN app ON app.id = t.app_id
    WHERE t.step = 'end' AND t.extension IS NOT NULL AND h.pool_id = t.pool_id AND h.x_id = t.x_id
      AND h.extension = t.extension AND h.line_id = t.id
  ),
  over AS (
    -- Ended, or about to be, or left behind by others that go on with the line.
    UPDATE binding AS b
    SET state = CASE WHEN t.step IN ('unbind', 'withdraw') THEN 'releasing' ELSE 'released' END,
        reason = CASE WHEN b.state = 'pending' THEN 'withdrawn' ELSE 'expired' END,
        ended_at = CASE WHEN t.step IN ('unbind', 'withdraw') THEN b.ended_at ELSE v_now END
    FROM turned AS t
    WHERE b.line_id = t.id AND t.step IN ('end', 'unbind', 'withdraw', 'keep', 'renew') AND b.state IN ('pending', 'active')
      AND b.ttl_s > 0 AND v_now >= CASE
        WHEN b.state = 'pending' THEN b.created_at + b.ttl_s * interval '1 second' ELSE b.expires_at + expiry_grace(t.extension, t.expires_at, b.expires_at, p_grace) END
    RETURNING b.state, b.reason
  ),
  call AS (
    -- Nobody waits for these: whoever looks for calls without an owner next takes them. Token 0 says they have had none.
    INSERT INTO platform_call (pool_id, line_id, no, app_id, op, token, claimable_at, created_at, wanted)
    SELECT t.pool_id, t.id, t.calls, t.app_id, CASE WHEN t.step = 'unbind' THEN 'unbind' ELSE 'modify' END, 0,
           clock_timestamp(), v_now, CASE WHEN t.step = 'renew' THEN jsonb_build_object('ttl_s', CASE
             WHEN t.last_end = 'infinity' THEN 0
             ELSE platform_ttl(t.mode, ceil(extract(epoch FROM t.last_end - v_now))::integer) END) END
    FROM turned AS t WHERE t.step IN ('unbind', 'renew')
  )
  SELECT (SELECT count(*) FROM over WHERE over.reason = 'expired'), (SELECT count(*) FROM over WHERE over.reason = 'withdrawn'),
         (SELECT count(*) FROM turned WHERE turned.step = 'renew');
END
$$;
COMMENT ON FUNCTION sweep_lines IS
  'One slice of lines whose time has come: bindings that are over end, and with the last one the line (by an unbind, unless the platform has ended it by itself); a bind still pending after its ttl is withdrawn; what a binding needs longer than the platform was told is renewed.';

DROP FUNCTION show_bindings;
CREATE FUNCTION show_bindings(p_pool integer[], p_binding uuid[])
RETURNS TABLE (pool_id integer, id uuid, app_id integer, state text, reason text, ttl_s integer, created_at timestamptz,
               expires_at timestamptz, ended_at timestamptz, order_id text, user_data text, metadata text, line_id uuid,
               x_id integer, number text, direction text, a_key bigint, b_key bigint, a_sealed bytea, b_sealed bytea,
               subscription_id text, version integer, flipped boolean, shared boolean, joinable boolean, options text,
               wanted text, change_failed text, moving boolean, as_of timestamptz, extension smallint,
               picked text, callback_sealed bytea, callee_sealed bytea, callee_until timestamptz, callee_user_data text,
               gap_ms integer)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT b.pool_id, b.id, b.app_id, b.state, b.reason, b.ttl_s, b.created_at, b.expires_at, b.ended_at, b.order_id,
         b.user_data, b.metadata::text, b.line_id, l.x_id, x.number, l.direction, l.a_key, l.b_key, l.a_sealed, l.b_sealed,
         l.subscription_id, b.version, b.flipped, b.state IN ('pending', 'active') AND EXISTS (
           SELECT FROM binding AS o WHERE o.line_id = b.line_id AND o.id <> b.id AND o.state IN ('pending', 'active') OFFSET 0),
         l.joinable, l.options, CASE WHEN l.changing THEN (
           SELECT c.wanted::text FROM platform_call AS c WHERE c.pool_id = l.pool_id AND c.line_id = l.id AND c.no = l.calls) END,
         l.change_failed, b.moving IS NOT NULL AND b.state = 'active' AND EXISTS (
           SELECT FROM binding AS t WHERE t.pool_id = b.pool_id AND t.id = b.moving AND t.state = 'pending' OFFSET 0), broker_now(),
         l.extension, l.picked, l.callback_sealed, l.callee_sealed, l.callee_until, l.callee_user_data, l.gap_ms
  -- OFFSET 0: whatever the planner believes, the bindings are looked up first, by their key.
  FROM unnest(p_pool, p_binding) AS i (pool_id, id)
  CROSS JOIN LATERAL (SELECT m.* FROM binding AS m WHERE m.pool_id = i.pool_id AND m.id = i.id OFFSET 0) AS b
  JOIN line AS l ON l.pool_id = b.pool_id AND l.id = b.line_id
  LEFT JOIN x_number AS x ON x.pool_id = l.pool_id AND x.x_id = l.x_id
  WHERE b.moves IS NULL;
END
$$;
COMMENT ON FUNCTION show_bindings IS 'Bindings with their lines; what does not exist, or is no order''s, is not returned.';

CREATE OR REPLACE FUNCTION list_by_party(p_pool integer[], p_party bigint, p_state text, p_before uuid, p_limit integer)
RETURNS TABLE (pool_id integer, id uuid, fits boolean, cut boolean)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT b.pool_id, b.id, true, false
  FROM (
    SELECT s.line_id FROM unnest(p_pool) AS i (pool_id) JOIN slot AS s ON s.pool_id = i.pool_id AND s.party_key = p_party
    UNION
    SELECT h.line_id FROM place AS h WHERE h.party_key = p_party AND h.pool_id = ANY (p_pool)
    UNION
    SELECT l.id FROM line AS l
    WHERE l.a_key = p_party AND l.b_key IS NULL AND l.seat IS NOT NULL AND l.pool_id = ANY (p_pool)
  ) AS s
  CROSS JOIN LATERAL (SELECT m.pool_id, m.id, m.state FROM binding AS m WHERE m.line_id = s.line_id OFFSET 0) AS b
  WHERE b.id < p_before AND (p_state IS NULL OR b.state = p_state)
  ORDER BY b.id DESC LIMIT p_limit;
END
$$;
COMMENT ON FUNCTION list_by_party(integer[], bigint, text, uuid, integer) IS
  'Bindings whose line was the last of the party on its X. The key may collide: the caller compares the numbers.';

DROP FUNCTION begin_change;
CREATE FUNCTION begin_change(
  p_mode text, p_lease interval, p_app integer, p_pool integer, p_binding uuid, p_version integer, p_mates uuid[],
  p_given text[], p_ttl integer, p_user_data text, p_metadata text, p_wanted jsonb, p_new_key bigint, p_most_x integer DEFAULT NULL
) RETURNS TABLE (outcome text, no integer, renewal_s integer)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  v_now timestamptz;
  v_line uuid;
  held record;
  own binding%ROWTYPE;
  v_kept bigint;
  v_wanted jsonb := p_wanted;
  v_mode text;
BEGIN
  IF p_new_key IS NOT NULL AND p_most_x IS NOT NULL AND NOT pg_try_advisory_xact_lock(sole_lock(p_app, p_new_key)) THEN
    RETURN QUERY SELECT 'busy', NULL::integer, NULL::integer;
    RETURN;
  END IF;
  IF p_new_key IS NOT NULL AND lock_parties(ARRAY[p_pool], ARRAY[p_new_key], ARRAY[p_new_key], p_mode) <> '{}' THEN
    RETURN QUERY SELECT 'busy', NULL::integer, NULL::integer;
    RETURN;
  END IF;
  SELECT b.line_id INTO v_line FROM binding AS b WHERE b.pool_id = p_pool AND b.id = p_binding AND b.app_id = p_app;
  SELECT l.* INTO held FROM line AS l WHERE l.pool_id = p_pool AND l.id = v_line FOR UPDATE;
  SELECT b.* INTO own FROM binding AS b WHERE b.pool_id = p_pool AND b.id = p_binding FOR UPDATE;
  v_now := broker_now();
  SELECT a.mode INTO v_mode FROM app AS a WHERE a.id = p_app;
  IF 'ttl_s' = ANY (p_given) AND held.state = 'active' AND held.expires_at < v_now + interval '30 seconds'
    AND (p_ttl = 0 OR held.expires_at < v_now + p_ttl * interval '1 second') THEN
    -- The platform would end the line before the sweep could renew it.
    renewal_s := platform_ttl(v_mode, p_ttl);
    v_wanted := coalesce(p_wanted, '{}') || jsonb_build_object('ttl_s', renewal_s);
  END IF;
  outcome := CASE
    WHEN own.id IS NULL OR own.state NOT IN ('pending', 'active') THEN 'over'
    WHEN own.line_id <> held.id THEN 'busy'
    WHEN own.version <> p_version THEN 'stale'
    WHEN moves_now(own.pool_id, own.moving) THEN 'changing'
    WHEN v_wanted IS NULL THEN NULL
    WHEN held.state <> 'active' OR held.changing THEN 'changing'
    WHEN v_wanted ?| ARRAY['a', 'b', 'direction'] AND EXISTS (
      SELECT FROM binding AS o
      WHERE o.line_id = held.id AND o.id <> own.id AND o.state IN ('pending', 'active')
        AND NOT o.id = ANY (p_mates)) THEN 'shared'
    END;
  IF outcome IS NULL AND p_new_key IS NOT NULL AND p_most_x IS NOT NULL AND p_most_x <= x_of_party(p_app, p_new_key, held.id) THEN
    outcome := 'limit';
  END IF;
  IF outcome IS NULL AND p_new_key IS NOT NULL AND held.extension IS NULL THEN
    v_kept := CASE WHEN p_wanted ? 'a' THEN held.b_key ELSE held.a_key END;
    INSERT INTO slot (pool_id, x_id, party_key, counterpart_key, until, line_id)
    VALUES (p_pool, held.x_id, p_new_key, v_kept, 'infinity', held.id)
    ON CONFLICT (pool_id, party_key, x_id) DO UPDATE
      SET counterpart_key = excluded.counterpart_key, until = excluded.until, line_id = excluded.line_id,
          rests_until = CASE WHEN slot.until > v_now THEN slot.until END
      WHERE slot.until <> 'infinity' AND (slot.until <= v_now OR slot.counterpart_key = excluded.counterpart_key);
    IF NOT FOUND THEN
      outcome := 'barred';
    END IF;
  END IF;
  IF outcome IS NOT NULL THEN
    RETURN QUERY SELECT outcome, NULL::integer, NULL::integer;
    RETURN;
  END IF;
  IF v_wanted IS NOT NULL THEN
    UPDATE line AS l SET changing = true, calls = l.calls + 1, third_key = p_new_key, change_failed = NULL
    WHERE l.pool_id = p_pool AND l.id = held.id;
    INSERT INTO platform_call (pool_id, line_id, no, app_id, op, claimable_at, created_at, wanted)
    VALUES (p_pool, held.id, held.calls + 1, p_app, 'modify', clock_timestamp() + p_lease, v_now, v_wanted);
    -- The line is all its bindings': each of them is another one from here on.
    UPDATE binding AS b SET version = b.version + 1
    WHERE b.line_id = held.id AND b.id <> own.id AND b.state IN ('pending', 'active');
  END IF;
  PERFORM change_own(p_pool, p_binding, p_given, p_ttl, p_user_data, p_metadata);
  RETURN QUERY SELECT CASE WHEN v_wanted IS NULL THEN 'changed' ELSE 'begun' END,
                      CASE WHEN v_wanted IS NOT NULL THEN held.calls + 1 END, renewal_s;
END
$$;
COMMENT ON FUNCTION begin_change IS
  'Changes a binding (p_given names what of ttl_s, user_data, metadata) and begins the modify of its line that p_wanted asks for, or that a longer life needs at once (renewal_s). changed: nothing is to be sent. begun: the modify call (no, token 1) is ours to send; old and new party both hold the X. Else nothing was done: over, stale (version), changing (another call of the line is under way), shared (by bindings that are not among p_mates), barred (the new party may not have this X), limit (the new party has p_most_x X already), busy (try again).';

DROP FUNCTION settle_change;
CREATE FUNCTION settle_change(
  p_pool integer, p_line uuid, p_no integer, p_token integer, p_attempt smallint, p_done boolean, p_reason text,
  p_rest interval, p_bar interval, p_outcome text, p_http smallint, p_code text, p_lease interval,
  p_subscription text DEFAULT NULL, p_gap_ms integer DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  v_now CONSTANT timestamptz := broker_now();
  w jsonb;
  was record;
  v_old bigint;
  v_kept bigint;
BEGIN
  UPDATE platform_call AS c
  SET state = 'settled', settled_at = v_now, attempt = p_attempt, outcome = p_outcome, http = p_http, code = p_code
  WHERE c.pool_id = p_pool AND c.line_id = p_line AND c.no = p_no AND c.token = p_token AND c.settled_at IS NULL
  RETURNING c.wanted INTO w;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  SELECT l.* INTO was FROM line AS l WHERE l.pool_id = p_pool AND l.id = p_line FOR UPDATE;
  IF p_done AND was.third_key IS NOT NULL AND was.extension IS NOT NULL THEN
    UPDATE place AS h SET party_key = was.third_key
    WHERE h.pool_id = p_pool AND h.x_id = was.x_id AND h.extension = was.extension AND h.line_id = p_line;
  END IF;
  IF p_done IS NOT NULL AND was.third_key IS NOT NULL AND was.extension IS NULL THEN
    v_old := CASE WHEN w ? 'a' THEN was.a_key ELSE was.b_key END;
    v_kept := CASE WHEN w ? 'a' THEN was.b_key ELSE was.a_key END;
    -- Done: the replaced party rests, the kept one has another counterpart. Refused: the new party was never behind X.
    -- What the platform refused for its number is barred with everybody, so with oneself as counterpart.
    UPDATE slot AS s
    SET until = greatest(v_now + CASE WHEN p_done THEN p_rest ELSE p_bar END, s.rests_until),
        counterpart_key = CASE WHEN NOT p_done AND p_bar > '0' THEN s.party_key ELSE s.counterpart_key END
    WHERE s.pool_id = p_pool AND s.x_id = was.x_id AND s.line_id = p_line
      AND s.party_key = CASE WHEN p_done THEN v_old ELSE was.third_key END;
    UPDATE slot AS s SET counterpart_key = was.third_key
    WHERE p_done AND s.pool_id = p_pool AND s.x_id = was.x_id AND s.line_id = p_line AND s.party_key = v_kept;
  END IF;
  -- What has ended on the line keeps the parties and options that it had: a line of its own, with nothing behind it.
  IF p_done AND w ? 'before' AND EXISTS (
    SELECT FROM binding AS b WHERE b.line_id = p_line AND b.state IN ('released', 'failed')) THEN
    INSERT INTO line (pool_id, id, app_id, x_id, extension, state, direction, calls, ttl_s, joinable, a_key, b_key,
                      confirmed_at, expires_at, a_sealed, b_sealed, options, subscription_id)
    VALUES (p_pool, (w -> 'before' ->> 'line')::uuid, was.app_id, was.x_id, was.extension, 'released', was.direction,
            0, was.ttl_s, false, was.a_key, was.b_key, was.confirmed_at, was.expires_at, decode(w -> 'before' ->> 'a', 'base64'),
            decode(w -> 'before' ->> 'b', 'base64'), was.options, was.subscription_id);
    UPDATE binding AS b SET line_id = (w -> 'before' ->> 'line')::uuid
    WHERE b.line_id = p_line AND b.state IN ('released', 'failed');
  END IF;
  UPDATE line AS l
  SET changing = false,
      third_key = CASE WHEN p_done IS NULL THEN l.third_key END,
      change_failed = p_reason,
      a_key = CASE WHEN p_done AND w ? 'a' THEN (w -> 'a' ->> 'key')::bigint ELSE l.a_key END,
      b_key = CASE WHEN p_done AND w ? 'b' THEN (w -> 'b' ->> 'key')::bigint ELSE l.b_key END,
      a_sealed = CASE WHEN p_done AND w ? 'a' THEN decode(w -> 'a' ->> 'sealed', 'base64') ELSE l.a_sealed END,
      b_sealed = CASE WHEN p_done AND w ? 'b' THEN decode(w -> 'b' ->> 'sealed', 'base64') ELSE l.b_sealed END,
      direction = CASE WHEN p_done AND w ? 'direction' THEN w ->> 'direction' ELSE l.direction END,
      options = CASE WHEN p_done AND w ? 'options' THEN w ->> 'options' ELSE l.options END,
      subscription_id = coalesce(p_subscription, l.subscription_id),
      gap_ms = coalesce(p_gap_ms, l.gap_ms),
      callback_sealed = CASE
        WHEN p_done AND w ? 'callback' THEN decode(w -> 'callback' ->> 'sealed', 'base64') ELSE l.callback_sealed END,
      callee_sealed = CASE
        WHEN p_done AND w ? 'callee' THEN decode(w -> 'callee' ->> 'sealed', 'base64') ELSE l.callee_sealed END,
      callee_until = CASE
        WHEN p_done AND w ? 'callee' THEN v_now + (w -> 'callee' ->> 'ttl_s')::integer * interval '1 second'
        ELSE l.callee_until END,
      callee_user_data = CASE
        WHEN p_done AND w ? 'callee' THEN w -> 'callee' ->> 'user_data' ELSE l.callee_user_data END,
      -- What was bound anew has a new clock, whatever became of the change.
      ttl_s = CASE WHEN (p_done OR p_subscription IS NOT NULL) AND w ? 'ttl_s' THEN (w ->> 'ttl_s')::integer ELSE l.ttl_s END,
      expires_at = CASE
        WHEN NOT (coalesce(p_done, false) OR p_subscription IS NOT NULL) OR NOT w ? 'ttl_s' THEN l.expires_at
        WHEN (w ->> 'ttl_s')::integer > 0 THEN v_now + (w ->> 'ttl_s')::integer * interval '1 second' END,
      sweep_at = CASE
        WHEN l.state = 'releasing' THEN NULL
        WHEN NOT w ? 'ttl_s' THEN l.sweep_at
        WHEN p_done OR p_subscription IS NOT NULL THEN v_now
        ELSE v_now + interval '1 minute' END,
      calls = CASE WHEN l.state = 'releasing' THEN l.calls + 1 ELSE l.calls END
  WHERE l.pool_id = p_pool AND l.id = p_line;
  UPDATE binding AS b SET version = b.version + 1 WHERE b.line_id = p_line AND b.state = 'active'
    AND (NOT w ? 'ttl_s' OR w ?| ARRAY['a', 'b', 'direction', 'options', 'callback', 'callee']);
  IF was.state = 'releasing' THEN
    INSERT INTO platform_call (pool_id, line_id, no, app_id, op, claimable_at, created_at)
    VALUES (p_pool, p_line, was.calls + 1, was.app_id, 'unbind', clock_timestamp() + p_lease, v_now);
  END IF;
  RETURN was.state;
END
$$;
COMMENT ON FUNCTION settle_change IS
  'What became of a modify: done (the replaced party rests for p_rest), refused (p_reason; the new party is barred for p_bar), or null = given up because the line is being released. Returns the line''s state, with releasing an unbind call (no + 1, token 1) is ours to send; null = the call was not ours any more.';
