-- Lines whose X the platform picks, and the Y numbers that it gives to those who deal with their A.
--
-- The table of calls gets two more operations; its constraint is exchanged for a wider one, without reading the rows.
-- squawk-ignore-file ban-drop-constraint

ALTER TABLE platform_call
  DROP CONSTRAINT platform_call_op_check,
  ADD CONSTRAINT platform_call_op_check CHECK (op IN ('bind', 'unbind', 'modify', 'bind_peer', 'unbind_peer')) NOT VALID;

CREATE FUNCTION claim_unpicked(
  p_lease interval, p_most integer, p_pool integer, p_app integer, p_caller integer, p_line uuid, p_binding uuid, p_a bigint,
  p_a_sealed bytea, p_direction text, p_options text, p_line_ttl integer, p_ttl integer, p_chosen text, p_order text,
  p_user_data text, p_metadata text, p_key_hash bytea, p_key_token integer
) RETURNS TABLE (outcome text, created_at timestamptz)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  v_now timestamptz;
BEGIN
  IF NOT pg_try_advisory_xact_lock(sole_lock(p_app, p_a)) THEN
    RETURN QUERY SELECT 'busy', NULL::timestamptz;
    RETURN;
  END IF;
  -- A new statement from here on: it sees what was committed before the lock was ours.
  v_now := broker_now();
  IF (SELECT p.state FROM pool AS p WHERE p.id = p_pool) IS DISTINCT FROM 'open' THEN
    RETURN QUERY SELECT 'closed', v_now;
    RETURN;
  END IF;
  IF (SELECT count(*) FROM line AS l
      WHERE l.a_key = p_a AND l.b_key IS NULL AND l.seat IS NOT NULL AND l.app_id = p_app) >= p_most THEN
    RETURN QUERY SELECT 'limit', v_now;
    RETURN;
  END IF;
  IF p_key_hash IS NOT NULL THEN
    UPDATE idempotency AS d SET pool_id = p_pool, binding_id = p_binding
    WHERE d.app_id = p_app AND d.caller_id = p_caller AND d.key_hash = p_key_hash
      AND d.token = p_key_token AND d.status IS NULL AND (d.binding_id IS NULL OR d.binding_id = p_binding);
    IF NOT FOUND THEN
      RETURN QUERY SELECT 'superseded', v_now;
      RETURN;
    END IF;
  END IF;
  INSERT INTO line (pool_id, id, app_id, extension, seat, state, direction, calls, ttl_s, joinable, a_key, sweep_at, a_sealed,
                    options)
  VALUES (p_pool, p_line, p_app, 0, 0, 'pending', p_direction, 1, p_line_ttl, false, p_a,
          v_now + p_ttl * interval '1 second', p_a_sealed, p_options);
  INSERT INTO binding (pool_id, id, app_id, caller_id, line_id, state, ttl_s, created_at, chosen, order_id, user_data, metadata)
  VALUES (p_pool, p_binding, p_app, p_caller, p_line, 'pending', p_ttl, v_now, p_chosen, p_order, p_user_data,
          p_metadata::jsonb);
  INSERT INTO platform_call (pool_id, line_id, no, app_id, op, claimable_at, created_at)
  VALUES (p_pool, p_line, 1, p_app, 'bind', clock_timestamp() + p_lease, v_now);
  RETURN QUERY SELECT 'won', v_now;
END
$$;
COMMENT ON FUNCTION claim_unpicked IS
  'A line for one party whose X the platform is to pick, with its binding and its bind call (no 1, token 1, ours to send): won; busy (another claim of the party is under way: try again); limit (the party has p_most X); closed (the pool); superseded (the idempotency key belongs to a twin). Nothing is left behind but by won.';

