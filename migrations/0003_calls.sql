-- Platform calls: who may send them, and what their outcomes change. The token is the fence: a statement that names an
-- old token changes nothing. Rows are always taken in the order platform_call, line, slot, binding, and several of a kind
-- in the order of their keys: nobody waits in a circle.
--
-- "Still open" is asked as settled_at IS NULL where the row is found by its key: asked as state = 'open' it would fit the
-- index of claimable calls, which a planner that believes the table to be small prefers and then reads from end to end.

CREATE FUNCTION claim_calls(p_limit integer, p_lease interval)
RETURNS TABLE (pool_id integer, line_id uuid, no integer, token integer, attempt smallint, op text, app_id integer,
               x_id integer, number text, direction text, ttl_s integer, a_key bigint, b_key bigint,
               a_sealed bytea, b_sealed bytea, options text, subscription_id text, line_state text, wanted text,
               created_at timestamptz)
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
  SELECT c.pool_id, c.line_id, c.no, c.token, c.attempt, c.op, c.app_id, l.x_id, x.number, l.direction, l.ttl_s,
         l.a_key, l.b_key, l.a_sealed, l.b_sealed, l.options, l.subscription_id, l.state, c.wanted::text, c.created_at
  FROM claimed AS c
  JOIN line AS l ON l.pool_id = c.pool_id AND l.id = c.line_id
  JOIN x_number AS x ON x.pool_id = l.pool_id AND x.x_id = l.x_id;
END
$$;
COMMENT ON FUNCTION claim_calls IS 'Takes over calls whose owner''s lease has ended; what their owner may have sent is unknown.';

CREATE FUNCTION extend_calls(p_pool integer[], p_line uuid[], p_no integer[], p_token integer[], p_lease_s double precision[],
                             p_attempt smallint[], p_http smallint[], p_code text[])
RETURNS TABLE (ord integer, line_state text)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  UPDATE platform_call AS c
  SET claimable_at = clock_timestamp() + make_interval(secs => i.lease_s), attempt = i.attempt,
      http = coalesce(i.http, c.http), code = coalesce(i.code, c.code)
  FROM (
    SELECT u.* FROM unnest(p_pool, p_line, p_no, p_token, p_lease_s, p_attempt, p_http, p_code) WITH ORDINALITY
      AS u (pool_id, line_id, no, token, lease_s, attempt, http, code, ord)
    ORDER BY u.pool_id, u.line_id
  ) AS i
  WHERE c.pool_id = i.pool_id AND c.line_id = i.line_id AND c.no = i.no AND c.token = i.token AND c.settled_at IS NULL
  RETURNING i.ord::integer, (SELECT l.state FROM line AS l WHERE l.pool_id = c.pool_id AND l.id = c.line_id);
END
$$;
COMMENT ON FUNCTION extend_calls IS
  'Renews leases (and notes the last answer); tells the line''s state, which may be releasing by now. What is not returned belongs to somebody else.';

CREATE FUNCTION settle_bound(p_pool integer[], p_line uuid[], p_no integer[], p_token integer[], p_attempt smallint[],
                             p_subscription text[], p_lease interval)
RETURNS TABLE (ord integer, line_state text, confirmed_at timestamptz)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := broker_now();
  v_ord bigint[];
  v_pool integer[];
  v_line uuid[];
  v_app integer[];
  v_calls integer[];
  v_state text[];
  v_moved_pool integer[];
  v_moved uuid[];
BEGIN
  WITH call AS (
    UPDATE platform_call AS c
    SET state = 'settled', settled_at = v_now, attempt = i.attempt, outcome = 'done'
    FROM (
      SELECT u.* FROM unnest(p_pool, p_line, p_no, p_token, p_attempt, p_subscription) WITH ORDINALITY
        AS u (pool_id, line_id, no, token, attempt, subscription_id, ord)
      ORDER BY u.pool_id, u.line_id
    ) AS i
    WHERE c.pool_id = i.pool_id AND c.line_id = i.line_id AND c.no = i.no AND c.token = i.token AND c.settled_at IS NULL
    RETURNING i.*
  ),
  bound AS (
    UPDATE line AS l
    SET confirmed_at = v_now, subscription_id = call.subscription_id,
        expires_at = CASE WHEN l.ttl_s > 0 THEN v_now + l.ttl_s * interval '1 second' END,
        -- Released while it was being bound: the unbind follows at once.
        state = CASE WHEN l.state = 'pending' THEN 'active' ELSE l.state END,
        calls = CASE WHEN l.state = 'pending' THEN l.calls ELSE l.calls + 1 END
    FROM call WHERE l.pool_id = call.pool_id AND l.id = call.line_id
    RETURNING call.ord, l.pool_id, l.id, l.app_id, l.calls, l.state
  )
  SELECT array_agg(b.ord), array_agg(b.pool_id), array_agg(b.id), array_agg(b.app_id), array_agg(b.calls),
         array_agg(b.state)
  INTO v_ord, v_pool, v_line, v_app, v_calls, v_state FROM bound AS b;
  -- A new statement: it sees the bindings that joined before the lines were ours.
  WITH bound AS MATERIALIZED (
    SELECT u.* FROM unnest(v_ord, v_pool, v_line, v_app, v_calls, v_state) AS u (ord, pool_id, id, app_id, calls, state)
  ),
  live AS (
    UPDATE binding AS b
    SET state = 'active', expires_at = CASE WHEN b.ttl_s > 0 THEN v_now + b.ttl_s * interval '1 second' END
    FROM bound WHERE b.line_id = bound.id AND bound.state = 'active' AND b.state = 'pending'
    RETURNING b.pool_id, b.id, b.moves
  ),
  undo AS (
    INSERT INTO platform_call (pool_id, line_id, no, app_id, op, claimable_at, created_at)
    SELECT bound.pool_id, bound.id, bound.calls, bound.app_id, 'unbind', clock_timestamp() + p_lease, v_now
    FROM bound WHERE bound.state = 'releasing'
  )
  SELECT array_agg(live.pool_id), array_agg(live.id) INTO v_moved_pool, v_moved FROM live WHERE live.moves IS NOT NULL;
  FOR n IN 1 .. coalesce(array_length(v_moved, 1), 0) LOOP
    PERFORM finish_move(v_moved_pool[n], v_moved[n]);
  END LOOP;
  RETURN QUERY SELECT u.ord::integer, u.state, v_now FROM unnest(v_ord, v_state) AS u (ord, state);
