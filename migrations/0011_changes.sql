-- Lines that several orders share, and changes of lines: what joins, what is asked for, what became of it.

CREATE FUNCTION too_late_to_join(line_end timestamptz) RETURNS boolean
LANGUAGE sql STABLE
AS $$ SELECT coalesce(line_end < broker_now() + interval '10 seconds', false) $$;
COMMENT ON FUNCTION too_late_to_join(timestamptz) IS
  'Whether the platform ends the line (expires_at) so soon that a renewal could come too late for who joins it.';

CREATE FUNCTION lines_of(p_pool integer[], p_line uuid[])
RETURNS TABLE (ord integer, x_id integer, state text, direction text, options text, joinable boolean, changing boolean,
               a_key bigint, b_key bigint, a_sealed bytea, b_sealed bytea)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT i.ord::integer, l.x_id, l.state, l.direction, l.options,
         l.joinable AND NOT too_late_to_join(l.expires_at) AND NOT EXISTS (
           SELECT FROM binding AS b WHERE b.line_id = l.id OFFSET 1000), l.changing, l.a_key, l.b_key, l.a_sealed,
         l.b_sealed
  FROM unnest(p_pool, p_line) WITH ORDINALITY AS i (pool_id, id, ord)
  JOIN line AS l ON l.pool_id = i.pool_id AND l.id = i.id;
END
$$;
COMMENT ON FUNCTION lines_of IS 'Lines by id, for a pair that might share one (joinable: not too late, and not by more bindings than a release should have to count): whether it may is decided on the decrypted numbers.';

CREATE FUNCTION join_lines(
  p_pool integer[], p_line uuid[], p_app integer[], p_caller integer[], p_binding uuid[], p_a bigint[], p_b bigint[],
  p_direction text[], p_options text[], p_ttl integer[], p_chosen text[], p_order text[], p_user_data text[],
  p_metadata text[], p_key_hash bytea[], p_key_token integer[]
) RETURNS TABLE (ord integer, outcome text, created_at timestamptz, state text, expires_at timestamptz,
                 subscription_id text)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  v_now timestamptz;
BEGIN
  PERFORM FROM (SELECT DISTINCT i.pool_id, i.id FROM unnest(p_pool, p_line) AS i (pool_id, id)) AS i
  JOIN line AS l ON l.pool_id = i.pool_id AND l.id = i.id
  ORDER BY l.pool_id, l.id FOR UPDATE OF l;
  -- A new statement: it sees what was committed before the lines were ours.
  v_now := broker_now();
  RETURN QUERY
  WITH item AS MATERIALIZED (
    SELECT i.*, l.state, l.ttl_s AS line_ttl_s, l.expires_at AS line_end, l.subscription_id, l.a_key <> i.a_key AS flipped
    FROM unnest(p_pool, p_line, p_app, p_caller, p_binding, p_a, p_b, p_direction, p_options, p_ttl, p_chosen, p_order,
                p_user_data, p_metadata, p_key_hash, p_key_token) WITH ORDINALITY
      AS i (pool_id, line_id, app_id, caller_id, binding_id, a_key, b_key, direction, options, ttl_s, chosen, order_id,
            user_data, metadata, key_hash, key_token, ord)
    JOIN line AS l ON l.pool_id = i.pool_id AND l.id = i.line_id
    WHERE l.state IN ('pending', 'active') AND l.joinable AND NOT l.changing AND l.app_id = i.app_id
      AND NOT too_late_to_join(l.expires_at)
      AND l.direction = i.direction AND l.options IS NOT DISTINCT FROM i.options
      AND ((l.a_key = i.a_key AND l.b_key = i.b_key)
        OR (l.direction = 'both' AND l.a_key = i.b_key AND l.b_key = i.a_key))
  ),
  keyed AS (
    UPDATE idempotency AS d SET pool_id = i.pool_id, binding_id = i.binding_id
    FROM (SELECT o.* FROM item AS o WHERE o.key_hash IS NOT NULL ORDER BY o.app_id, o.caller_id, o.key_hash) AS i
    WHERE d.app_id = i.app_id AND d.caller_id = i.caller_id AND d.key_hash = i.key_hash
      AND d.token = i.key_token AND d.status IS NULL AND (d.binding_id IS NULL OR d.binding_id = i.binding_id)
    RETURNING i.ord
  ),
  joining AS MATERIALIZED (
    SELECT i.* FROM item AS i WHERE i.key_hash IS NULL OR i.ord IN (SELECT k.ord FROM keyed AS k)
  ),
  new_binding AS (
    INSERT INTO binding (pool_id, id, app_id, caller_id, line_id, state, ttl_s, created_at, expires_at, flipped, chosen,
                         order_id, user_data, metadata)
    SELECT j.pool_id, j.binding_id, j.app_id, j.caller_id, j.line_id, j.state, j.ttl_s, v_now,
           CASE WHEN j.state = 'active' AND j.ttl_s > 0 THEN v_now + j.ttl_s * interval '1 second' END,
           j.flipped, j.chosen, j.order_id, j.user_data, j.metadata::jsonb
    FROM joining AS j
    RETURNING binding.id, binding.state, binding.expires_at
  ),
  looked_at AS (
    -- In time for the first that ends, and to renew the line for one that outlasts it.
    UPDATE line AS l SET sweep_at = least(l.sweep_at, n.ends, n.renewal)
    FROM (
      SELECT j.pool_id, j.line_id, min(v_now + nullif(j.ttl_s, 0) * interval '1 second') AS ends,
             min(CASE
               WHEN j.line_ttl_s > 0 AND (j.ttl_s = 0 OR v_now + j.ttl_s * interval '1 second' > coalesce(j.line_end, v_now))
               THEN coalesce(j.line_end, v_now + j.line_ttl_s * interval '1 second') - renewal_margin(j.line_ttl_s)
             END) AS renewal
      FROM joining AS j GROUP BY j.pool_id, j.line_id
    ) AS n
    WHERE l.pool_id = n.pool_id AND l.id = n.line_id
  )
  SELECT o.ord::integer, CASE
      WHEN n.id IS NOT NULL THEN 'joined' WHEN i.ord IS NOT NULL THEN 'superseded' ELSE 'gone' END,
    v_now, n.state, n.expires_at, i.subscription_id
  FROM unnest(p_binding) WITH ORDINALITY AS o (binding_id, ord)
  LEFT JOIN item AS i ON i.ord = o.ord
  LEFT JOIN new_binding AS n ON n.id = o.binding_id;
