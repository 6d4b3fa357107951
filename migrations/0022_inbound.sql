-- What order systems may ask of us: requests a second and live bindings, of a caller and of an app.
--
-- Constraints of new columns check rows of configuration only: as many as there are apps.
-- squawk-ignore-file constraint-missing-not-valid

ALTER TABLE app
  ADD COLUMN requests_per_s double precision CHECK (requests_per_s > 0 AND requests_per_s <= 100000),
  ADD COLUMN max_live_bindings integer CHECK (max_live_bindings >= 1);
COMMENT ON COLUMN app.requests_per_s IS 'Requests a second that all callers of the app together may send; null = no limit.';
COMMENT ON COLUMN app.max_live_bindings IS 'Live bindings that all callers of the app together may have at a time; null = no limit.';

-- Losing this table in a crash is harmless: a quota without a row is full.
CREATE UNLOGGED TABLE request_quota (
  whose    text NOT NULL CHECK (whose IN ('app', 'caller')),
  owner_id integer NOT NULL,
  full_at  timestamptz NOT NULL,
  PRIMARY KEY (whose, owner_id)
) WITH (fillfactor = 20);
COMMENT ON TABLE request_quota IS 'GCRA state of who has a limit of requests a second.';
COMMENT ON COLUMN request_quota.whose IS 'app or caller.';
COMMENT ON COLUMN request_quota.owner_id IS 'Its id.';
COMMENT ON COLUMN request_quota.full_at IS 'When the whole burst is there again, if nothing is asked until then.';

CREATE FUNCTION take_requests(p_whose text[], p_owner integer[], p_cost integer[], p_more integer[],
                              p_rate double precision[], p_burst integer[])
RETURNS TABLE (ord integer, granted integer, remaining integer, wait_s double precision)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
  v_now timestamptz;
  v_full timestamptz;
  v_free double precision;
  v_need integer;
  v_take integer;
  i record;
BEGIN
  -- In the order of the key, so that two instances never wait for each other in a circle.
  FOR i IN
    SELECT u.* FROM unnest(p_whose, p_owner, p_cost, p_more, p_rate, p_burst)
      WITH ORDINALITY AS u (whose, owner_id, cost, more, rate, burst, ord)
    ORDER BY u.whose, u.owner_id, u.ord
  LOOP
    INSERT INTO request_quota AS q (whose, owner_id, full_at) VALUES (i.whose, i.owner_id, '-infinity') ON CONFLICT DO NOTHING;
    SELECT q.full_at INTO v_full FROM request_quota AS q WHERE q.whose = i.whose AND q.owner_id = i.owner_id FOR UPDATE;
    v_now := clock_timestamp();
    -- A clock set back or another rate must not stop anybody for longer than the largest batch explains.
    v_full := least(greatest(v_full, v_now), v_now + make_interval(secs => (i.burst + 2000) / i.rate));
    v_free := i.burst - extract(epoch FROM v_full - v_now)::double precision * i.rate;
    v_need := least(i.cost, i.burst);
    IF v_free + 1e-6 < v_need THEN
      ord := i.ord; granted := 0; remaining := greatest(floor(v_free), 0); wait_s := (v_need - v_free) / i.rate;
    ELSE
      -- A slice ahead: at most an eighth of what is left, so near the limit nothing but what is asked for.
      v_take := i.cost + greatest(least(i.more, floor((v_free - i.cost) / 8)::integer), 0);
      UPDATE request_quota AS q SET full_at = v_full + make_interval(secs => v_take / i.rate)
      WHERE q.whose = i.whose AND q.owner_id = i.owner_id;
      ord := i.ord; granted := v_take; remaining := greatest(floor(v_free - v_take), 0); wait_s := 0;
    END IF;
    RETURN NEXT;
  END LOOP;
END
$$;
COMMENT ON FUNCTION take_requests IS
  'GCRA: grants each item its cost and up to p_more beside it, or nothing (granted 0) and how long to wait. What costs more than the burst needs the whole burst and is charged in full.';

