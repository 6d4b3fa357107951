-- Who is behind an X at a moment: now, by the lines; before, by what is kept of lines that have ended or changed.
--
-- Constraints of `audit` are exchanged for wider ones: it grows by a row for each look that a person takes.
-- squawk-ignore-file constraint-missing-not-valid, ban-drop-not-null

ALTER TABLE line ADD COLUMN parties_since timestamptz;
COMMENT ON COLUMN line.parties_since IS 'Since when the parties and the direction are what they are; null = since the confirmation.';

CREATE TABLE held (
  pool_id   integer NOT NULL,
  line_id   uuid NOT NULL,
  app_id    integer NOT NULL,
  x         text,
  extension smallint,
  direction text NOT NULL,
  a_key     bigint NOT NULL,
  b_key     bigint,
  since     timestamptz NOT NULL,
  until     timestamptz NOT NULL,
  why       text NOT NULL,
  bindings  uuid[],
  a_sealed  bytea NOT NULL,
  b_sealed  bytea
) PARTITION BY RANGE (until);
COMMENT ON TABLE held IS 'Who was behind which X, and when: a row for each line that has ended, and for each change of its parties.';
COMMENT ON COLUMN held.pool_id IS 'Pool of the line.';
COMMENT ON COLUMN held.line_id IS 'The line.';
COMMENT ON COLUMN held.app_id IS 'Whose line it was: its retention_days say how long this is kept.';
COMMENT ON COLUMN held.x IS 'The X as it was called then.';
COMMENT ON COLUMN held.extension IS 'What the line had of its X: 0 = the whole of it; null = a pair shared it with other pairs.';
COMMENT ON COLUMN held.direction IS 'Who could call whom.';
COMMENT ON COLUMN held.a_key IS 'Keyed hash of A; the number that it finds is compared.';
COMMENT ON COLUMN held.b_key IS 'Keyed hash of B; null where there was none.';
COMMENT ON COLUMN held.since IS 'From when on: the confirmation, or the change before.';
COMMENT ON COLUMN held.until IS 'Until when: the end by its own time if it had one, else when the end or the change was confirmed.';
COMMENT ON COLUMN held.why IS 'changed, moved, released, expired, withdrawn, or a stable code.';
COMMENT ON COLUMN held.bindings IS 'The bindings that were on the line at that end; null = none.';
COMMENT ON COLUMN held.a_sealed IS 'A, encrypted as in the line (associated data: line, a, pool_id, line_id).';
COMMENT ON COLUMN held.b_sealed IS 'B, encrypted as in the line (associated data: line, b, pool_id, line_id).';
CREATE INDEX held_a ON held (x, a_key, until);
CREATE INDEX held_b ON held (x, b_key, until) WHERE b_key IS NOT NULL;
CREATE INDEX held_place ON held (x, extension, until) WHERE extension IS NOT NULL;
CREATE INDEX held_app ON held (app_id, until);

-- Takes what no dated partition is there for: nothing is ever lost to a partition that is missing.
CREATE TABLE held_rest PARTITION OF held DEFAULT;
COMMENT ON TABLE held_rest IS 'Rows of weeks without a partition of their own.';

CREATE FUNCTION keep_held() RETURNS trigger
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  v_now CONSTANT timestamptz := broker_now();
  v_since CONSTANT timestamptz := coalesce(OLD.parties_since, OLD.confirmed_at);
  v_until timestamptz := v_now;
  v_why text := 'changed';
  v_bindings uuid[];
  v_last timestamptz;
  v_reason text;