END
$$;
COMMENT ON FUNCTION join_lines IS
  'Gives each item a binding of its own on a line that lives. Per item: joined (with the binding''s state), gone (the line ended, changes, or is not as the item wants it), superseded (the idempotency key belongs to a twin).';

CREATE FUNCTION moves_now(p_pool integer, p_stand_in uuid) RETURNS boolean
LANGUAGE plpgsql STABLE SET enable_seqscan = off
AS $$
BEGIN
  RETURN p_stand_in IS NOT NULL AND EXISTS (
    SELECT FROM binding AS b WHERE b.pool_id = p_pool AND b.id = p_stand_in AND b.state = 'pending' OFFSET 0);
END
$$;
COMMENT ON FUNCTION moves_now(integer, uuid) IS 'Whether a binding with this stand-in is on its way to another X.';

CREATE FUNCTION change_own(
  p_pool integer, p_binding uuid, p_given text[], p_ttl integer, p_user_data text, p_metadata text
) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  v_now CONSTANT timestamptz := broker_now();
BEGIN
  IF 'ttl_s' = ANY (p_given) THEN
    UPDATE line AS l SET sweep_at = v_now FROM binding AS b
    WHERE b.pool_id = p_pool AND b.id = p_binding AND l.pool_id = b.pool_id AND l.id = b.line_id;
  END IF;
  UPDATE binding AS b
  SET version = b.version + 1,
      ttl_s = CASE WHEN 'ttl_s' = ANY (p_given) THEN p_ttl ELSE b.ttl_s END,
      expires_at = CASE
        WHEN b.state <> 'active' OR NOT 'ttl_s' = ANY (p_given) THEN b.expires_at
        WHEN p_ttl > 0 THEN v_now + p_ttl * interval '1 second' END,
      user_data = CASE WHEN 'user_data' = ANY (p_given) THEN p_user_data ELSE b.user_data END,
      metadata = CASE WHEN 'metadata' = ANY (p_given) THEN p_metadata::jsonb ELSE b.metadata END
  WHERE b.pool_id = p_pool AND b.id = p_binding;
END
$$;
COMMENT ON FUNCTION change_own IS 'Changes what is a binding''s own: what p_given names of ttl_s, user_data and metadata.';

