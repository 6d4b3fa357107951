-- Learned from calls: how long people go on dialling an X after their binding, and whose calls never get through.
-- docs/decisions/0022-learned-from-calls.md says why in this way.
--
-- Constraints of new columns check rows of configuration only: as many as there are apps.
-- squawk-ignore-file constraint-missing-not-valid

ALTER TABLE app
  ADD COLUMN sample_share double precision NOT NULL DEFAULT 0.01 CHECK (sample_share BETWEEN 0 AND 0.1),
  ADD COLUMN sample_factor integer NOT NULL DEFAULT 7 CHECK (sample_factor BETWEEN 2 AND 100),
  ADD COLUMN unreachable_after integer NOT NULL DEFAULT 3 CHECK (unreachable_after BETWEEN 0 AND 100);
COMMENT ON COLUMN app.sample_share IS 'Share of released lines whose slots or place rest longer, so that late calls of their parties are seen; 0 = none.';
COMMENT ON COLUMN app.sample_factor IS 'So many times quarantine_s they rest.';
COMMENT ON COLUMN app.unreachable_after IS 'After so many intercepted calls of a party within a day, and no other ones, party.unreachable is told; 0 = never.';

CREATE TABLE cooldown (
  pool_id  integer NOT NULL,
  day      date NOT NULL,
  rest_s   integer NOT NULL,
  share    double precision NOT NULL,
  releases bigint NOT NULL,
  calls    bigint[] NOT NULL CHECK (cardinality(calls) = 40),
  PRIMARY KEY (pool_id, day, rest_s, share)
);
COMMENT ON TABLE cooldown IS 'Calls to an X that nobody is behind any more for this caller, by the day of the release and the time since: a row for each day, not for each call.';
COMMENT ON COLUMN cooldown.pool_id IS 'Pool of the X.';
COMMENT ON COLUMN cooldown.day IS 'Day (UTC) on which the caller''s last binding on the X ended.';
COMMENT ON COLUMN cooldown.rest_s IS 'How long the sample of that day rests; outside the sample 0.';
COMMENT ON COLUMN cooldown.share IS 'Share of lines that were in the sample; 0 = those outside it, whose late calls are hidden once their slots are used again.';
COMMENT ON COLUMN cooldown.releases IS 'Lines in the sample that ended on that day; outside it they are not counted.';
COMMENT ON COLUMN cooldown.calls IS 'Calls by age: element n + 1 from 60 s * 2^(n/2) on, the first one from 0 s on.';

CREATE FUNCTION sample_place(p_line uuid) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT (uuid_hash_extended(p_line, 8014) & 1048575)::double precision / 1048576 $$;
COMMENT ON FUNCTION sample_place(uuid) IS 'Where a line stands between 0 and 1: below the app''s share it is in the sample. The same for ever, and whoever asks.';

CREATE FUNCTION sample_rest() RETURNS trigger
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  v_app app;
  v_rest_s integer;
  v_until timestamptz;
BEGIN
  SELECT a.* INTO v_app FROM app AS a WHERE a.id = NEW.app_id;
  -- Rests of less than a minute are those of tests: nobody dials that fast.
  IF v_app.shadow OR v_app.quarantine_s < 60 OR sample_place(NEW.line_id) >= v_app.sample_share THEN
    RETURN NULL;
  END IF;
  v_rest_s := least(v_app.quarantine_s::bigint * v_app.sample_factor, 31536000);
  v_until := broker_now() + v_rest_s * interval '1 second';
  -- What the platform refused is barred, with everybody; it does not rest.
  IF NEW.extension IS NULL THEN
    UPDATE slot AS s SET until = greatest(s.until, v_until)
    WHERE s.pool_id = NEW.pool_id AND s.party_key IN (NEW.a_key, NEW.b_key) AND s.line_id = NEW.line_id
      AND s.until < 'infinity' AND s.counterpart_key <> s.party_key;
  ELSE
    UPDATE place AS h SET until = greatest(h.until, v_until)
    WHERE h.pool_id = NEW.pool_id AND h.x_id = (SELECT l.x_id FROM line AS l WHERE l.pool_id = NEW.pool_id AND l.id = NEW.line_id)
      AND h.extension = NEW.extension AND h.line_id = NEW.line_id AND h.until < 'infinity' AND h.party_key IS NOT NULL;
  END IF;
  IF FOUND THEN
    INSERT INTO cooldown AS c (pool_id, day, rest_s, share, releases, calls)
    VALUES (NEW.pool_id, (NEW.until AT TIME ZONE 'UTC')::date, v_rest_s, v_app.sample_share, 1, array_fill(0::bigint, ARRAY[40]))
    ON CONFLICT (pool_id, day, rest_s, share) DO UPDATE SET releases = c.releases + 1;
  END IF;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION sample_rest() IS 'Lets what a line of the sample held rest longer, and counts it. The slots rest already: they are written by the statement that ends the line.';