CREATE FUNCTION take_in_number(p_pool integer, p_app integer, p_number text, OUT seen text, OUT x_id integer)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  owner record;
BEGIN
  FOR attempt IN 1 .. 3 LOOP
    SELECT p.app_id, x.pool_id, x.x_id INTO owner
    FROM x_number AS x JOIN pool AS p ON p.id = x.pool_id WHERE x.number = p_number AND x.state <> 'moved';
    IF FOUND THEN
      seen := CASE WHEN owner.app_id <> p_app THEN 'foreign' WHEN owner.pool_id <> p_pool THEN 'elsewhere' ELSE 'known' END;
      x_id := CASE WHEN seen = 'known' THEN owner.x_id END;
      RETURN;
    END IF;
    seen := 'unfit';
    -- A pool that is full, or a text that is no number, is no reason to lose what the platform has done already.
    EXIT WHEN p_number !~ '^[+][0-9]{3,30}$';
    INSERT INTO x_number (pool_id, x_id, number, state, state_reason)
    SELECT p_pool, n.next, p_number, 'open', 'given out by the platform'
    FROM (SELECT coalesce(max(x.x_id) + 1, 0) AS next FROM x_number AS x WHERE x.pool_id = p_pool) AS n WHERE n.next <= 99999
    ON CONFLICT DO NOTHING
    RETURNING x_number.x_id INTO x_id;
    IF FOUND THEN
      seen := 'imported';
      RETURN;
    END IF;
  END LOOP;
END
$$;
COMMENT ON FUNCTION take_in_number(integer, integer, text) IS
  'Whose a number is that the platform has given out: known (of this pool), elsewhere (another pool of the app), foreign (another app''s), imported (nobody''s: it is this pool''s now), unfit (it cannot be entered).';

CREATE FUNCTION settle_picked(
  p_pool integer, p_line uuid, p_no integer, p_token integer, p_attempt smallint, p_subscription text, p_number text,
  p_lease interval
) RETURNS TABLE (seen text, line_state text, confirmed_at timestamptz, crowded boolean)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  v_app integer;
  v_number record;
  v_seat smallint;
BEGIN
  SELECT c.app_id INTO v_app FROM platform_call AS c
  WHERE c.pool_id = p_pool AND c.line_id = p_line AND c.no = p_no AND c.token = p_token AND c.settled_at IS NULL FOR UPDATE;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  SELECT t.* INTO v_number FROM take_in_number(p_pool, v_app, p_number) AS t;
  IF v_number.seen = 'foreign' THEN
    RETURN QUERY SELECT 'foreign', NULL::text, NULL::timestamptz, false;
    RETURN;
  END IF;
  -- The platform lets an X go a moment before our books do, so a line of that X may be there yet: this one sits beside it.
  SELECT min(g.seat)::smallint INTO v_seat FROM generate_series(0, 99) AS g (seat)
  WHERE NOT EXISTS (
    SELECT FROM line AS l WHERE l.x_key = p_pool::bigint * 100000 + v_number.x_id AND l.seat = g.seat OFFSET 0);
  UPDATE line AS l
  SET x_id = v_number.x_id, picked = CASE WHEN v_number.x_id IS NULL THEN p_number END, seat = v_seat
  WHERE l.pool_id = p_pool AND l.id = p_line;
  RETURN QUERY SELECT v_number.seen, s.line_state, s.confirmed_at, v_seat > 0
  FROM settle_bound(ARRAY[p_pool], ARRAY[p_line], ARRAY[p_no], ARRAY[p_token], ARRAY[p_attempt], ARRAY[p_subscription],
                    p_lease) AS s;
END
$$;
COMMENT ON FUNCTION settle_picked IS
  'As settle_bound, for a line whose X the platform has picked: enters the number into the line, and into the pool if nobody had it. foreign: the number is another app''s, and nothing was changed. crowded: our books have another line on it. No row: the call was not ours any more.';