CREATE TABLE live_limit (
  whose      text NOT NULL CHECK (whose IN ('app', 'caller')),
  owner_id   integer NOT NULL,
  held       integer NOT NULL DEFAULT 0,
  looked_at  timestamptz NOT NULL DEFAULT '-infinity',
  scan_pool  integer NOT NULL DEFAULT 0,
  scan_id    uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
  scan_after timestamptz NOT NULL DEFAULT '-infinity',
  scans      integer NOT NULL DEFAULT 0,
  PRIMARY KEY (whose, owner_id)
) WITH (fillfactor = 20);
COMMENT ON TABLE live_limit IS 'Who has a limit of live bindings: how many claims are held, and how far existing bindings have been counted in.';
COMMENT ON COLUMN live_limit.whose IS 'app or caller.';
COMMENT ON COLUMN live_limit.owner_id IS 'Its id.';
COMMENT ON COLUMN live_limit.held IS 'Rows of live_claim; changed with them in one transaction.';
COMMENT ON COLUMN live_limit.looked_at IS 'When claims of bindings that have ended were last dropped.';
COMMENT ON COLUMN live_limit.scan_pool IS 'Pool of the last binding that was looked at.';
COMMENT ON COLUMN live_limit.scan_id IS 'The last binding that was looked at.';
COMMENT ON COLUMN live_limit.scan_after IS 'When the next walk through the bindings may begin.';
COMMENT ON COLUMN live_limit.scans IS 'Walks that have come to their end.';

CREATE TABLE live_claim (
  whose      text NOT NULL,
  owner_id   integer NOT NULL,
  binding_id uuid NOT NULL,
  pools      integer[] NOT NULL,
  claimed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (whose, owner_id, binding_id),
  FOREIGN KEY (whose, owner_id) REFERENCES live_limit (whose, owner_id) ON DELETE CASCADE
);
COMMENT ON TABLE live_claim IS 'A binding that counts against a limit: written before it is made, dropped when it is seen to have ended.';
COMMENT ON COLUMN live_claim.whose IS 'app or caller.';
COMMENT ON COLUMN live_claim.owner_id IS 'Its id.';
COMMENT ON COLUMN live_claim.binding_id IS 'The binding, or what is to be one.';
COMMENT ON COLUMN live_claim.pools IS 'Where the binding may be.';
COMMENT ON COLUMN live_claim.claimed_at IS 'A claim without a binding is dropped two minutes later.';

CREATE FUNCTION forget_live_limit() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
  DELETE FROM live_limit AS l WHERE l.whose = TG_TABLE_NAME AND l.owner_id = NEW.id;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION forget_live_limit() IS 'Without a limit nothing is counted: a new one begins by counting anew.';
CREATE TRIGGER forget_live_limit AFTER UPDATE OF max_live_bindings ON app FOR EACH ROW
  WHEN ((OLD.max_live_bindings IS NULL) <> (NEW.max_live_bindings IS NULL)) EXECUTE FUNCTION forget_live_limit();
CREATE TRIGGER forget_live_limit AFTER UPDATE OF max_live_bindings ON caller FOR EACH ROW
  WHEN ((OLD.max_live_bindings IS NULL) <> (NEW.max_live_bindings IS NULL)) EXECUTE FUNCTION forget_live_limit();

CREATE FUNCTION drop_ended_claims(p_whose text, p_owner integer) RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  v_gone integer;
BEGIN
  DELETE FROM live_claim AS c
  WHERE c.whose = p_whose AND c.owner_id = p_owner AND NOT EXISTS (
      SELECT FROM binding AS b WHERE b.pool_id = ANY (c.pools) AND b.id = c.binding_id
        AND b.state IN ('pending', 'active', 'releasing'))
    AND (c.claimed_at < clock_timestamp() - interval '2 minutes' OR EXISTS (
      SELECT FROM binding AS b WHERE b.pool_id = ANY (c.pools) AND b.id = c.binding_id));
  GET DIAGNOSTICS v_gone = ROW_COUNT;
  UPDATE live_limit AS l SET held = l.held - v_gone, looked_at = clock_timestamp()
  WHERE l.whose = p_whose AND l.owner_id = p_owner;
  RETURN v_gone;