CREATE TRIGGER sampled AFTER INSERT ON held FOR EACH ROW
WHEN (NEW.why <> 'changed' AND sample_place(NEW.line_id) < 0.1) EXECUTE FUNCTION sample_rest();

CREATE FUNCTION count_residual() RETURNS trigger
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM is_now AS c WHERE c.line_id IS NULL AND c.answered_at IS NULL AND c.caller_key IS NOT NULL) THEN
    RETURN NULL;
  END IF;
  INSERT INTO cooldown AS o (pool_id, day, rest_s, share, releases, calls)
  SELECT t.pool_id, t.day, t.rest_s, t.share, 0, ARRAY(
    SELECT (SELECT count(*) FROM unnest(t.bins) AS b (bin) WHERE b.bin = g.bin) FROM generate_series(0, 39) AS g (bin) ORDER BY g.bin)
  FROM (
    SELECT x.pool_id, h.day, coalesce(k.rest_s, 0) AS rest_s, coalesce(k.share, 0) AS share,
           array_agg(CASE WHEN h.age_s <= 60 THEN 0 ELSE least(39, floor(2 * log(2, h.age_s / 60))::integer) END) AS bins
    FROM is_now AS c
    JOIN x_number AS x ON x.number = c.x AND x.state <> 'moved'
    JOIN pool AS p ON p.id = x.pool_id AND p.app_id = c.app_id
    JOIN app AS a ON a.id = p.app_id
    CROSS JOIN LATERAL (
      -- Whom this caller had on this X last; where an X or an extension is one party's, who had it last.
      SELECT l.line_id, (l.until AT TIME ZONE 'UTC')::date AS day,
             extract(epoch FROM greatest(coalesce(c.call_in_at, c.at) - l.until, interval '0')) AS age_s
      FROM (
        (SELECT q.line_id, q.until FROM held AS q
         WHERE q.x = c.x AND q.a_key = c.caller_key AND q.extension IS NULL AND q.until <= coalesce(c.call_in_at, c.at) + interval '1 second'
         ORDER BY q.until DESC LIMIT 1)
        UNION ALL
        (SELECT q.line_id, q.until FROM held AS q
         WHERE q.x = c.x AND q.b_key = c.caller_key AND q.extension IS NULL AND q.until <= coalesce(c.call_in_at, c.at) + interval '1 second'
         ORDER BY q.until DESC LIMIT 1)
        UNION ALL
        (SELECT q.line_id, q.until FROM held AS q
         WHERE q.x = c.x AND q.extension = CASE WHEN a.mode <> 'axe' THEN 0 WHEN c.extension ~ '^[0-9]{1,4}$' THEN c.extension::smallint END
           AND q.until <= coalesce(c.call_in_at, c.at) + interval '1 second'
         ORDER BY q.until DESC LIMIT 1)
      ) AS l
      ORDER BY l.until DESC LIMIT 1
    ) AS h
    LEFT JOIN LATERAL (
      SELECT s.rest_s, s.share FROM cooldown AS s
      WHERE s.pool_id = x.pool_id AND s.day = h.day AND s.share > sample_place(h.line_id) AND s.rest_s > h.age_s
      ORDER BY s.share DESC, s.rest_s DESC LIMIT 1
    ) AS k ON true
    -- In mode X we said ourselves that nobody is there.
    WHERE c.line_id IS NULL AND c.answered_at IS NULL AND c.caller_key IS NOT NULL
      AND (c.direction = 2 OR c.release_code IN (8014, 8022) OR a.mode = 'x')
    GROUP BY 1, 2, 3, 4
  ) AS t
  -- In one order, so that two batches never wait for each other in a circle.
  ORDER BY t.pool_id, t.day, t.rest_s, t.share
  ON CONFLICT (pool_id, day, rest_s, share) DO UPDATE SET calls = ARRAY(
    SELECT u.old + u.new FROM unnest(o.calls, EXCLUDED.calls) WITH ORDINALITY AS u (old, new, place) ORDER BY u.place);
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION count_residual() IS 'Counts calls to an X that their callers have left, in the transaction that enters their records, so once for each.';
CREATE TRIGGER counted AFTER INSERT ON cdr REFERENCING NEW TABLE AS is_now FOR EACH STATEMENT EXECUTE FUNCTION count_residual();

CREATE TABLE unreachable (
  pool_id   integer NOT NULL,
  line_id   uuid NOT NULL,
  party_key bigint NOT NULL,
  told_at   timestamptz NOT NULL,
  PRIMARY KEY (pool_id, line_id, party_key)
);
COMMENT ON TABLE unreachable IS 'Parties of lines of whom party.unreachable was told. Kept for a day, then they may be told of again.';
COMMENT ON COLUMN unreachable.pool_id IS 'Pool of the line.';
COMMENT ON COLUMN unreachable.line_id IS 'The line.';
COMMENT ON COLUMN unreachable.party_key IS 'Keyed hash of the party.';
COMMENT ON COLUMN unreachable.told_at IS 'When it was told last.';
CREATE INDEX unreachable_age ON unreachable (told_at);