BEGIN
  -- A stand-in is no order's: it stands for the one that it moves.
  SELECT array_agg(DISTINCT coalesce(b.moves, b.id)),
         max(least(coalesce(b.ended_at, 'infinity'), coalesce(b.expires_at, 'infinity'))),
         min(b.reason) FILTER (WHERE b.state = 'releasing')
  INTO v_bindings, v_last, v_reason FROM binding AS b WHERE b.line_id = OLD.id;
  IF NEW.seat IS NULL THEN
    v_why := coalesce(v_reason, CASE WHEN OLD.expires_at <= v_now THEN 'expired' ELSE NEW.state END);
    -- A platform ends a line at its time, whenever we look at it; in mode X each binding's own time does.
    v_until := least(v_now, CASE
      WHEN (SELECT a.mode FROM app AS a WHERE a.id = OLD.app_id) = 'x' THEN v_last ELSE OLD.expires_at END);
  ELSE
    UPDATE line AS l SET parties_since = v_now WHERE l.pool_id = OLD.pool_id AND l.id = OLD.id;
  END IF;
  INSERT INTO held (pool_id, line_id, app_id, x, extension, direction, a_key, b_key, since, until, why, bindings,
                    a_sealed, b_sealed)
  VALUES (OLD.pool_id, OLD.id, OLD.app_id,
          coalesce((SELECT x.number FROM x_number AS x WHERE x.pool_id = OLD.pool_id AND x.x_id = OLD.x_id), OLD.picked),
          CASE WHEN OLD.b_key IS NULL THEN coalesce(OLD.extension, 0) END, OLD.direction, OLD.a_key, OLD.b_key,
          v_since, greatest(v_until, v_since), v_why, v_bindings, OLD.a_sealed, OLD.b_sealed);
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION keep_held() IS 'Writes down who was behind the X of a line that ends or changes.';

-- Binds and confirmations pass by: the condition is false for a line that is not confirmed yet. AFTER, because a trigger
-- BEFORE would have every row locked once more before its condition is looked at.
CREATE TRIGGER kept AFTER UPDATE ON line FOR EACH ROW
WHEN (OLD.confirmed_at IS NOT NULL AND OLD.seat IS NOT NULL
      AND (NEW.seat IS NULL OR NEW.a_sealed <> OLD.a_sealed OR NEW.b_sealed IS DISTINCT FROM OLD.b_sealed
           OR NEW.direction <> OLD.direction OR NEW.x_id IS DISTINCT FROM OLD.x_id))
EXECUTE FUNCTION keep_held();

CREATE FUNCTION tend_held(p_ahead integer, p_slice integer) RETURNS text
LANGUAGE plpgsql SET lock_timeout = '200ms' SET enable_seqscan = off
AS $$
DECLARE
  v_today CONSTANT date := (broker_now() AT TIME ZONE 'UTC')::date;
  v_week date;
  v_name text;
  v_app record;
  v_gone bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended('tend_held', 0)) THEN
    RETURN NULL;
  END IF;
  -- Weeks begin on Mondays.
  SELECT min(g.day)::date INTO v_week
  FROM generate_series(date_trunc('week', v_today::timestamp), v_today + 7 * p_ahead, interval '1 week') AS g (day)
  WHERE to_regclass('held_' || to_char(g.day, 'YYYYMMDD')) IS NULL;
  IF v_week IS NOT NULL THEN
    v_name := 'held_' || to_char(v_week, 'YYYYMMDD');
    LOCK TABLE held IN SHARE ROW EXCLUSIVE MODE;
    EXECUTE format('CREATE TABLE %I (LIKE held INCLUDING COMMENTS)', v_name);
    EXECUTE format('COMMENT ON TABLE %I IS %L', v_name, 'Who was behind which X until a time in the week (UTC) that begins on this day.');
    EXECUTE format(
      'WITH moved AS (DELETE FROM held_rest WHERE until >= %1$L AND until < %2$L RETURNING *) INSERT INTO %3$I SELECT * FROM moved',
      v_week || ' 00:00:00+00', v_week + 7 || ' 00:00:00+00', v_name);
    EXECUTE format('ALTER TABLE held ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', v_name, v_week || ' 00:00:00+00',
                   v_week + 7 || ' 00:00:00+00');
    RETURN 'made';
  END IF;
  SELECT min(c.relname) INTO v_name FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
  WHERE i.inhparent = 'held'::regclass AND c.relname ~ '^held_[0-9]{8}$'
    AND to_date(substr(c.relname, 6), 'YYYYMMDD') + 7 <= v_today - (SELECT max(a.retention_days) FROM app AS a);
  IF v_name IS NOT NULL THEN
    EXECUTE format('DROP TABLE %I', v_name);
    RETURN 'dropped';
  END IF;
  -- Of whole weeks too: what can be dropped with its partition is not deleted row by row before.
  FOR v_app IN
    SELECT a.id, date_trunc('week', (v_today - a.retention_days)::timestamp) AT TIME ZONE 'UTC' AS before
    FROM app AS a ORDER BY a.id
  LOOP
    SELECT h.tableoid::regclass::text INTO v_name FROM held AS h
    WHERE h.app_id = v_app.id AND h.until < v_app.before ORDER BY h.until LIMIT 1;
    IF FOUND THEN
      EXECUTE format(
        'DELETE FROM %1$s WHERE ctid = ANY (ARRAY(SELECT ctid FROM %1$s WHERE app_id = $1 AND until < $2 LIMIT $3))', v_name)
      USING v_app.id, v_app.before, p_slice;
      RETURN 'swept';
    END IF;
  END LOOP;
  RETURN NULL;