END
$$;
COMMENT ON FUNCTION drop_ended_claims(text, integer) IS 'Drops the claims of bindings that have ended; the caller holds the row of live_limit.';

CREATE FUNCTION claim_live(p_whose text[], p_owner integer[], p_most integer[], p_binding uuid[], p_pools text[])
RETURNS TABLE (ord integer)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
  i record;
  v_held integer;
  v_looked timestamptz;
  v_refused uuid[] := '{}';
  v_taken boolean;
BEGIN
  FOR i IN
    SELECT u.* FROM unnest(p_whose, p_owner, p_most, p_binding, p_pools)
      WITH ORDINALITY AS u (whose, owner_id, most, binding_id, pools, ord)
    ORDER BY u.whose, u.owner_id, u.ord
  LOOP
    -- The app's limit comes first: who is refused there takes nothing of the caller's.
    CONTINUE WHEN i.binding_id = ANY (v_refused);
    INSERT INTO live_limit AS l (whose, owner_id) VALUES (i.whose, i.owner_id) ON CONFLICT DO NOTHING;
    SELECT l.held, l.looked_at INTO v_held, v_looked FROM live_limit AS l
    WHERE l.whose = i.whose AND l.owner_id = i.owner_id FOR UPDATE;
    -- Looking costs as much as there are claims: a large limit is looked through at most every few seconds.
    IF v_held >= i.most AND v_looked < clock_timestamp() - make_interval(secs => v_held / 20000.0) THEN
      v_held := v_held - drop_ended_claims(i.whose, i.owner_id);
    END IF;
    IF v_held >= i.most THEN
      v_refused := v_refused || i.binding_id;
      ord := i.ord;
      RETURN NEXT;
    ELSE
      INSERT INTO live_claim AS c (whose, owner_id, binding_id, pools)
      VALUES (i.whose, i.owner_id, i.binding_id, i.pools::integer[]) ON CONFLICT DO NOTHING;
      UPDATE live_limit AS l SET held = l.held + 1 WHERE l.whose = i.whose AND l.owner_id = i.owner_id AND FOUND;
    END IF;
  END LOOP;
  IF v_refused <> '{}' THEN
    PERFORM drop_claims(array_agg(u.whose), array_agg(u.owner_id), array_agg(u.binding_id))
    FROM unnest(p_whose, p_owner, p_binding) AS u (whose, owner_id, binding_id) WHERE u.binding_id = ANY (v_refused);
  END IF;
END
$$;
COMMENT ON FUNCTION claim_live IS 'Counts bindings that are about to be made; returns the items whose limit is reached. A binding that one of its limits refuses counts against none.';

CREATE FUNCTION drop_claims(p_whose text[], p_owner integer[], p_binding uuid[]) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
  PERFORM FROM live_limit AS l
  JOIN (SELECT DISTINCT u.whose, u.owner_id FROM unnest(p_whose, p_owner) AS u (whose, owner_id)) AS u
    ON l.whose = u.whose AND l.owner_id = u.owner_id
  ORDER BY l.whose, l.owner_id FOR UPDATE OF l;
  WITH gone AS (
    DELETE FROM live_claim AS c USING unnest(p_whose, p_owner, p_binding) AS u (whose, owner_id, binding_id)
    WHERE c.whose = u.whose AND c.owner_id = u.owner_id AND c.binding_id = u.binding_id
    RETURNING c.whose, c.owner_id
  )
  UPDATE live_limit AS l SET held = l.held - g.number
  FROM (SELECT gone.whose, gone.owner_id, count(*)::integer AS number FROM gone GROUP BY gone.whose, gone.owner_id) AS g
  WHERE l.whose = g.whose AND l.owner_id = g.owner_id;