CREATE FUNCTION tell_unreachable() RETURNS trigger
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  -- Refused by the platform for what a party is, whatever the binding (contract 8.1): of who calls, and of who is called.
  c_caller CONSTANT integer[] := '{7005, 7107, 7500, 8018, 8023, 8046, 8056}';
  c_callee CONSTANT integer[] := '{7004, 8100, 8105}';
  v_now timestamptz;
  v_many bigint;
  v_binding uuid;
  i record;
BEGIN
  IF NOT EXISTS (
    SELECT FROM is_now AS c WHERE c.ended_at IS NOT NULL AND c.line_id IS NOT NULL AND c.state_code = ANY (c_caller || c_callee)) THEN
    RETURN NULL;
  END IF;
  v_now := broker_now();
  FOR i IN
    SELECT DISTINCT ON (l.pool_id, l.id, v.party_key) l.pool_id, l.id AS line_id, v.party_key, c.app_id, c.x, c.bindings, c.state_code,
           a.unreachable_after, CASE v.party_key WHEN l.a_key THEN 'a' ELSE 'b' END AS party
    FROM is_now AS c
    JOIN app AS a ON a.id = c.app_id AND a.unreachable_after > 0
    JOIN line AS l ON l.pool_id = c.pool_id AND l.id = c.line_id
    CROSS JOIN LATERAL (SELECT CASE WHEN c.state_code = ANY (c_caller) THEN c.caller_key ELSE c.callee_key END AS party_key) AS v
    WHERE c.ended_at > v_now - interval '1 day' AND c.answered_at IS NULL AND c.state_code = ANY (c_caller || c_callee)
      AND c.bindings <> '{}' AND v.party_key IN (l.a_key, l.b_key)
    ORDER BY l.pool_id, l.id, v.party_key, c.started_at DESC
  LOOP
    -- One call that ended in any other way has got through to where it was let end so.
    SELECT count(*) INTO v_many FROM (
      (SELECT c.state_code = ANY (c_caller) AS missed FROM call AS c
       WHERE c.caller_key = i.party_key AND c.at > v_now - interval '1 day' AND c.app_id = i.app_id AND c.line_id IS NOT NULL
         AND c.ended_at IS NOT NULL LIMIT 1000)
      UNION ALL
      (SELECT c.state_code = ANY (c_callee) FROM call AS c
       WHERE c.callee_key = i.party_key AND c.at > v_now - interval '1 day' AND c.app_id = i.app_id AND c.line_id IS NOT NULL
         AND c.ended_at IS NOT NULL LIMIT 1000)
    ) AS t
    HAVING coalesce(bool_and(t.missed), false);
    CONTINUE WHEN coalesce(v_many, 0) < i.unreachable_after;
    INSERT INTO unreachable AS u (pool_id, line_id, party_key, told_at) VALUES (i.pool_id, i.line_id, i.party_key, v_now)
    ON CONFLICT (pool_id, line_id, party_key) DO UPDATE SET told_at = EXCLUDED.told_at WHERE u.told_at < v_now - interval '1 day';
    CONTINUE WHEN NOT FOUND;
    FOREACH v_binding IN ARRAY i.bindings LOOP
      PERFORM emit_event(i.app_id, 'party.unreachable', i.pool_id, v_binding,
                         jsonb_build_object('party', i.party, 'calls', v_many, 'state_code', i.state_code), i.x);
    END LOOP;
  END LOOP;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION tell_unreachable() IS 'Tells of parties whose binds succeed while the platform intercepts all their calls, once a day for each line.';
CREATE TRIGGER missed_new AFTER INSERT ON call REFERENCING NEW TABLE AS is_now FOR EACH STATEMENT EXECUTE FUNCTION tell_unreachable();
CREATE TRIGGER missed AFTER UPDATE ON call REFERENCING NEW TABLE AS is_now FOR EACH STATEMENT EXECUTE FUNCTION tell_unreachable();

CREATE FUNCTION forget_learned(p_limit integer) RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off
AS $$
DECLARE
  v_gone integer;
BEGIN
  DELETE FROM unreachable AS u WHERE (u.pool_id, u.line_id, u.party_key) IN (
    SELECT o.pool_id, o.line_id, o.party_key FROM unreachable AS o WHERE o.told_at < broker_now() - interval '1 day'
    ORDER BY o.told_at LIMIT p_limit FOR UPDATE SKIP LOCKED);
  GET DIAGNOSTICS v_gone = ROW_COUNT;
  -- A year and a month: the longest rest, and the days after it.
  DELETE FROM cooldown AS c WHERE c.day < (broker_now() AT TIME ZONE 'UTC')::date - 400;
  RETURN v_gone;
END
$$;
COMMENT ON FUNCTION forget_learned(integer) IS 'Forgets a slice of what is too old to be of use.';