EXCEPTION WHEN lock_not_available THEN
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION tend_held(integer, integer) IS
  'One step of keeping the history: the partition of a week, this one to p_ahead on, is made (made); one that no app keeps any more is dropped (dropped); p_slice rows of an app that keeps less are deleted (swept). Null: nothing to do, or somebody is at it.';

CREATE FUNCTION behind(p_at timestamptz, p_by text, p_pool integer, p_x integer, p_extension smallint, p_party bigint)
RETURNS TABLE (pool_id integer, line_id uuid, state text, direction text, a_sealed bytea, b_sealed bytea,
               callee_sealed bytea, callee_user_data text, options text, over boolean, live boolean, why text,
               bindings uuid[], user_data text[])
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  v_at CONSTANT timestamptz := coalesce(p_at, broker_now());
  v_key CONSTANT bigint := p_pool::bigint * 100000 + p_x;
  v_lines uuid[];
BEGIN
  -- Each by the one index that fits.
  CASE p_by
    WHEN 'pair' THEN
      v_lines := ARRAY(
        SELECT s.line_id FROM slot AS s WHERE s.pool_id = p_pool AND s.party_key = p_party AND s.x_id = p_x);
    WHEN 'whole' THEN
      v_lines := ARRAY(SELECT l.id FROM line AS l WHERE l.x_key = v_key AND l.seat IS NOT NULL AND l.b_key IS NULL LIMIT 2);
    WHEN 'place' THEN
      v_lines := ARRAY(
        SELECT h.line_id FROM place AS h
        WHERE h.pool_id = p_pool AND h.x_id = p_x AND h.extension = p_extension AND h.line_id IS NOT NULL);
    WHEN 'own' THEN
      v_lines := ARRAY(
        SELECT l.id FROM line AS l WHERE l.a_key = p_party AND l.b_key IS NULL AND l.seat IS NOT NULL AND l.x_key + 0 = v_key LIMIT 2);
  END CASE;
  RETURN QUERY
  SELECT l.pool_id, l.id, l.state, l.direction, l.a_sealed, l.b_sealed,
         CASE WHEN l.callee_until > v_at THEN l.callee_sealed END, l.callee_user_data, l.options,
         l.expires_at IS NOT NULL AND l.expires_at <= v_at, e.bindings IS NOT NULL, e.why, e.bindings, e.user_data
  FROM unnest(v_lines) AS i (id)
  JOIN line AS l ON l.pool_id = p_pool AND l.id = i.id
  CROSS JOIN LATERAL (
    SELECT array_agg(b.id ORDER BY b.id) FILTER (WHERE b.lives) AS bindings,
           array_agg(b.user_data ORDER BY b.id) FILTER (WHERE b.lives) AS user_data, max(b.reason) AS why
    FROM (
      SELECT m.id, m.user_data, m.reason, CASE WHEN p_at IS NULL THEN m.state = 'active' ELSE m.state <> 'failed' END
          AND m.created_at <= v_at AND (m.ended_at IS NULL OR m.ended_at > v_at)
          AND (m.expires_at IS NULL OR m.expires_at > v_at) AS lives
      FROM binding AS m WHERE m.line_id = l.id AND m.moves IS NULL OFFSET 0
    ) AS b
  ) AS e
  WHERE p_at IS NULL OR (l.seat IS NOT NULL AND coalesce(l.parties_since, l.confirmed_at) <= p_at);
