-- Drift: what the platform holds and our books do not say, or the other way round. Runs of the comparison, what they
-- found, and what each app's operator wants made of it.

CREATE TABLE drift_policy (
  app_id    integer PRIMARY KEY REFERENCES app (id),
  unknown   text NOT NULL DEFAULT 'report' CHECK (unknown IN ('report', 'unbind', 'adopt')),
  absent    text NOT NULL DEFAULT 'rebind' CHECK (absent IN ('report', 'rebind', 'end')),
  differing text NOT NULL DEFAULT 'repair' CHECK (differing IN ('report', 'repair')),
  caller_id integer REFERENCES caller (id),
  every_s   integer NOT NULL DEFAULT 3600 CHECK (every_s = 0 OR every_s BETWEEN 1 AND 2592000),
  gated     boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE drift_policy IS 'What is made of differences between the platform and our books. An app without a row has the defaults.';
COMMENT ON COLUMN drift_policy.app_id IS 'The app.';
COMMENT ON COLUMN drift_policy.unknown IS 'Bound there, unknown here. report: and keep its parties from that X; unbind; adopt: enter it into our books.';
COMMENT ON COLUMN drift_policy.absent IS 'Live here, absent there. report; rebind: bind the line anew; end: end its bindings.';
COMMENT ON COLUMN drift_policy.differing IS 'Other parties, lifetime or direction there than here. report; repair: tell the platform again what we have.';
COMMENT ON COLUMN drift_policy.caller_id IS 'Whose bindings adopted lines become; null = the app''s first caller.';
COMMENT ON COLUMN drift_policy.every_s IS 'A run begins this long after the last one began; 0 = only when asked.';
COMMENT ON COLUMN drift_policy.gated IS 'Nothing is allocated until a run has come to its end: the books come from a backup.';
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON drift_policy
  FOR EACH STATEMENT EXECUTE FUNCTION bump_config_version();

CREATE TABLE drift_run (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  app_id      integer NOT NULL REFERENCES app (id),
  why         text NOT NULL CHECK (why IN ('periodic', 'asked', 'restore', 'import')),
  state       text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'done')),
  owner       uuid,
  lease_until timestamptz NOT NULL DEFAULT '-infinity',
  at_pool     integer NOT NULL DEFAULT 0,
  at_x        integer NOT NULL DEFAULT 0,
  at_extension integer NOT NULL DEFAULT 0,
  steps       integer NOT NULL DEFAULT 0,
  steps_done  integer NOT NULL DEFAULT 0,
  calls       integer NOT NULL DEFAULT 0,
  compared    integer NOT NULL DEFAULT 0,
  found       integer NOT NULL DEFAULT 0,
  adopted     integer NOT NULL DEFAULT 0,
  started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended_at    timestamptz
);
COMMENT ON TABLE drift_run IS 'One comparison of an app''s lines with the platform, or one import. At most one is open per app.';
COMMENT ON COLUMN drift_run.id IS 'Rises; also says which slice of the free extensions the run looks at.';
COMMENT ON COLUMN drift_run.app_id IS 'The app.';
COMMENT ON COLUMN drift_run.why IS 'periodic, asked (by an operator), restore (it opens the gate), import (by a command; no instance takes it).';
COMMENT ON COLUMN drift_run.state IS 'open until everything has been looked at.';
COMMENT ON COLUMN drift_run.owner IS 'The process that works on it until lease_until.';
COMMENT ON COLUMN drift_run.lease_until IS 'From then on another process may go on with it.';
COMMENT ON COLUMN drift_run.at_pool IS 'Where it has got to: everything up to this place has been looked at.';
COMMENT ON COLUMN drift_run.at_x IS 'See at_pool.';
COMMENT ON COLUMN drift_run.at_extension IS 'See at_pool.';
COMMENT ON COLUMN drift_run.steps IS 'Places to look at, as counted at its begin.';
COMMENT ON COLUMN drift_run.steps_done IS 'Places looked at.';
COMMENT ON COLUMN drift_run.calls IS 'Platform calls made for it.';
COMMENT ON COLUMN drift_run.compared IS 'Bindings that the platform showed.';
COMMENT ON COLUMN drift_run.found IS 'Differences that stood a second look.';
COMMENT ON COLUMN drift_run.adopted IS 'Bindings entered into our books.';
COMMENT ON COLUMN drift_run.started_at IS 'When it began.';
COMMENT ON COLUMN drift_run.ended_at IS 'When it came to its end.';
CREATE UNIQUE INDEX drift_run_open ON drift_run (app_id) WHERE state = 'open';
CREATE INDEX drift_run_app ON drift_run (app_id, id);

