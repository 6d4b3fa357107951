-- Calls that keep failing: what was tried, and the state in which nobody tries any more until an operator decides. What
-- such a call holds stays held. And: binds whose client has gone are withdrawn, where an app says so.
--
-- Two constraints are exchanged for wider ones, without reading the rows.
-- squawk-ignore-file ban-drop-constraint

ALTER TABLE platform_call
  DROP CONSTRAINT platform_call_state_check,
  ADD CONSTRAINT platform_call_state_check CHECK (state IN ('open', 'settled', 'dead')) NOT VALID;
COMMENT ON COLUMN platform_call.state IS 'open; settled; dead: it kept failing, and nobody tries it before an operator says so.';

CREATE TABLE failing_call (
  line_id       uuid NOT NULL,
  no            integer NOT NULL,
  pool_id       integer NOT NULL,
  app_id        integer NOT NULL,
  failures      integer NOT NULL,
  crashes       integer NOT NULL,
  failing_since timestamptz NOT NULL,
  noted_at      timestamptz NOT NULL,
  tries         jsonb NOT NULL,
  dead_at       timestamptz,
  reason        text,
  PRIMARY KEY (line_id, no)
) WITH (fillfactor = 50);
COMMENT ON TABLE failing_call IS 'Platform calls that have failed several times though the platform answers others; of those that were settled, for a day.';
COMMENT ON COLUMN failing_call.line_id IS 'Line of the call; unique by itself.';
COMMENT ON COLUMN failing_call.no IS 'Number of the call.';
COMMENT ON COLUMN failing_call.pool_id IS 'Pool of the line.';
COMMENT ON COLUMN failing_call.app_id IS 'App of the line.';
COMMENT ON COLUMN failing_call.failures IS 'Tries that failed while the platform answered others, since failing_since.';
COMMENT ON COLUMN failing_call.crashes IS 'Times that our own code failed on it, since failing_since.';
COMMENT ON COLUMN failing_call.failing_since IS 'The first of these failures, or of those after an operator''s retry.';
COMMENT ON COLUMN failing_call.noted_at IS 'The latest entry of tries.';
COMMENT ON COLUMN failing_call.tries IS 'The latest tries, oldest first: at, what was asked, verdict, http, code, attempt; or what an operator did. No phone numbers.';
COMMENT ON COLUMN failing_call.dead_at IS 'Since when nobody tries it any more; null = it is being tried.';
COMMENT ON COLUMN failing_call.reason IS 'The last verdict before it died, or crashed.';
CREATE INDEX failing_call_dead ON failing_call (app_id, dead_at) WHERE dead_at IS NOT NULL;
CREATE INDEX failing_call_age ON failing_call (noted_at) WHERE dead_at IS NULL;