CREATE TABLE peer (
  pool_id      integer NOT NULL,
  id           uuid NOT NULL,
  app_id       integer NOT NULL,
  binding_id   uuid NOT NULL,
  line_id      uuid NOT NULL,
  state        text NOT NULL CHECK (state IN ('pending', 'active', 'releasing', 'released', 'failed')),
  reason       text,
  b_key        bigint NOT NULL,
  b_sealed     bytea NOT NULL,
  y            text,
  tone         text,
  ttl_s        integer NOT NULL,
  found        boolean NOT NULL DEFAULT false,
  call_no      integer,
  created_at   timestamptz NOT NULL,
  confirmed_at timestamptz,
  expires_at   timestamptz,
  ended_at     timestamptz,
  PRIMARY KEY (pool_id, id)
) WITH (fillfactor = 80);
COMMENT ON TABLE peer IS 'A B that deals with the A of a line whose X the platform picks, and the Y that it was given: A dials Y and reaches B.';
COMMENT ON COLUMN peer.reason IS 'Why it ended or failed: released, expired, binding_ended, or a stable code.';
COMMENT ON COLUMN peer.b_key IS 'Keyed 64-bit hash of B; where a match selects, the decrypted number is compared.';
COMMENT ON COLUMN peer.b_sealed IS 'B, encrypted (associated data: peer, b, pool_id, id).';
COMMENT ON COLUMN peer.y IS 'The number itself: one Y serves many, of any of our pools.';
COMMENT ON COLUMN peer.tone IS 'Voice file that plays when Y is dialled.';
COMMENT ON COLUMN peer.ttl_s IS 'Lifetime that the platform was told; 0 = as long as the line.';
COMMENT ON COLUMN peer.found IS 'The platform made it by itself, when B dialled X; we heard of it later.';
COMMENT ON COLUMN peer.call_no IS 'The line''s platform call that is under way for it; null = none is, or it waits for its turn.';
COMMENT ON COLUMN peer.expires_at IS 'When the platform ends it by itself; null while pending.';
CREATE UNIQUE INDEX peer_live ON peer (line_id, b_key) WHERE state IN ('pending', 'active', 'releasing');
CREATE INDEX peer_binding ON peer (binding_id);
CREATE INDEX peer_expiry ON peer (expires_at) WHERE state = 'active';
CREATE INDEX peer_y ON peer (y) WHERE state IN ('active', 'releasing');

CREATE FUNCTION unbound_numbers(p_pool integer, p_relaxed boolean, p_limit integer) RETURNS TABLE (number text)
LANGUAGE sql STABLE
AS $$
  SELECT x.number
  FROM pool AS own JOIN pool AS o ON o.app_id = own.app_id AND (p_relaxed OR o.area_code = own.area_code)
  JOIN x_number AS x ON x.pool_id = o.id
  WHERE own.id = p_pool AND x.state NOT IN ('moved', 'retired')
    AND NOT EXISTS (SELECT FROM line AS l WHERE l.x_key = x.pool_id::bigint * 100000 + x.x_id AND l.seat IS NOT NULL OFFSET 0)
    AND NOT EXISTS (SELECT FROM peer AS p WHERE p.y = x.number AND p.state IN ('active', 'releasing') OFFSET 0)
  ORDER BY o.id <> p_pool, x.pool_id, x.x_id LIMIT p_limit
$$;
COMMENT ON FUNCTION unbound_numbers(integer, boolean, integer) IS
  'Numbers of the app''s pools in the area of this one (relaxed: of all) on which our books have nobody: where a bind of which nobody knows what became may have ended up.';

CREATE FUNCTION begin_peer_call(p_pool integer, p_line uuid, p_lease interval) RETURNS TABLE (no integer, op text, peer_id uuid)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  held record;
  turn peer%ROWTYPE;
BEGIN
  SELECT l.* INTO held FROM line AS l WHERE l.pool_id = p_pool AND l.id = p_line FOR UPDATE;
  IF held.state <> 'active' OR held.changing THEN
    RETURN;
  END IF;
  SELECT p.* INTO turn FROM peer AS p
  WHERE p.line_id = p_line AND p.state IN ('pending', 'releasing') ORDER BY p.state = 'pending', p.id LIMIT 1 FOR UPDATE;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  UPDATE line AS l SET changing = true, calls = l.calls + 1 WHERE l.pool_id = p_pool AND l.id = p_line;
  UPDATE peer AS p SET call_no = held.calls + 1 WHERE p.pool_id = p_pool AND p.id = turn.id;
  INSERT INTO platform_call (pool_id, line_id, no, app_id, op, claimable_at, created_at)
  VALUES (p_pool, p_line, held.calls + 1, held.app_id,
          CASE turn.state WHEN 'pending' THEN 'bind_peer' ELSE 'unbind_peer' END, clock_timestamp() + p_lease, broker_now());
  RETURN QUERY SELECT held.calls + 1, CASE turn.state WHEN 'pending' THEN 'bind_peer' ELSE 'unbind_peer' END, turn.id;
END
$$;
COMMENT ON FUNCTION begin_peer_call(integer, uuid, interval) IS
  'If no call of the line is under way, begins the one of the peer whose turn it is (those that are to go first): (no, token 1) is ours to send. No row: there is none, or a call under way begins the next when it is settled.';