CREATE TABLE drift (
  app_id          integer NOT NULL REFERENCES app (id),
  kind            text NOT NULL CHECK (kind IN
                    ('unknown_here', 'absent_there', 'parties_differ', 'expiry_differs', 'direction_differs')),
  subscription_id text NOT NULL,
  pool_id         integer NOT NULL,
  x_id            integer NOT NULL,
  extension       smallint,
  line_id         uuid,
  ours            boolean NOT NULL,
  action          text NOT NULL,
  first_run       bigint NOT NULL,
  last_run        bigint NOT NULL,
  first_seen_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  last_seen_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  resolved_at     timestamptz,
  PRIMARY KEY (app_id, kind, subscription_id)
);
COMMENT ON TABLE drift IS 'Differences found. One that is seen no more is resolved; one that comes back is open again.';
COMMENT ON COLUMN drift.app_id IS 'The app.';
COMMENT ON COLUMN drift.kind IS 'What differs.';
COMMENT ON COLUMN drift.subscription_id IS 'The platform''s id of the binding.';
COMMENT ON COLUMN drift.pool_id IS 'Pool of the X.';
COMMENT ON COLUMN drift.x_id IS 'The X.';
COMMENT ON COLUMN drift.extension IS 'The extension; null where an X has none.';
COMMENT ON COLUMN drift.line_id IS 'Our line; null = we have none.';
COMMENT ON COLUMN drift.ours IS 'The platform''s binding carries our mark: it was made by us once.';
COMMENT ON COLUMN drift.action IS 'What was done last: reported, barred, unbound, adopted, rebinding, ending, repairing, failed.';
COMMENT ON COLUMN drift.first_run IS 'The run that found it first since it was last resolved.';
COMMENT ON COLUMN drift.last_run IS 'The run that saw it last.';
COMMENT ON COLUMN drift.first_seen_at IS 'When first_run found it.';
COMMENT ON COLUMN drift.last_seen_at IS 'When last_run saw it.';
COMMENT ON COLUMN drift.resolved_at IS 'When a run found it gone; null = open.';
CREATE INDEX drift_open ON drift (pool_id, x_id) WHERE resolved_at IS NULL;

ALTER TABLE line ADD COLUMN adopted_at timestamptz;
COMMENT ON COLUMN line.adopted_at IS
  'When it was entered as the platform had it. Since when its lifetime runs is not known: what the platform lets go has ended.';

CREATE FUNCTION drift_line_end(p_mode text, p_pool integer, p_line uuid) RETURNS integer
LANGUAGE sql STABLE
AS $$
  SELECT CASE WHEN bool_or(b.ttl_s = 0) THEN 0
    ELSE platform_ttl(p_mode, greatest(ceil(extract(epoch FROM max(b.expires_at) - broker_now())), 1)::integer) END
  FROM binding AS b WHERE b.line_id = p_line AND b.pool_id = p_pool AND b.state = 'active'
$$;
COMMENT ON FUNCTION drift_line_end(text, integer, uuid) IS 'The lifetime that the platform is told of a line now, by its bindings; null = it has none.';

CREATE FUNCTION repair_line(p_pool integer, p_line uuid, p_subscription text, p_calls integer, p_kinds text[]) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  held record;
  v_ttl integer;
  v_wanted jsonb := '{}';