END
$$;
COMMENT ON FUNCTION drop_claims IS 'Takes claims back of which no binding came.';

CREATE FUNCTION count_live(p_limit integer) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  v_due live_limit;
  v_app integer;
  v_pool integer;
  v_id uuid;
  v_seen integer;
  v_new integer;
BEGIN
  INSERT INTO live_limit (whose, owner_id)
  SELECT w.whose, w.id FROM (
    SELECT 'app' AS whose, a.id FROM app AS a WHERE a.max_live_bindings IS NOT NULL
    UNION ALL SELECT 'caller', c.id FROM caller AS c WHERE c.max_live_bindings IS NOT NULL) AS w
  WHERE NOT EXISTS (SELECT FROM live_limit AS l WHERE l.whose = w.whose AND l.owner_id = w.id)
  ORDER BY w.whose, w.id ON CONFLICT DO NOTHING;
  SELECT l.* INTO v_due FROM live_limit AS l WHERE l.scan_after <= clock_timestamp()
  ORDER BY l.scan_after LIMIT 1 FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  IF v_due.whose = 'app' THEN
    v_app := v_due.owner_id;
  ELSE
    SELECT c.app_id INTO v_app FROM caller AS c WHERE c.id = v_due.owner_id;
  END IF;
  SELECT min(p.id) INTO v_pool FROM pool AS p WHERE p.app_id = v_app AND p.id >= v_due.scan_pool;
  IF v_pool IS NULL THEN
    -- Through. An instance that did not know of the limit yet may have bound meanwhile: look again after a minute.
    PERFORM drop_ended_claims(v_due.whose, v_due.owner_id);
    UPDATE live_limit AS l
    SET scan_pool = 0, scan_id = '00000000-0000-0000-0000-000000000000', scans = l.scans + 1,
        scan_after = clock_timestamp() + CASE WHEN l.scans = 0 THEN interval '1 minute' ELSE interval '1 hour' END
    WHERE l.whose = v_due.whose AND l.owner_id = v_due.owner_id;
    RETURN true;
  END IF;
  v_id := CASE WHEN v_pool = v_due.scan_pool THEN v_due.scan_id ELSE '00000000-0000-0000-0000-000000000000' END;
  WITH seen AS MATERIALIZED (
    SELECT b.id, b.app_id, b.caller_id, b.state, b.moves FROM binding AS b
    WHERE b.pool_id = v_pool AND b.id > v_id ORDER BY b.id LIMIT p_limit
  ), entered AS (
    -- A row that holds a line for a binding that moves is no order's.
    INSERT INTO live_claim AS c (whose, owner_id, binding_id, pools)
    SELECT v_due.whose, v_due.owner_id, s.id, ARRAY[v_pool] FROM seen AS s
    WHERE s.state IN ('pending', 'active', 'releasing') AND s.moves IS NULL
      AND CASE v_due.whose WHEN 'app' THEN s.app_id ELSE s.caller_id END = v_due.owner_id
    ON CONFLICT DO NOTHING RETURNING 1
  )
  SELECT (SELECT s.id FROM seen AS s ORDER BY s.id DESC LIMIT 1), (SELECT count(*) FROM seen), (SELECT count(*) FROM entered)
  INTO v_id, v_seen, v_new;
  UPDATE live_limit AS l
  SET held = l.held + v_new, scan_pool = CASE WHEN v_seen < p_limit THEN v_pool + 1 ELSE v_pool END,
      scan_id = CASE WHEN v_seen < p_limit THEN '00000000-0000-0000-0000-000000000000' ELSE v_id END
  WHERE l.whose = v_due.whose AND l.owner_id = v_due.owner_id;
  RETURN true;
END
$$;
COMMENT ON FUNCTION count_live(integer) IS 'Counts a slice of existing bindings in where a limit is new, and once an hour everywhere; false: nothing is due.';