END
$$;
COMMENT ON FUNCTION behind(timestamptz, text, integer, integer, smallint, bigint) IS
  'Lines that may decide who is reached through an X: p_by pair (that of the party''s slot), whole (the X''s only one), place (that of an extension), own (those of the party as A without a B). p_at null = now; else lines that live and were so at that moment. over: past its own end; live: has bindings that are not. The keys may collide: the caller compares the numbers.';

CREATE FUNCTION behind_y(p_at timestamptz, p_app integer, p_y text, p_party bigint)
RETURNS TABLE (pool_id integer, line_id uuid, state text, direction text, a_sealed bytea, over boolean, peer_id uuid,
               b_sealed bytea, binding_id uuid)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  v_at CONSTANT timestamptz := coalesce(p_at, broker_now());
BEGIN
  RETURN QUERY
  SELECT l.pool_id, l.id, l.state, l.direction, l.a_sealed, coalesce(l.expires_at <= v_at, false), p.id, p.b_sealed,
         p.binding_id
  FROM (
    SELECT o.* FROM peer AS o WHERE o.y = p_y AND o.state IN ('active', 'releasing') AND o.app_id = p_app OFFSET 0
  ) AS p
  JOIN line AS l ON l.pool_id = p.pool_id AND l.id = p.line_id
  WHERE l.a_key = p_party AND l.seat IS NOT NULL AND p.confirmed_at <= v_at AND (p.expires_at IS NULL OR p.expires_at > v_at)
  LIMIT 4;
END
$$;
COMMENT ON FUNCTION behind_y(timestamptz, integer, text, bigint) IS
  'Whom a party reaches as A by dialling a Y: the B of each of its lines that was given this one. p_at null = now. The keys may collide: the caller compares the numbers.';

CREATE FUNCTION was_behind(p_at timestamptz, p_by text, p_x text, p_extension smallint, p_party bigint)
RETURNS TABLE (pool_id integer, line_id uuid, direction text, a_sealed bytea, b_sealed bytea, why text, bindings uuid[])
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT h.pool_id, h.line_id, h.direction, h.a_sealed, h.b_sealed, h.why, ARRAY(
    SELECT b.id FROM unnest(h.bindings) AS i (id) JOIN binding AS b ON b.pool_id = h.pool_id AND b.id = i.id
    WHERE b.created_at <= p_at AND (b.ended_at IS NULL OR b.ended_at > p_at) ORDER BY b.id)
  FROM (
    SELECT a.* FROM held AS a
    WHERE p_by IN ('pair', 'own') AND a.x = p_x AND a.a_key = p_party AND a.until > p_at AND a.since <= p_at
    UNION ALL
    SELECT b.* FROM held AS b
    WHERE p_by = 'pair' AND b.x = p_x AND b.b_key = p_party AND b.until > p_at AND b.since <= p_at
    UNION ALL
    SELECT s.* FROM held AS s
    WHERE p_by IN ('whole', 'place') AND s.x = p_x AND s.extension = p_extension AND s.until > p_at AND s.since <= p_at
  ) AS h
  LIMIT 4;
END
$$;
COMMENT ON FUNCTION was_behind(timestamptz, text, text, smallint, bigint) IS
  'What is kept of lines that were behind an X at a moment and are not any more; as behind().';

ALTER TABLE audit
  ALTER COLUMN binding_id DROP NOT NULL,
  ADD COLUMN line_id uuid,
  ADD CONSTRAINT audit_subject CHECK (binding_id IS NOT NULL OR line_id IS NOT NULL);
COMMENT ON COLUMN audit.who IS 'Account and machine, as root@host, or a caller and the end of its API key, as app/caller …abcd.';
COMMENT ON COLUMN audit.binding_id IS 'The binding; null = it was looked who was behind X, and no binding of that line is known any more.';
COMMENT ON COLUMN audit.line_id IS 'The line, where it was looked who is or was behind X.';