BEGIN
  SELECT l.*, a.mode INTO held FROM line AS l JOIN app AS a ON a.id = l.app_id
  WHERE l.pool_id = p_pool AND l.id = p_line FOR UPDATE OF l;
  IF held.state IS DISTINCT FROM 'active' OR held.changing OR held.subscription_id IS DISTINCT FROM p_subscription
    OR held.calls <> coalesce(p_calls, held.calls) THEN
    RETURN false;
  END IF;
  v_ttl := drift_line_end(held.mode, p_pool, p_line);
  IF v_ttl IS NULL THEN
    RETURN false;
  END IF;
  IF 'absent_there' = ANY (p_kinds) THEN
    v_wanted := jsonb_build_object('anew', true);
  END IF;
  IF p_kinds && ARRAY['absent_there', 'expiry_differs'] OR (held.mode = 'axe' AND 'parties_differ' = ANY (p_kinds)) THEN
    v_wanted := v_wanted || jsonb_build_object('ttl_s', v_ttl);
  END IF;
  IF 'parties_differ' = ANY (p_kinds) THEN
    v_wanted := v_wanted || jsonb_build_object('a', jsonb_build_object(
      'key', held.a_key, 'sealed', translate(encode(held.a_sealed, 'base64'), E'\n', '')));
    IF held.b_key IS NOT NULL THEN
      v_wanted := v_wanted || jsonb_build_object('b', jsonb_build_object(
        'key', held.b_key, 'sealed', translate(encode(held.b_sealed, 'base64'), E'\n', '')));
    END IF;
  END IF;
  IF 'direction_differs' = ANY (p_kinds) THEN
    v_wanted := v_wanted || jsonb_build_object('direction', held.direction);
  END IF;
  UPDATE line AS l SET changing = true, calls = l.calls + 1 WHERE l.pool_id = p_pool AND l.id = p_line;
  INSERT INTO platform_call (pool_id, line_id, no, app_id, op, token, claimable_at, created_at, wanted)
  VALUES (p_pool, p_line, held.calls + 1, held.app_id, 'modify', 0, clock_timestamp(), broker_now(), v_wanted);
  RETURN true;
END
$$;
COMMENT ON FUNCTION repair_line IS
  'Begins a modify (nobody''s yet: whoever looks for calls next takes it) that makes the platform hold what our books say; absent_there: by binding the line anew. False: the line is another one by now, or is changing.';

CREATE FUNCTION end_lost(p_pool integer, p_line uuid, p_subscription text, p_calls integer) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  held record;
  v_ids uuid[];
BEGIN
  SELECT l.* INTO held FROM line AS l WHERE l.pool_id = p_pool AND l.id = p_line FOR UPDATE;
  IF held.state IS DISTINCT FROM 'active' OR held.changing OR held.subscription_id IS DISTINCT FROM p_subscription
    OR held.calls <> p_calls THEN
    RETURN false;
  END IF;
  SELECT array_agg(b.id) INTO v_ids FROM binding AS b WHERE b.line_id = p_line AND b.state IN ('pending', 'active');
  IF v_ids IS NULL THEN
    RETURN false;
  END IF;
  -- By an unbind, which the platform answers with 'not found': should it be there after all, it ends now.
  RETURN EXISTS (SELECT FROM release_bindings(
    array_fill(p_pool, ARRAY[cardinality(v_ids)]), v_ids, array_fill(held.app_id, ARRAY[cardinality(v_ids)]),
    CASE WHEN held.adopted_at IS NULL THEN 'platform_lost' ELSE 'expired' END, interval '0'));
END
$$;
COMMENT ON FUNCTION end_lost IS 'Ends the bindings of a line that the platform does not hold any more. False: the line is another one by now, or is changing.';

CREATE FUNCTION bar_stranger(p_pool integer, p_x integer, p_extension smallint, p_a bigint, p_b bigint, p_bar interval) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  v_until CONSTANT timestamptz := broker_now() + p_bar;
BEGIN
  IF p_extension IS NOT NULL THEN
    UPDATE place AS h SET until = greatest(h.until, v_until), party_key = NULL
    WHERE h.pool_id = p_pool AND h.x_id = p_x AND h.extension = p_extension AND h.until <> 'infinity';
    RETURN;
  END IF;
  -- With oneself as counterpart: barred with everybody.
  INSERT INTO slot (pool_id, x_id, party_key, counterpart_key, until, line_id)
  SELECT p_pool, p_x, v.party_key, v.party_key, v_until, '00000000-0000-0000-0000-000000000000'
  FROM (SELECT DISTINCT u.party_key FROM (VALUES (p_a), (p_b)) AS u (party_key) WHERE u.party_key IS NOT NULL) AS v
  ORDER BY v.party_key
  ON CONFLICT (pool_id, party_key, x_id) DO UPDATE
    SET until = greatest(slot.until, excluded.until), counterpart_key = slot.party_key
    WHERE slot.until <> 'infinity';