CREATE FUNCTION add_peer(
  p_app integer, p_pool integer, p_binding uuid, p_id uuid, p_b bigint, p_b_sealed bytea, p_ttl integer, p_tone text,
  p_most integer, p_lease interval
) RETURNS TABLE (outcome text, id uuid, line_id uuid, no integer, subscription_id text)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  v_now timestamptz;
  own binding%ROWTYPE;
  held record;
  there peer%ROWTYPE;
  v_left integer;
  v_no integer;
BEGIN
  SELECT b.* INTO own FROM binding AS b WHERE b.pool_id = p_pool AND b.id = p_binding AND b.app_id = p_app;
  SELECT l.* INTO held FROM line AS l WHERE l.pool_id = p_pool AND l.id = own.line_id FOR UPDATE;
  -- A new statement: it sees what was committed before the line was ours.
  SELECT b.* INTO own FROM binding AS b WHERE b.pool_id = p_pool AND b.id = p_binding AND b.app_id = p_app;
  v_now := broker_now();
  v_left := floor(extract(epoch FROM held.expires_at - v_now));
  IF own.id IS NULL OR own.state NOT IN ('pending', 'active') OR held.state NOT IN ('pending', 'active') OR v_left <= 0 THEN
    RETURN QUERY SELECT 'over', NULL::uuid, NULL::uuid, NULL::integer, NULL::text;
    RETURN;
  END IF;
  IF held.state = 'pending' THEN
    RETURN QUERY SELECT 'pending', NULL::uuid, NULL::uuid, NULL::integer, NULL::text;
    RETURN;
  END IF;
  UPDATE peer AS p SET state = 'released', reason = 'expired', ended_at = v_now
  WHERE p.line_id = held.id AND p.b_key = p_b AND p.state = 'active' AND p.expires_at <= v_now;
  SELECT p.* INTO there FROM peer AS p
  WHERE p.line_id = held.id AND p.b_key = p_b AND p.state IN ('pending', 'active', 'releasing');
  IF FOUND THEN
    RETURN QUERY SELECT CASE there.state WHEN 'releasing' THEN 'releasing' ELSE 'there' END, there.id, held.id, NULL::integer,
                        NULL::text;
    RETURN;
  END IF;
  IF (SELECT count(*) FROM peer AS p WHERE p.binding_id = own.id AND p.state IN ('pending', 'active', 'releasing')) >= p_most THEN
    RETURN QUERY SELECT 'limit', NULL::uuid, NULL::uuid, NULL::integer, NULL::text;
    RETURN;
  END IF;
  -- Cut to what the line has left; the platform takes nothing under a minute, and takes all along when the line ends.
  INSERT INTO peer (pool_id, id, app_id, binding_id, line_id, state, b_key, b_sealed, tone, ttl_s, created_at)
  VALUES (p_pool, p_id, p_app, own.id, held.id, 'pending', p_b, p_b_sealed, p_tone,
          CASE WHEN p_ttl >= v_left THEN 0 ELSE p_ttl END, v_now);
  SELECT c.no INTO v_no FROM begin_peer_call(p_pool, held.id, p_lease) AS c WHERE c.peer_id = p_id;
  RETURN QUERY SELECT 'made', p_id, held.id, v_no, held.subscription_id;
END
$$;
COMMENT ON FUNCTION add_peer IS
  'made: the peer is pending, and if no is not null its call (no, token 1) is ours to send; else it waits for the call of the line that is under way. Else nothing was made: there (B has this live peer already), releasing (B''s peer is being taken away), over (the binding), pending (it is not confirmed), limit (p_most live peers).';

CREATE FUNCTION drop_peer(p_app integer, p_pool integer, p_id uuid, p_lease interval)
RETURNS TABLE (line_id uuid, no integer, subscription_id text)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  v_now timestamptz;
  held record;
  own peer%ROWTYPE;