END
$$;
COMMENT ON FUNCTION settle_bound IS
  'The platform holds these lines. Returns those that were still ours to settle, with the line''s state: active, or releasing when it was released meanwhile (call no + 1, token 1, is then ours to send).';

CREATE FUNCTION settle_ended(p_pool integer[], p_line uuid[], p_no integer[], p_token integer[], p_attempt smallint[],
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
    RETURNING call.ord, l.pool_id, l.id, l.x_id, l.a_key, l.b_key, l.third_key, l.state, call.rest_s, call.end_state
  ),
  -- The parties as rows before the slots are touched: else a planner that believes the slots to be few looks them up by
  -- pool alone and filters.
  party AS MATERIALIZED (
    SELECT e.pool_id, e.id, e.x_id, e.rest_s, e.end_state, v.party_key
    FROM ended AS e CROSS JOIN LATERAL (VALUES (e.a_key), (e.b_key), (e.third_key)) AS v (party_key)
    WHERE v.party_key IS NOT NULL
  ),
  rested AS (
    -- An X that the platform refused is barred with everybody, so with oneself as counterpart: the same pair must not
    -- get it again at once.
    UPDATE slot AS s
    SET until = greatest(v_now + make_interval(secs => p.rest_s), s.rests_until),
        counterpart_key = CASE WHEN p.end_state = 'failed' THEN s.party_key ELSE s.counterpart_key END
    FROM party AS p
    WHERE s.pool_id = p.pool_id AND s.party_key = p.party_key AND s.x_id = p.x_id AND s.line_id = p.id
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

CREATE FUNCTION release_bindings(p_pool integer[], p_binding uuid[], p_app integer[], p_reason text, p_lease interval)
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
    RETURNING w.ord, w.last, l.pool_id, l.id, l.app_id, l.calls, l.confirmed_at, l.changing, l.x_id, l.subscription_id
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
           ELSE 'pending' END, x.number, e.subscription_id
  FROM asked AS a JOIN ending AS e ON e.id = a.line_id JOIN x_number AS x ON x.pool_id = e.pool_id AND x.x_id = e.x_id;
END
$$;
COMMENT ON FUNCTION release_bindings IS
  'Begins the release. line_state active: an unbind call (no, token 1) is ours to send. pending: another call is still under way, its settling sends the unbind (or another item of this batch has it). shared: the line lives on with other bindings, this one has ended. Not returned: nothing to release, or the binding is changing its line at this moment (look again).';

CREATE FUNCTION end_unbound(p_pool integer, p_line uuid, p_no integer, p_token integer) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
  PERFORM FROM platform_call AS c
  WHERE c.pool_id = p_pool AND c.line_id = p_line AND c.no = p_no AND c.token = p_token AND c.settled_at IS NULL
  FOR UPDATE;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  UPDATE binding AS b SET state = 'released', reason = coalesce(b.reason, 'released'), ended_at = broker_now()
  WHERE b.line_id = p_line AND b.state = 'releasing';
  RETURN true;
END
$$;
COMMENT ON FUNCTION end_unbound IS
  'The platform holds nothing of a line that is being released, so its bindings are released now. The line keeps its X until a bind that was sent can no longer come late. False: the call is not ours any more.';

CREATE FUNCTION sweep_lines(p_limit integer, p_grace interval)
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
    SELECT l.pool_id, l.id, l.state, l.changing, l.expires_at, l.ttl_s, e.ends, e.last_end
    FROM unnest(v_pool, v_line) AS i (pool_id, id)
    JOIN line AS l ON l.pool_id = i.pool_id AND l.id = i.id
    -- Ends of the bindings that are not over yet: the earliest, and the latest.
    CROSS JOIN LATERAL (
      SELECT min(v.ends) FILTER (WHERE v.ends > v_now) AS ends, max(v.ends) FILTER (WHERE v.ends > v_now) AS last_end
      FROM (
        SELECT CASE
            WHEN b.ttl_s = 0 THEN 'infinity'
            WHEN b.state = 'pending' THEN b.created_at + b.ttl_s * interval '1 second'
            ELSE b.expires_at + p_grace END AS ends
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
      WHEN h.ends IS NULL AND h.expires_at + p_grace > v_now AND h.expires_at < v_now + interval '10 seconds' THEN 'wait'
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
    RETURNING p.step, p.last_end, l.pool_id, l.id, l.app_id, l.x_id, l.a_key, l.b_key, l.third_key, l.calls, l.ttl_s
  ),
  party AS MATERIALIZED (
    SELECT t.pool_id, t.id, t.x_id, app.quarantine_s * interval '1 second' AS rest, v.party_key
    FROM turned AS t JOIN app ON app.id = t.app_id
    CROSS JOIN LATERAL (VALUES (t.a_key), (t.b_key), (t.third_key)) AS v (party_key)
    WHERE t.step = 'end' AND v.party_key IS NOT NULL
  ),
  rested AS (
    UPDATE slot AS s SET until = greatest(v_now + p.rest, s.rests_until)
    FROM party AS p
    WHERE s.pool_id = p.pool_id AND s.party_key = p.party_key AND s.x_id = p.x_id AND s.line_id = p.id
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
        WHEN b.state = 'pending' THEN b.created_at + b.ttl_s * interval '1 second' ELSE b.expires_at + p_grace END
    RETURNING b.state, b.reason
  ),
  call AS (
    -- Nobody waits for these: whoever looks for calls without an owner next takes them. Token 0 says they have had none.
    INSERT INTO platform_call (pool_id, line_id, no, app_id, op, token, claimable_at, created_at, wanted)
    SELECT t.pool_id, t.id, t.calls, t.app_id, CASE WHEN t.step = 'unbind' THEN 'unbind' ELSE 'modify' END, 0,
           clock_timestamp(), v_now, CASE WHEN t.step = 'renew' THEN jsonb_build_object('ttl_s', CASE
             WHEN t.last_end = 'infinity' THEN 0
             ELSE least(ceil(extract(epoch FROM t.last_end - v_now)), 7776000) END) END
    FROM turned AS t WHERE t.step IN ('unbind', 'renew')
  )
  SELECT (SELECT count(*) FROM over WHERE over.reason = 'expired'), (SELECT count(*) FROM over WHERE over.reason = 'withdrawn'),
         (SELECT count(*) FROM turned WHERE turned.step = 'renew');
END
$$;
COMMENT ON FUNCTION sweep_lines IS
  'One slice of lines whose time has come: bindings that are over end, and with the last one the line (by an unbind, unless the platform has ended it by itself); a bind still pending after its ttl is withdrawn; what a binding needs longer than the platform was told is renewed.';

CREATE FUNCTION take_slots(p_app integer, p_want integer, p_rate double precision, p_burst integer, p_horizon interval)
RETURNS TABLE (at_s double precision, every_s double precision, granted integer)
LANGUAGE plpgsql
AS $$
DECLARE
  tolerance interval := make_interval(secs => (p_burst - 1) / p_rate);
  v_now timestamptz;
  base timestamptz;
  n integer;
BEGIN
  INSERT INTO limiter AS m (app_id, tat) VALUES (p_app, clock_timestamp() + tolerance) ON CONFLICT DO NOTHING;
  SELECT m.tat INTO base FROM limiter AS m WHERE m.app_id = p_app FOR UPDATE;
  v_now := clock_timestamp();
  -- No grant leaves it further ahead than this; a clock set back or another rate must not stop the app.
  base := least(
    greatest(base, v_now),
    v_now + greatest(p_horizon, interval '5 seconds') + tolerance + make_interval(secs => 1 / p_rate));
  -- Slot k starts at max(now, base + k / rate - tolerance); those beyond the horizon are left for later.
  n := least(p_want, greatest(0, 1 + floor(extract(epoch FROM (v_now + p_horizon + tolerance - base)) * p_rate)::integer));
  -- Time has microseconds here: rounded up, and once a grant, so that rounding never adds up to a call too many.
  UPDATE limiter AS m SET tat = base + make_interval(secs => ceil(n * 1e6 / p_rate) / 1e6) WHERE m.app_id = p_app AND n > 0;
  RETURN QUERY SELECT extract(epoch FROM (base - tolerance - v_now))::double precision, (1 / p_rate)::double precision, n;
END
$$;
COMMENT ON FUNCTION take_slots IS
  'GCRA: grants up to p_want send slots. Slot k (from 0) starts at max(0, at_s + k * every_s) seconds from now; granted 0 means come back in at_s seconds.';