END
$$;
COMMENT ON FUNCTION bar_stranger IS
  'Keeps the parties of a binding that we do not know from its X (or its place from everybody) for p_bar: the platform would refuse them, and a stranger may be behind it.';

CREATE FUNCTION adopt_lines(
  p_app integer, p_caller integer, p_pool integer[], p_x integer[], p_extension smallint[], p_line uuid[], p_binding uuid[],
  p_a bigint[], p_b bigint[], p_a_sealed bytea[], p_b_sealed bytea[], p_direction text[], p_ttl integer[],
  p_subscription text[], p_user_data text[]
) RETURNS TABLE (ord integer, adopted boolean)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := broker_now();
  v_seat integer;
  v_rows integer;
BEGIN
  FOR n IN 1 .. cardinality(p_pool) LOOP
    BEGIN
      SELECT coalesce(max(l.seat) + 1, 0) INTO v_seat FROM line AS l
      WHERE l.x_key = p_pool[n]::bigint * 100000 + p_x[n] AND l.seat IS NOT NULL;
      IF p_extension[n] IS NOT NULL THEN
        v_seat := p_extension[n];
        INSERT INTO place (pool_id, x_id, extension, until, line_id, party_key, in_use)
        VALUES (p_pool[n], p_x[n], p_extension[n], 'infinity', p_line[n], p_a[n], false)
        ON CONFLICT (pool_id, x_id, extension) DO UPDATE
          SET until = 'infinity', line_id = excluded.line_id, party_key = excluded.party_key, rests_until = NULL
          WHERE place.until <> 'infinity';
        GET DIAGNOSTICS v_rows = ROW_COUNT;
      ELSE
        INSERT INTO slot (pool_id, x_id, party_key, counterpart_key, until, line_id)
        SELECT p_pool[n], p_x[n], v.own, v.other, 'infinity', p_line[n]
        FROM (VALUES (p_a[n], p_b[n]), (p_b[n], p_a[n])) AS v (own, other) ORDER BY v.own
        ON CONFLICT (pool_id, party_key, x_id) DO UPDATE
          SET counterpart_key = excluded.counterpart_key, until = excluded.until, line_id = excluded.line_id, rests_until = NULL
          WHERE slot.until <> 'infinity';
        GET DIAGNOSTICS v_rows = ROW_COUNT;
        v_rows := v_rows / 2;
      END IF;
      IF v_rows = 0 THEN
        RAISE EXCEPTION 'taken' USING ERRCODE = 'BB004';
      END IF;
      INSERT INTO line (pool_id, id, app_id, x_id, extension, seat, state, direction, calls, ttl_s, joinable, a_key, b_key,
                        sweep_at, confirmed_at, expires_at, a_sealed, b_sealed, subscription_id, adopted_at)
      VALUES (p_pool[n], p_line[n], p_app, p_x[n], p_extension[n], v_seat, 'active', p_direction[n], 0, p_ttl[n], false,
              p_a[n], p_b[n], v_now + nullif(p_ttl[n], 0) * interval '1 second', v_now,
              v_now + nullif(p_ttl[n], 0) * interval '1 second', p_a_sealed[n], p_b_sealed[n], p_subscription[n], v_now);
      INSERT INTO binding (pool_id, id, app_id, caller_id, line_id, state, ttl_s, created_at, expires_at, chosen, user_data)
      VALUES (p_pool[n], p_binding[n], p_app, p_caller, p_line[n], 'active', p_ttl[n], v_now,
              v_now + nullif(p_ttl[n], 0) * interval '1 second', 'adopted', p_user_data[n]);
      RETURN QUERY SELECT n, true;
    EXCEPTION WHEN unique_violation OR SQLSTATE 'BB004' THEN
      RETURN QUERY SELECT n, false;
    END;
  END LOOP;
END
$$;
COMMENT ON FUNCTION adopt_lines IS
  'Enters bindings of the platform into our books, each as a line with one binding, active from now on. Not adopted: somebody of ours is behind that X (or place) already.';