BEGIN
  SELECT p.* INTO own FROM peer AS p WHERE p.pool_id = p_pool AND p.id = p_id AND p.app_id = p_app;
  SELECT l.* INTO held FROM line AS l WHERE l.pool_id = p_pool AND l.id = own.line_id FOR UPDATE;
  v_now := broker_now();
  UPDATE peer AS p
  SET state = CASE
        -- It has waited for its turn only.
        WHEN p.state = 'pending' AND p.call_no IS NULL THEN 'released'
        WHEN p.state = 'active' AND p.expires_at <= v_now THEN 'released'
        ELSE 'releasing' END,
      reason = CASE WHEN p.state = 'active' AND p.expires_at <= v_now THEN 'expired' ELSE 'released' END,
      ended_at = CASE
        WHEN (p.state = 'pending' AND p.call_no IS NULL) OR (p.state = 'active' AND p.expires_at <= v_now) THEN v_now END
  WHERE p.pool_id = p_pool AND p.id = p_id AND p.state IN ('pending', 'active') AND held.id IS NOT NULL;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  RETURN QUERY SELECT held.id, c.no, held.subscription_id FROM begin_peer_call(p_pool, held.id, p_lease) AS c WHERE c.peer_id = p_id;
END
$$;
COMMENT ON FUNCTION drop_peer IS
  'Begins the end of a peer. A row: its call (no, token 1) is ours to send. Else it has ended, or another call of the line is under way and settles it.';

CREATE FUNCTION settle_peer(
  p_pool integer, p_line uuid, p_no integer, p_token integer, p_attempt smallint, p_there boolean, p_y text, p_reason text,
  p_outcome text, p_http smallint, p_code text, p_lease interval
) RETURNS TABLE (line_state text, peer_state text, seen text, no integer, op text)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := broker_now();
  held record;
  v_peer text;
  v_seen text;
  v_next record;
BEGIN
  PERFORM FROM platform_call AS c
  WHERE c.pool_id = p_pool AND c.line_id = p_line AND c.no = p_no AND c.token = p_token AND c.settled_at IS NULL FOR UPDATE;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  SELECT l.* INTO held FROM line AS l WHERE l.pool_id = p_pool AND l.id = p_line FOR UPDATE;
  IF p_there THEN
    SELECT t.seen INTO v_seen FROM take_in_number(p_pool, held.app_id, p_y) AS t;
    IF v_seen = 'foreign' THEN
      RETURN QUERY SELECT held.state, NULL::text, v_seen, NULL::integer, NULL::text;
      RETURN;
    END IF;
  END IF;
  UPDATE platform_call AS c
  SET state = 'settled', settled_at = v_now, attempt = p_attempt, outcome = p_outcome, http = p_http, code = p_code
  WHERE c.pool_id = p_pool AND c.line_id = p_line AND c.no = p_no;
  UPDATE line AS l SET changing = false, calls = CASE WHEN l.state = 'releasing' THEN l.calls + 1 ELSE l.calls END
  WHERE l.pool_id = p_pool AND l.id = p_line;
  -- A peer that is to go while it was made stays as it is: its end is the line's next call.
  UPDATE peer AS p
  SET call_no = NULL,
      state = CASE
        WHEN p_there AND p.state = 'pending' THEN 'active'
        WHEN p_there THEN p.state
        WHEN p.state = 'releasing' THEN 'released'
        ELSE 'failed' END,
      y = coalesce(p_y, p.y),
      reason = CASE WHEN p.state = 'releasing' THEN p.reason WHEN NOT p_there THEN p_reason END,
      confirmed_at = CASE WHEN p_there THEN v_now ELSE p.confirmed_at END,
      expires_at = CASE
        WHEN p_there AND p.ttl_s > 0 THEN least(v_now + p.ttl_s * interval '1 second', held.expires_at)
        WHEN p_there THEN held.expires_at
        ELSE p.expires_at END,
      ended_at = CASE WHEN NOT p_there THEN v_now END
  WHERE p.line_id = p_line AND p.call_no = p_no AND p.state IN ('pending', 'releasing')
  RETURNING p.state INTO v_peer;
  IF held.state = 'releasing' THEN
    INSERT INTO platform_call (pool_id, line_id, no, app_id, op, claimable_at, created_at)
    VALUES (p_pool, p_line, held.calls + 1, held.app_id, 'unbind', clock_timestamp() + p_lease, v_now);
    RETURN QUERY SELECT held.state, v_peer, v_seen, held.calls + 1, 'unbind';
    RETURN;
  END IF;
  SELECT c.* INTO v_next FROM begin_peer_call(p_pool, p_line, p_lease) AS c;
  RETURN QUERY SELECT held.state, v_peer, v_seen, v_next.no, v_next.op;