CREATE FUNCTION latest_tries(p_tries jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT coalesce(jsonb_agg(t.value ORDER BY t.ord), '[]')
  FROM jsonb_array_elements(p_tries) WITH ORDINALITY AS t (value, ord) WHERE t.ord > jsonb_array_length(p_tries) - 30
$$;
COMMENT ON FUNCTION latest_tries(jsonb) IS 'The last 30 entries.';

CREATE FUNCTION note_failures(
  p_pool integer, p_line uuid, p_no integer, p_token integer, p_tries jsonb, p_failing_s double precision,
  p_most integer, p_patience interval
) RETURNS text
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  v_now CONSTANT timestamptz := broker_now();
  v_app integer;
  held failing_call%ROWTYPE;
BEGIN
  SELECT c.app_id INTO v_app FROM platform_call AS c
  WHERE c.pool_id = p_pool AND c.line_id = p_line AND c.no = p_no AND c.token = p_token AND c.settled_at IS NULL
  FOR UPDATE;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  INSERT INTO failing_call AS f (line_id, no, pool_id, app_id, failures, crashes, failing_since, noted_at, tries)
  VALUES (p_line, p_no, p_pool, v_app, jsonb_array_length(p_tries), 0, v_now - make_interval(secs => p_failing_s), v_now, p_tries)
  ON CONFLICT (line_id, no) DO UPDATE
    SET failures = f.failures + excluded.failures, tries = latest_tries(f.tries || excluded.tries), noted_at = v_now,
        failing_since = CASE WHEN f.failures + f.crashes = 0 THEN excluded.failing_since ELSE f.failing_since END
  RETURNING f.* INTO held;
  IF held.failures < p_most OR held.failing_since > v_now - p_patience THEN
    RETURN 'open';
  END IF;
  PERFORM bury_call(p_pool, p_line, p_no, held.tries -> -1 ->> 'verdict');
  RETURN 'dead';
END
$$;
COMMENT ON FUNCTION note_failures IS
  'Notes tries of a call that failed; after p_most of them, over at least p_patience, it is dead. Returns open or dead; null: the call is not ours any more.';

CREATE FUNCTION note_crash(
  p_pool integer, p_line uuid, p_no integer, p_token integer, p_try jsonb, p_most integer, p_pause interval
) RETURNS text
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  v_now CONSTANT timestamptz := broker_now();
  v_app integer;
  held failing_call%ROWTYPE;
BEGIN
  SELECT c.app_id INTO v_app FROM platform_call AS c
  WHERE c.pool_id = p_pool AND c.line_id = p_line AND c.no = p_no AND c.token = p_token AND c.settled_at IS NULL
  FOR UPDATE;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  INSERT INTO failing_call AS f (line_id, no, pool_id, app_id, failures, crashes, failing_since, noted_at, tries)
  VALUES (p_line, p_no, p_pool, v_app, 0, 1, v_now, v_now, jsonb_build_array(p_try))
  ON CONFLICT (line_id, no) DO UPDATE
    SET crashes = f.crashes + 1, tries = latest_tries(f.tries || excluded.tries), noted_at = v_now,
        failing_since = CASE WHEN f.failures + f.crashes = 0 THEN v_now ELSE f.failing_since END
  RETURNING f.* INTO held;
  IF held.crashes >= p_most THEN
    PERFORM bury_call(p_pool, p_line, p_no, 'crashed');
    RETURN 'dead';
  END IF;
  -- Twice as long each time: what our code fails on is not tried hot.
  UPDATE platform_call AS c SET claimable_at = clock_timestamp() + p_pause * 2 ^ (held.crashes - 1)
  WHERE c.pool_id = p_pool AND c.line_id = p_line AND c.no = p_no;
  RETURN 'open';
END
$$;
COMMENT ON FUNCTION note_crash IS
  'Our own code failed on a call: nobody tries it for p_pause, twice as long each time, and after p_most times it is dead. Returns open or dead; null: the call is not ours any more.';

CREATE FUNCTION bury_call(p_pool integer, p_line uuid, p_no integer, p_reason text) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
BEGIN
  -- Another token: whoever had it, frozen perhaps, settles nothing any more.
  UPDATE platform_call AS c SET state = 'dead', token = c.token + 1
  WHERE c.pool_id = p_pool AND c.line_id = p_line AND c.no = p_no;
  UPDATE failing_call AS f SET dead_at = broker_now(), reason = p_reason WHERE f.line_id = p_line AND f.no = p_no;
END
$$;
COMMENT ON FUNCTION bury_call(integer, uuid, integer, text) IS 'A call that is dead from now on; its row is locked by whoever decides that.';

CREATE FUNCTION note_hand(p_line uuid, p_no integer, p_who text, p_what text, p_why text) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
BEGIN
  -- One row for each binding of the line; for the line alone if it has none.
  INSERT INTO audit (at, who, what, pool_id, binding_id, line_id, reason)
  SELECT broker_now(), p_who, p_what, f.pool_id, b.id, f.line_id, p_why
  FROM failing_call AS f
  LEFT JOIN binding AS b ON b.line_id = f.line_id AND b.moves IS NULL AND b.state IN ('pending', 'active', 'releasing')
  WHERE f.line_id = p_line AND f.no = p_no;
  UPDATE failing_call AS f
  SET failures = 0, crashes = 0, dead_at = NULL, reason = NULL, noted_at = broker_now(),
      tries = latest_tries(f.tries || jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
        'at', broker_now(), 'asked', p_what, 'who', p_who, 'why', p_why))))
  WHERE f.line_id = p_line AND f.no = p_no;
END
$$;
COMMENT ON FUNCTION note_hand(uuid, integer, text, text, text) IS 'An operator has a dead call tried again or given up: it is dead no more, and who did it is noted.';

CREATE FUNCTION retry_call(p_app integer, p_line uuid, p_no integer, p_who text) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
BEGIN
  UPDATE platform_call AS c SET state = 'open', token = c.token + 1, claimable_at = clock_timestamp()
  FROM failing_call AS f
  WHERE f.line_id = p_line AND f.no = p_no AND f.app_id = p_app AND c.pool_id = f.pool_id AND c.line_id = p_line
    AND c.no = p_no AND c.state = 'dead';
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  PERFORM note_hand(p_line, p_no, p_who, 'retry_call', NULL);
  RETURN true;
END
$$;
COMMENT ON FUNCTION retry_call(integer, uuid, integer, text) IS
  'A dead call is tried again, by whoever looks for calls without an owner next. False: it is not dead.';