CREATE FUNCTION begin_change(
  p_mode text, p_lease interval, p_app integer, p_pool integer, p_binding uuid, p_version integer, p_mates uuid[],
  p_given text[], p_ttl integer, p_user_data text, p_metadata text, p_wanted jsonb, p_new_key bigint
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
BEGIN
  IF p_new_key IS NOT NULL AND lock_parties(ARRAY[p_pool], ARRAY[p_new_key], ARRAY[p_new_key], p_mode) <> '{}' THEN
    RETURN QUERY SELECT 'busy', NULL::integer, NULL::integer;
    RETURN;
  END IF;
  SELECT b.line_id INTO v_line FROM binding AS b WHERE b.pool_id = p_pool AND b.id = p_binding AND b.app_id = p_app;
  SELECT l.* INTO held FROM line AS l WHERE l.pool_id = p_pool AND l.id = v_line FOR UPDATE;
  SELECT b.* INTO own FROM binding AS b WHERE b.pool_id = p_pool AND b.id = p_binding FOR UPDATE;
  v_now := broker_now();
  IF 'ttl_s' = ANY (p_given) AND held.state = 'active' AND held.expires_at < v_now + interval '30 seconds'
    AND (p_ttl = 0 OR held.expires_at < v_now + p_ttl * interval '1 second') THEN
    -- The platform would end the line before the sweep could renew it.
    renewal_s := least(p_ttl, 7776000);
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
  IF outcome IS NULL AND p_new_key IS NOT NULL THEN
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
  'Changes a binding (p_given names what of ttl_s, user_data, metadata) and begins the modify of its line that p_wanted asks for, or that a longer life needs at once (renewal_s). changed: nothing is to be sent. begun: the modify call (no, token 1) is ours to send; old and new party both hold the X. Else nothing was done: over, stale (version), changing (another call of the line is under way), shared (by bindings that are not among p_mates), barred (the new party may not have this X), busy (try again).';

CREATE FUNCTION settle_change(
  p_pool integer, p_line uuid, p_no integer, p_token integer, p_attempt smallint, p_done boolean, p_reason text,
  p_rest interval, p_bar interval, p_outcome text, p_http smallint, p_code text, p_lease interval
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
  IF p_done IS NOT NULL AND was.third_key IS NOT NULL THEN
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
    INSERT INTO line (pool_id, id, app_id, x_id, state, direction, calls, ttl_s, joinable, a_key, b_key, confirmed_at,
                      expires_at, a_sealed, b_sealed, options, subscription_id)
    VALUES (p_pool, (w -> 'before' ->> 'line')::uuid, was.app_id, was.x_id, 'released', was.direction, 0, was.ttl_s, false,
            was.a_key, was.b_key, was.confirmed_at, was.expires_at, decode(w -> 'before' ->> 'a', 'base64'),
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
      ttl_s = CASE WHEN p_done AND w ? 'ttl_s' THEN (w ->> 'ttl_s')::integer ELSE l.ttl_s END,
      expires_at = CASE
        WHEN NOT coalesce(p_done, false) OR NOT w ? 'ttl_s' THEN l.expires_at
        WHEN (w ->> 'ttl_s')::integer > 0 THEN v_now + (w ->> 'ttl_s')::integer * interval '1 second' END,
      sweep_at = CASE
        WHEN l.state = 'releasing' THEN NULL
        WHEN NOT w ? 'ttl_s' THEN l.sweep_at
        WHEN p_done THEN v_now
        ELSE v_now + interval '1 minute' END,
      calls = CASE WHEN l.state = 'releasing' THEN l.calls + 1 ELSE l.calls END
  WHERE l.pool_id = p_pool AND l.id = p_line;
  UPDATE binding AS b SET version = b.version + 1 WHERE b.line_id = p_line AND b.state = 'active' AND NOT w ? 'ttl_s';
  IF was.state = 'releasing' THEN
    INSERT INTO platform_call (pool_id, line_id, no, app_id, op, claimable_at, created_at)
    VALUES (p_pool, p_line, was.calls + 1, was.app_id, 'unbind', clock_timestamp() + p_lease, v_now);
  END IF;
  RETURN was.state;
END
$$;
COMMENT ON FUNCTION settle_change IS
  'What became of a modify: done (the replaced party rests for p_rest), refused (p_reason; the new party is barred for p_bar), or null = given up because the line is being released. Returns the line''s state, with releasing an unbind call (no + 1, token 1) is ours to send; null = the call was not ours any more.';

CREATE FUNCTION begin_move(
  p_mode text, p_lease interval, p_app integer, p_pool integer, p_binding uuid, p_version integer, p_given text[],
  p_ttl integer, p_user_data text, p_metadata text, p_stand_in uuid, p_x integer, p_cap integer, p_line uuid, p_a bigint,
  p_b bigint, p_a_sealed bytea, p_b_sealed bytea, p_direction text, p_options text, p_joinable boolean,
  p_line_ttl integer, p_chosen text
) RETURNS text
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  v_line uuid;
  held record;
  own binding%ROWTYPE;
  v_outcome text;
BEGIN
  IF lock_parties(ARRAY[p_pool], ARRAY[p_a], ARRAY[p_b], p_mode) <> '{}' THEN
    RETURN 'busy';
  END IF;
  SELECT b.line_id INTO v_line FROM binding AS b WHERE b.pool_id = p_pool AND b.id = p_binding AND b.app_id = p_app;
  SELECT l.* INTO held FROM line AS l WHERE l.pool_id = p_pool AND l.id = v_line FOR UPDATE;
  SELECT b.* INTO own FROM binding AS b WHERE b.pool_id = p_pool AND b.id = p_binding FOR UPDATE;
  v_outcome := CASE
    WHEN own.id IS NULL OR own.state NOT IN ('pending', 'active') THEN 'over'
    WHEN own.line_id <> held.id THEN 'busy'
    WHEN own.version <> p_version THEN 'stale'
    WHEN held.state <> 'active' OR held.changing OR moves_now(own.pool_id, own.moving) THEN 'changing' END;
  IF v_outcome IS NOT NULL THEN
    RETURN v_outcome;
  END IF;
  SELECT r.outcome INTO v_outcome FROM reserve(
    p_mode, p_lease, ARRAY[p_pool], ARRAY[p_x], ARRAY[p_cap], ARRAY[p_app], ARRAY[own.caller_id], ARRAY[p_line],
    ARRAY[p_stand_in], ARRAY[p_a], ARRAY[p_b], ARRAY[p_a_sealed], ARRAY[p_b_sealed], ARRAY[p_direction], ARRAY[p_options],
    ARRAY[p_joinable], ARRAY[p_line_ttl], ARRAY[p_line_ttl], ARRAY[p_chosen], ARRAY[NULL::text], ARRAY[NULL::text],
    ARRAY[NULL::text], ARRAY[NULL::bytea], ARRAY[NULL::integer], ARRAY[NULL::integer], ARRAY[NULL::boolean]) AS r;
  IF v_outcome <> 'won' THEN
    RAISE EXCEPTION 'X not available: %', v_outcome USING ERRCODE = 'BB002', DETAIL = v_outcome;
  END IF;
  UPDATE binding AS b SET moves = own.id WHERE b.pool_id = p_pool AND b.id = p_stand_in;
  PERFORM change_own(p_pool, p_binding, p_given, p_ttl, p_user_data, p_metadata);
  UPDATE binding AS b SET moving = p_stand_in WHERE b.pool_id = p_pool AND b.id = own.id;
  RETURN 'won';
END
$$;
COMMENT ON FUNCTION begin_move IS
  'Reserves another X, with other parties or options, for an active binding, which keeps its line until the platform has confirmed the new one: its bind call (no 1, token 1) is ours to send. All or nothing (BB002: that X is not available); over, stale, changing, busy as in begin_change.';

CREATE FUNCTION finish_move(p_pool integer, p_stand_in uuid) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  stand_in binding%ROWTYPE;
  own binding%ROWTYPE;
BEGIN
  SELECT b.* INTO stand_in FROM binding AS b WHERE b.pool_id = p_pool AND b.id = p_stand_in;
  SELECT b.* INTO own FROM binding AS b WHERE b.pool_id = p_pool AND b.id = stand_in.moves;
  -- The old line is the older one: in the order in which everybody takes lines.
  PERFORM FROM line AS l WHERE l.pool_id = p_pool AND l.id = own.line_id FOR UPDATE;
  UPDATE binding AS b SET line_id = stand_in.line_id, flipped = false, chosen = stand_in.chosen, version = b.version + 1
  WHERE b.pool_id = p_pool AND b.id = own.id AND b.state = 'active' AND b.line_id = own.line_id;
  IF FOUND THEN
    UPDATE binding AS b SET line_id = own.line_id, flipped = own.flipped WHERE b.pool_id = p_pool AND b.id = p_stand_in;
    UPDATE line AS l SET sweep_at = broker_now() WHERE l.pool_id = p_pool AND l.id = stand_in.line_id;
  END IF;
  -- With the old line, or, if the binding has ended meanwhile, with the new one. Nobody waits for the unbind: whoever
  -- looks for calls without an owner next takes it.
  PERFORM release_bindings(ARRAY[p_pool], ARRAY[p_stand_in], ARRAY[stand_in.app_id], 'moved', '0');
END
$$;
COMMENT ON FUNCTION finish_move(integer, uuid) IS
  'The platform has confirmed the line that a stand-in holds: the binding that it moves goes there, and its old line is let go of.';