END
$$;
COMMENT ON FUNCTION settle_peer IS
  'What became of a peer''s call: p_there (B has p_y) or not (for p_reason, if it was to be). Returns the line''s next call (no, op, token 1), ours to send, if there is one: another peer''s, or the unbind of a line released meanwhile. seen foreign: the Y is another app''s, and nothing was changed. No row: the call was not ours any more.';

CREATE FUNCTION end_peers() RETURNS trigger
LANGUAGE plpgsql SET enable_seqscan = off
AS $$
BEGIN
  UPDATE peer AS p
  SET state = CASE p.state WHEN 'pending' THEN 'failed' ELSE 'released' END, reason = 'binding_ended', ended_at = broker_now(),
      call_no = NULL
  WHERE p.line_id = NEW.id AND p.state IN ('pending', 'active', 'releasing');
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION end_peers() IS 'The platform takes all Y along when it ends a line.';
CREATE TRIGGER ended AFTER UPDATE OF state ON line FOR EACH ROW
WHEN (NEW.b_key IS NULL AND NEW.extension = 0 AND NEW.ttl_s > 0 AND NEW.state IN ('released', 'failed')
      AND OLD.state NOT IN ('released', 'failed'))
EXECUTE FUNCTION end_peers();

CREATE FUNCTION note_peers(
  p_app integer, p_pool integer, p_binding uuid, p_id uuid[], p_b bigint[], p_b_sealed bytea[], p_y text[], p_most integer
) RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  v_now timestamptz;
  held record;
  v_foreign text[];
  v_new integer;
BEGIN
  SELECT l.* INTO held FROM line AS l
  WHERE l.pool_id = p_pool
    AND l.id = (SELECT b.line_id FROM binding AS b WHERE b.pool_id = p_pool AND b.id = p_binding AND b.app_id = p_app)
  FOR UPDATE;
  -- While a call is under way, what was found may be what that is about.
  IF NOT FOUND OR held.state <> 'active' OR held.changing THEN
    RETURN 0;
  END IF;
  v_now := broker_now();
  SELECT array_agg(i.y) FILTER (WHERE t.seen = 'foreign') INTO v_foreign
  FROM (SELECT DISTINCT u.y FROM unnest(p_y) AS u (y)) AS i CROSS JOIN LATERAL take_in_number(p_pool, p_app, i.y) AS t;
  INSERT INTO peer (pool_id, id, app_id, binding_id, line_id, state, b_key, b_sealed, y, ttl_s, found, created_at, confirmed_at,
                    expires_at)
  SELECT p_pool, i.id, p_app, p_binding, held.id, 'active', i.b, i.b_sealed, i.y, 0, true, v_now, v_now, held.expires_at
  FROM unnest(p_id, p_b, p_b_sealed, p_y) AS i (id, b, b_sealed, y)
  WHERE (i.y = ANY (v_foreign)) IS NOT TRUE AND NOT EXISTS (
    -- One that ended here a moment ago may be in an answer that is older than that.
    SELECT FROM peer AS p
    WHERE p.line_id = held.id AND p.b_key = i.b AND (p.state IN ('pending', 'active', 'releasing') OR p.y = i.y) OFFSET 0)
    AND (SELECT count(*) FROM peer AS p
         WHERE p.binding_id = p_binding AND p.state IN ('pending', 'active', 'releasing')) < p_most
  ON CONFLICT DO NOTHING;
  GET DIAGNOSTICS v_new = ROW_COUNT;
  RETURN v_new;
END
$$;
COMMENT ON FUNCTION note_peers IS
  'Enters peers that the platform was found to have: it made them by itself when their B dialled X; a Y that is another app''s is left out. Returns how many were new.';

CREATE FUNCTION sweep_peers(p_limit integer) RETURNS bigint
LANGUAGE sql SET enable_seqscan = off
AS $$
  WITH due AS MATERIALIZED (
    SELECT p.pool_id, p.id FROM peer AS p WHERE p.state = 'active' AND p.expires_at <= broker_now()
    ORDER BY p.expires_at LIMIT p_limit FOR UPDATE SKIP LOCKED
  ),
  over AS (
    UPDATE peer AS p SET state = 'released', reason = 'expired', ended_at = broker_now()
    FROM due WHERE p.pool_id = due.pool_id AND p.id = due.id RETURNING 1
  )
  SELECT count(*) FROM over
$$;
COMMENT ON FUNCTION sweep_peers(integer) IS 'Ends a slice of the peers that the platform has ended by itself.';