CREATE FUNCTION discard_call(p_app integer, p_line uuid, p_no integer, p_who text, p_why text) RETURNS text
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  v_now CONSTANT timestamptz := broker_now();
  c record;
  l record;
  v_rest interval;
BEGIN
  SELECT p.* INTO c FROM failing_call AS f
  JOIN platform_call AS p ON p.pool_id = f.pool_id AND p.line_id = f.line_id AND p.no = f.no
  WHERE f.line_id = p_line AND f.no = p_no AND f.app_id = p_app AND p.state = 'dead' FOR UPDATE OF p;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  SELECT i.state, i.expires_at, i.ttl_s, a.quarantine_s INTO l
  FROM line AS i JOIN app AS a ON a.id = i.app_id WHERE i.pool_id = c.pool_id AND i.id = c.line_id FOR UPDATE OF i;
  -- As long as the platform may hold what nobody has seen end, and then as long as after every release.
  v_rest := greatest(coalesce(l.expires_at - v_now, CASE WHEN l.ttl_s > 0 THEN l.ttl_s * interval '1 second' ELSE interval '90 days' END),
                     interval '0') + l.quarantine_s * interval '1 second';
  PERFORM note_hand(p_line, p_no, p_who, 'discard_call', p_why);
  CASE
    WHEN c.op IN ('bind', 'unbind') THEN
      PERFORM FROM settle_ended(
        ARRAY[c.pool_id], ARRAY[c.line_id], ARRAY[c.no], ARRAY[c.token], ARRAY[c.attempt],
        ARRAY[CASE c.op WHEN 'bind' THEN 'failed' ELSE 'released' END], ARRAY['discarded'], ARRAY[extract(epoch FROM v_rest)::double precision],
        ARRAY['discarded'], ARRAY[c.http], ARRAY[c.code]);
    WHEN c.op = 'modify' THEN
      PERFORM settle_change(
        c.pool_id, c.line_id, c.no, c.token, c.attempt, CASE WHEN l.state <> 'releasing' THEN false END,
        CASE WHEN l.state <> 'releasing' THEN 'discarded' END, v_rest, v_rest, 'discarded', c.http, c.code, interval '0');
    ELSE
      PERFORM FROM settle_peer(
        c.pool_id, c.line_id, c.no, c.token, c.attempt, false, NULL, 'discarded', 'discarded', c.http, c.code, interval '0');
  END CASE;
  RETURN c.op;
END
$$;
COMMENT ON FUNCTION discard_call(integer, uuid, integer, text, text) IS
  'A dead call is given up without knowing what the platform holds: bind and unbind end the line, a change leaves it as it was. Whom it concerned rests as long as the platform may hold them. Returns its operation; null: it is not dead.';

ALTER TABLE audit
  ADD COLUMN reason text CHECK (length(reason) BETWEEN 1 AND 200),
  DROP CONSTRAINT audit_what_check,
  ADD CONSTRAINT audit_what_check CHECK (what IN ('reveal', 'release', 'recording', 'retry_call', 'discard_call')) NOT VALID;
COMMENT ON COLUMN audit.reason IS 'Why, in the words of whoever did it; where that was asked for.';
COMMENT ON COLUMN audit.what IS
  'reveal: saw the real numbers; release: released it by hand; recording: was given the address of a recording; retry_call, discard_call: had a dead call tried again, or given up.';

ALTER TABLE app ADD COLUMN withdraw_after_s integer CHECK (withdraw_after_s BETWEEN 1 AND 2592000);
COMMENT ON COLUMN app.withdraw_after_s IS 'A binding that is pending so long after it was asked for is withdrawn; null = only at the end of its lifetime.';

CREATE FUNCTION overdue_binds(p_limit integer) RETURNS TABLE (pool_id integer, binding_id uuid, app_id integer)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
BEGIN
  RETURN QUERY
  SELECT b.pool_id, b.id, b.app_id
  FROM (
    SELECT c.line_id, c.app_id FROM platform_call AS c WHERE c.state = 'open' AND c.op = 'bind'
    UNION ALL
    SELECT f.line_id, f.app_id FROM failing_call AS f WHERE f.dead_at IS NOT NULL
  ) AS c
  JOIN app AS a ON a.id = c.app_id
  JOIN binding AS b ON b.line_id = c.line_id
  WHERE a.withdraw_after_s IS NOT NULL AND b.moves IS NULL AND b.state = 'pending'
    AND b.created_at <= broker_now() - a.withdraw_after_s * interval '1 second'
  LIMIT p_limit;
END
$$;
COMMENT ON FUNCTION overdue_binds(integer) IS 'Pending bindings whose clients have gone, by the policies of their apps.';
