-- Events: what order systems are told. Written in the transaction of what they tell, put in order afterwards, read as a
-- feed and sent to webhooks. docs/decisions/0019-events.md says why in this way.
--
-- Constraints of new columns check rows of configuration only: as many as there are apps.
-- squawk-ignore-file constraint-missing-not-valid

ALTER TABLE app ADD COLUMN event_days integer NOT NULL DEFAULT 7 CHECK (event_days BETWEEN 0 AND 90);
COMMENT ON COLUMN app.event_days IS 'How long events are kept; 0 = none are written.';

CREATE SEQUENCE event_ids AS bigint;
COMMENT ON SEQUENCE event_ids IS 'Drawn while the line of a binding is locked, by a transaction that has an xid: in the order of what happened to a binding.';

CREATE TABLE event (
  id         bigint NOT NULL,
  at         timestamptz NOT NULL,
  expires_at timestamptz,
  binding_id uuid,
  app_id     integer NOT NULL,
  pool_id    integer,
  extension  smallint,
  type       text NOT NULL,
  x          text,
  reason     text,
  data       jsonb
) PARTITION BY RANGE (at);
COMMENT ON TABLE event IS 'What happened, as it is told. Rows are added and never changed; no phone of a party is in them.';
COMMENT ON COLUMN event.id IS 'From event_ids; visible out of order, so never a cursor.';
COMMENT ON COLUMN event.at IS 'When it happened.';
COMMENT ON COLUMN event.expires_at IS 'When the binding ends by itself, as known then; null = not by itself.';
COMMENT ON COLUMN event.binding_id IS 'Whom it is about; null = no binding.';
COMMENT ON COLUMN event.app_id IS 'Whose it is.';
COMMENT ON COLUMN event.pool_id IS 'Pool of the binding or number.';
COMMENT ON COLUMN event.extension IS 'The extension then; null = none.';
COMMENT ON COLUMN event.type IS 'As binding.active.';
COMMENT ON COLUMN event.x IS 'The X then: our number.';
COMMENT ON COLUMN event.reason IS 'Why, as in the binding.';
COMMENT ON COLUMN event.data IS 'What else there is to tell of this type.';
CREATE INDEX event_by_id ON event (id);

-- Takes what no dated partition is there for: nothing is ever lost to a partition that is missing.
CREATE TABLE event_rest PARTITION OF event DEFAULT;
COMMENT ON TABLE event_rest IS 'Events of days without a partition of their own.';

CREATE TABLE event_clock (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  high      bigint NOT NULL,
  gap_first bigint[] NOT NULL,
  gap_last  bigint[] NOT NULL,
  gap_until xid8[] NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE event_clock IS 'One row: how far events have been given their positions.';
COMMENT ON COLUMN event_clock.singleton IS 'Keeps the table at one row.';
COMMENT ON COLUMN event_clock.high IS 'Events up to this id have a position, except those in gaps.';
COMMENT ON COLUMN event_clock.gap_first IS 'First ids of gaps: drawn by transactions that had not been seen to commit.';
COMMENT ON COLUMN event_clock.gap_last IS 'Last ids of gaps.';
COMMENT ON COLUMN event_clock.gap_until IS 'A gap stays empty for ever once all transactions before this one are over.';
INSERT INTO event_clock (high, gap_first, gap_last, gap_until) VALUES (0, '{}', '{}', '{}');

CREATE TABLE event_feed (
  app_id integer PRIMARY KEY,
  upto   bigint NOT NULL,
  swept  bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
COMMENT ON TABLE event_feed IS 'Each app''s feed: positions without holes.';
COMMENT ON COLUMN event_feed.app_id IS 'The app.';
COMMENT ON COLUMN event_feed.upto IS 'The newest position.';
COMMENT ON COLUMN event_feed.swept IS 'Up to this position events are kept no more.';

CREATE TABLE event_page (
  app_id  integer NOT NULL,
  upto    bigint NOT NULL,
  first   bigint NOT NULL,
  since   timestamptz NOT NULL,
  until   timestamptz NOT NULL,
  ids     bigint[] NOT NULL,
  PRIMARY KEY (app_id, upto)
);
COMMENT ON TABLE event_page IS 'Which event has which position: those of an app that were placed together.';
COMMENT ON COLUMN event_page.app_id IS 'The app.';
COMMENT ON COLUMN event_page.upto IS 'Position of the last one.';
COMMENT ON COLUMN event_page.first IS 'Position of the first one.';
COMMENT ON COLUMN event_page.since IS 'Time of the earliest: in which partitions they are.';
COMMENT ON COLUMN event_page.until IS 'Time of the latest.';
COMMENT ON COLUMN event_page.ids IS 'Their ids, in order of the positions.';

CREATE FUNCTION tell_binding_changes() RETURNS trigger
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = on SET enable_mergejoin = off
AS $$
DECLARE
  v_now CONSTANT timestamptz := broker_now();
BEGIN
  INSERT INTO event (id, at, app_id, type, pool_id, binding_id, x, extension, expires_at, reason, data)
  SELECT nextval('event_ids'), v_now, n.app_id, t.type, n.pool_id, n.id, p.x, p.extension,
         CASE WHEN n.state = 'active' THEN n.expires_at END, CASE WHEN n.state <> 'active' THEN n.reason END,
         CASE WHEN t.type = 'binding.moved' THEN jsonb_build_object('from', (
           SELECT jsonb_strip_nulls(jsonb_build_object('x', q.x, 'extension', q.extension)) FROM place_told(o.pool_id, o.line_id) AS q)) END
  FROM is_now AS n JOIN was AS o ON o.id = n.id AND o.pool_id = n.pool_id
  CROSS JOIN LATERAL (SELECT CASE
      WHEN n.state = 'active' AND o.state = 'pending' THEN 'binding.active'
      WHEN n.state = 'failed' AND o.state <> 'failed' THEN 'binding.failed'
      WHEN n.state = 'released' AND o.state <> 'released' THEN
        CASE WHEN n.reason = 'expired' THEN 'binding.expired' ELSE 'binding.released' END
      WHEN n.state = 'active' AND n.line_id <> o.line_id THEN 'binding.moved'
      WHEN n.state = 'active' AND n.expires_at IS DISTINCT FROM o.expires_at THEN 'binding.renewed' END AS type) AS t
  CROSS JOIN LATERAL (SELECT q.x, q.extension FROM place_told(n.pool_id, n.line_id) AS q OFFSET 0) AS p
  WHERE t.type IS NOT NULL AND n.moves IS NULL AND (SELECT a.event_days FROM app AS a WHERE a.id = n.app_id) > 0;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION tell_binding_changes() IS
  'The one place that tells what became of bindings. Ids are drawn after the rows were changed, so while they are locked.';

CREATE FUNCTION place_told(p_pool integer, p_line uuid) RETURNS TABLE (x text, extension smallint)
LANGUAGE sql STABLE
AS $$
  SELECT coalesce((SELECT x.number FROM x_number AS x WHERE x.pool_id = l.pool_id AND x.x_id = l.x_id), l.picked),
         nullif(l.extension, 0::smallint)
  FROM line AS l WHERE l.pool_id = p_pool AND l.id = p_line
$$;
COMMENT ON FUNCTION place_told(integer, uuid) IS 'The X of a line, and its extension if it has one.';

CREATE TRIGGER told AFTER UPDATE ON binding REFERENCING OLD TABLE AS was NEW TABLE AS is_now
  FOR EACH STATEMENT EXECUTE FUNCTION tell_binding_changes();

CREATE FUNCTION emit_event(p_app integer, p_type text, p_pool integer, p_binding uuid, p_data jsonb,
                           p_x text DEFAULT NULL, p_extension smallint DEFAULT NULL, p_reason text DEFAULT NULL,
                           p_expires_at timestamptz DEFAULT NULL) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
  -- What became of a binding is told by the binding's own trigger, once.
  IF p_type IN ('binding.active', 'binding.failed', 'binding.released', 'binding.expired', 'binding.renewed', 'binding.moved')
    OR coalesce((SELECT a.event_days FROM app AS a WHERE a.id = p_app), 0) = 0 THEN
    RETURN;
  END IF;
  -- Before the id: whoever finds the id missing must be able to tell when this transaction is over.
  PERFORM pg_current_xact_id();
  INSERT INTO event (id, at, app_id, type, pool_id, binding_id, x, extension, expires_at, reason, data)
  VALUES (nextval('event_ids'), broker_now(), p_app, p_type, p_pool, p_binding, p_x, p_extension, p_expires_at, p_reason, p_data);
END
$$;
COMMENT ON FUNCTION emit_event(integer, text, integer, uuid, jsonb, text, smallint, text, timestamptz) IS
  'Tells of something with this transaction. p_data must name no phone of a party. For a binding''s order, its line must be locked. What a binding''s trigger tells is passed over.';

CREATE FUNCTION tell_new_binding() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
  IF (SELECT a.event_days FROM app AS a WHERE a.id = NEW.app_id) > 0 THEN
    INSERT INTO event (id, at, app_id, type, pool_id, binding_id, x, extension, expires_at)
    SELECT nextval('event_ids'), broker_now(), NEW.app_id, 'binding.active', NEW.pool_id, NEW.id, p.x, p.extension, NEW.expires_at
    FROM place_told(NEW.pool_id, NEW.line_id) AS p;
  END IF;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION tell_new_binding() IS 'A binding that is active from the start: it joined a line that lives, or was adopted.';
CREATE TRIGGER told_new AFTER INSERT ON binding FOR EACH ROW
WHEN (NEW.state = 'active' AND NEW.moves IS NULL) EXECUTE FUNCTION tell_new_binding();

CREATE FUNCTION tell_conflict() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
  v_binding uuid;
  v_place record;
BEGIN
  SELECT p.* INTO v_place FROM place_told(NEW.pool_id, NEW.line_id) AS p;
  FOR v_binding IN SELECT b.id FROM binding AS b WHERE b.line_id = NEW.line_id AND b.moves IS NULL ORDER BY b.id LOOP
    PERFORM emit_event(NEW.app_id, 'binding.conflict', NEW.pool_id, v_binding, NULL, v_place.x, v_place.extension, NEW.code);
  END LOOP;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION tell_conflict() IS 'The platform knows a binding on an X that we do not: the order gets another X.';
CREATE TRIGGER told_conflict AFTER UPDATE ON platform_call FOR EACH ROW
WHEN (NEW.outcome = 'conflict' AND OLD.outcome IS DISTINCT FROM NEW.outcome AND NEW.op = 'bind')
EXECUTE FUNCTION tell_conflict();

CREATE FUNCTION tell_stop() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
  PERFORM emit_event(NEW.app_id, 'limit.flow_control', NULL, NULL, jsonb_build_object('until', NEW.until, 'pace', NEW.pace));
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION tell_stop() IS 'The platform said that an app''s calls come too fast.';
CREATE TRIGGER told_stop AFTER INSERT ON platform_stop FOR EACH ROW
WHEN (NEW.reason = 'flow_control') EXECUTE FUNCTION tell_stop();
CREATE TRIGGER told_stop_again AFTER UPDATE ON platform_stop FOR EACH ROW
WHEN (NEW.reason = 'flow_control' AND OLD.until < NEW.noted_at AND NEW.until > OLD.until) EXECUTE FUNCTION tell_stop();

CREATE FUNCTION tell_drift() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
  PERFORM emit_event(NEW.app_id, 'audit.drift', NEW.pool_id, NULL, jsonb_build_object('kind', NEW.kind, 'action', NEW.action),
    (SELECT x.number FROM x_number AS x WHERE x.pool_id = NEW.pool_id AND x.x_id = NEW.x_id), nullif(NEW.extension, 0::smallint));
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION tell_drift() IS 'A difference between the platform and our books was found that was not open before.';
CREATE TRIGGER told_drift AFTER INSERT ON drift FOR EACH ROW EXECUTE FUNCTION tell_drift();
CREATE TRIGGER told_drift_again AFTER UPDATE ON drift FOR EACH ROW
WHEN (OLD.resolved_at IS NOT NULL AND NEW.resolved_at IS NULL) EXECUTE FUNCTION tell_drift();

CREATE FUNCTION place_events(p_limit integer) RETURNS TABLE (placed integer, gaps integer)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off
AS $$
#variable_conflict use_column
DECLARE
  c event_clock%ROWTYPE;
  v_ids bigint[];
  v_apps integer[];
  v_ats timestamptz[];
  v_over xid8;
  v_full boolean;
  v_high bigint;
  v_first bigint[];
  v_last bigint[];
  v_until xid8[];
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended('place_events', 0)) THEN
    RETURN;
  END IF;
  SELECT k.* INTO c FROM event_clock AS k;
  -- One statement, so that what it finds and which transactions are over belong to one snapshot.
  SELECT array_agg(f.id ORDER BY f.id), array_agg(f.app_id ORDER BY f.id), array_agg(f.at ORDER BY f.id),
         pg_snapshot_xmin(pg_current_snapshot())
  INTO v_ids, v_apps, v_ats, v_over
  FROM (
    SELECT e.id, e.app_id, e.at
    FROM unnest(c.gap_first || (c.high + 1), c.gap_last || 9223372036854775807) WITH ORDINALITY AS g (first, last, n)
    CROSS JOIN LATERAL (
      SELECT v.id, v.app_id, v.at FROM event AS v WHERE v.id >= g.first AND v.id <= g.last ORDER BY v.id LIMIT p_limit
    ) AS e
    ORDER BY e.id LIMIT p_limit
  ) AS f;
  placed := coalesce(cardinality(v_ids), 0);
  v_full := placed = p_limit;
  IF placed = 0 AND NOT v_over >= ANY (c.gap_until) THEN
    RETURN QUERY SELECT 0, cardinality(c.gap_first);
    RETURN;
  END IF;
  v_high := greatest(c.high, v_ids[placed]);
  -- What is left of the gaps, and what was passed over now. An id was drawn by a transaction that had its xid then, so
  -- one before ours, which is given out here, after the read.
  SELECT coalesce(array_agg(w.first ORDER BY w.first), '{}'), coalesce(array_agg(w.last ORDER BY w.first), '{}'),
         coalesce(array_agg(w.until ORDER BY w.first), '{}')
  INTO v_first, v_last, v_until
  FROM (
    SELECT p.id + 1 AS first, lead(p.id) OVER (PARTITION BY g.first ORDER BY p.id) - 1 AS last, g.until
    FROM unnest(c.gap_first || (c.high + 1), c.gap_last || v_high, c.gap_until || pg_current_xact_id()) AS g (first, last, until)
    CROSS JOIN LATERAL (
      SELECT g.first - 1 AS id UNION ALL SELECT g.last + 1
      UNION ALL SELECT f.id FROM unnest(v_ids) AS f (id) WHERE f.id >= g.first AND f.id <= g.last
    ) AS p
  ) AS w
  WHERE w.last >= w.first AND NOT (w.until <= v_over AND (NOT v_full OR w.last < v_ids[placed]));
  UPDATE event_clock AS k SET high = v_high, gap_first = v_first, gap_last = v_last, gap_until = v_until;
  WITH page AS MATERIALIZED (
    SELECT u.app_id, array_agg(u.id ORDER BY u.id) AS ids, min(u.at) AS since, max(u.at) AS until, count(*) AS n
    FROM unnest(v_ids, v_apps, v_ats) AS u (id, app_id, at) GROUP BY u.app_id
  ),
  feed AS (
    INSERT INTO event_feed AS e (app_id, upto) SELECT p.app_id, p.n FROM page AS p ORDER BY p.app_id
    ON CONFLICT (app_id) DO UPDATE SET upto = e.upto + excluded.upto
    RETURNING e.app_id, e.upto
  )
  INSERT INTO event_page (app_id, upto, first, since, until, ids)
  SELECT p.app_id, f.upto, f.upto - p.n + 1, p.since, p.until, p.ids FROM page AS p JOIN feed AS f ON f.app_id = p.app_id;
  RETURN QUERY SELECT placed, cardinality(v_first);
END
$$;
COMMENT ON FUNCTION place_events(integer) IS
  'Gives committed events their positions, in order of their ids, each exactly once; one that commits late gets a later one. One at a time over all instances: nothing is returned while another is at it.';

CREATE FUNCTION events_placed(p_app integer, p_after bigint, p_limit integer, p_types text[], p_binding uuid)
RETURNS TABLE (pos bigint, id bigint, at timestamptz, type text, pool_id integer, binding_id uuid, x text,
               extension smallint, expires_at timestamptz, reason text, data text, caller_id integer, order_id text, user_data text,
               metadata text)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT i.pos, e.id, e.at, e.type, e.pool_id, e.binding_id, e.x, e.extension, e.expires_at, e.reason, e.data::text,
         b.caller_id, b.order_id, b.user_data, b.metadata::text
  FROM (
    SELECT p.first + u.n - 1 AS pos, u.id, p.since, p.until
    FROM (
      SELECT g.* FROM event_page AS g WHERE g.app_id = p_app AND g.upto > p_after ORDER BY g.upto LIMIT p_limit
    ) AS p
    CROSS JOIN LATERAL unnest(p.ids) WITH ORDINALITY AS u (id, n)
    WHERE p.first <= p_after + p_limit AND p.first + u.n - 1 > p_after AND p.first + u.n - 1 <= p_after + p_limit
  ) AS i
  CROSS JOIN LATERAL (
    SELECT v.* FROM event AS v WHERE v.id = i.id AND v.at >= i.since AND v.at <= i.until OFFSET 0
  ) AS e
  LEFT JOIN binding AS b ON b.pool_id = e.pool_id AND b.id = e.binding_id
  WHERE (p_types IS NULL OR e.type = ANY (p_types)) AND (p_binding IS NULL OR e.binding_id = p_binding)
  ORDER BY i.pos;
END
$$;
COMMENT ON FUNCTION events_placed IS
  'Of the p_limit positions after p_after: the events that are asked for, with the order system''s own words of their bindings as they are now.';

CREATE FUNCTION tend_events(p_ahead integer, p_slice integer) RETURNS text
LANGUAGE plpgsql SET lock_timeout = '200ms' SET enable_seqscan = off
AS $$
DECLARE
  v_today CONSTANT date := (broker_now() AT TIME ZONE 'UTC')::date;
  v_most CONSTANT integer := coalesce((SELECT max(a.event_days) FROM app AS a), 0);
  v_day date;
  v_name text;
  v_app record;
  v_page record;
  v_swept bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended('tend_events', 0)) THEN
    RETURN NULL;
  END IF;
  SELECT min(g.day)::date INTO v_day FROM generate_series(v_today, v_today + p_ahead, interval '1 day') AS g (day)
  WHERE to_regclass('event_' || to_char(g.day, 'YYYYMMDD')) IS NULL;
  IF v_day IS NOT NULL THEN
    v_name := 'event_' || to_char(v_day, 'YYYYMMDD');
    LOCK TABLE event IN SHARE ROW EXCLUSIVE MODE;
    EXECUTE format('CREATE TABLE %I (LIKE event INCLUDING COMMENTS)', v_name);
    EXECUTE format('COMMENT ON TABLE %I IS %L', v_name, 'Events of this day (UTC).');
    EXECUTE format(
      'WITH moved AS (DELETE FROM event_rest WHERE at >= %1$L AND at < %2$L RETURNING *) INSERT INTO %3$I SELECT * FROM moved',
      v_day || ' 00:00:00+00', v_day + 1 || ' 00:00:00+00', v_name);
    EXECUTE format('ALTER TABLE event ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', v_name, v_day || ' 00:00:00+00',
                   v_day + 1 || ' 00:00:00+00');
    RETURN 'made';
  END IF;
  -- Positions go before what they name, so that a reader who comes too late is told.
  FOR v_app IN
    SELECT a.id, a.event_days, (v_today - a.event_days)::timestamp AT TIME ZONE 'UTC' AS before FROM app AS a ORDER BY a.id
  LOOP
    v_swept := NULL;
    FOR v_page IN
      SELECT p.upto, p.until, p.since, p.ids FROM event_page AS p WHERE p.app_id = v_app.id ORDER BY p.upto LIMIT p_slice
    LOOP
      EXIT WHEN v_page.until >= v_app.before;
      -- What goes with its partition is not deleted row by row before.
      IF v_app.event_days < v_most THEN
        DELETE FROM event AS e WHERE e.id = ANY (v_page.ids) AND e.at >= v_page.since AND e.at <= v_page.until;
      END IF;
      DELETE FROM event_page AS p WHERE p.app_id = v_app.id AND p.upto = v_page.upto;
      v_swept := v_page.upto;
    END LOOP;
    IF v_swept IS NOT NULL THEN
      UPDATE event_feed AS f SET swept = v_swept WHERE f.app_id = v_app.id;
      RETURN 'swept';
    END IF;
  END LOOP;
  SELECT min(c.relname) INTO v_name FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
  WHERE i.inhparent = 'event'::regclass AND c.relname ~ '^event_[0-9]{8}$'
    AND to_date(substr(c.relname, 7), 'YYYYMMDD') + 1 <= v_today - v_most;
  IF v_name IS NOT NULL THEN
    EXECUTE format('DROP TABLE %I', v_name);
    RETURN 'dropped';
  END IF;
  DELETE FROM event_rest AS e WHERE e.ctid = ANY (ARRAY(
    SELECT o.ctid FROM event_rest AS o WHERE o.at < (v_today - v_most)::timestamp AT TIME ZONE 'UTC' LIMIT p_slice));
  RETURN CASE WHEN FOUND THEN 'swept' END;
EXCEPTION WHEN lock_not_available THEN
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION tend_events(integer, integer) IS
  'One step of keeping events: the partition of a day, today''s to p_ahead on, is made (made); up to p_slice pages that an app keeps no more are deleted (swept); a partition that nobody keeps is dropped (dropped). Null: nothing to do, or somebody is at it.';

CREATE TABLE webhook (
  id            integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  app_id        integer NOT NULL REFERENCES app (id),
  name          text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  url           text NOT NULL CHECK (url ~ '^https?://' AND length(url) <= 2000),
  types         text[],
  state         text NOT NULL DEFAULT 'enabled' CHECK (state IN ('enabled', 'disabled')),
  state_reason  text,
  secret_sealed bytea NOT NULL,
  old_sealed    bytea,
  old_until     timestamptz,
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  at_position   bigint NOT NULL,
  owner         uuid,
  token         integer NOT NULL DEFAULT 0,
  lease_until   timestamptz NOT NULL DEFAULT '-infinity',
  paused_until  timestamptz NOT NULL DEFAULT '-infinity',
  failures      integer NOT NULL DEFAULT 0,
  delivered     bigint NOT NULL DEFAULT 0,
  missed        bigint NOT NULL DEFAULT 0,
  delivered_at  timestamptz,
  failed_at     timestamptz,
  error         text,
  UNIQUE (app_id, name)
) WITH (fillfactor = 50);
COMMENT ON TABLE webhook IS 'Where an app''s events are sent, and how far that has got.';
COMMENT ON COLUMN webhook.id IS 'Rises.';
COMMENT ON COLUMN webhook.app_id IS 'Whose events.';
COMMENT ON COLUMN webhook.name IS 'For people, within the app.';
COMMENT ON COLUMN webhook.url IS 'Where they are posted.';
COMMENT ON COLUMN webhook.types IS 'Types that are sent; a trailing .* stands for all of a kind; null = all.';
COMMENT ON COLUMN webhook.state IS 'Nothing is sent while disabled; what happened meanwhile is sent afterwards, as long as it is kept.';
COMMENT ON COLUMN webhook.state_reason IS 'Who or what disabled it: operator, or gone (410).';
COMMENT ON COLUMN webhook.secret_sealed IS 'Key of the signatures, encrypted (associated data: webhook, secret, app, name).';
COMMENT ON COLUMN webhook.old_sealed IS 'The key before, which signs too until old_until.';
COMMENT ON COLUMN webhook.old_until IS 'End of the key before.';
COMMENT ON COLUMN webhook.created_at IS 'When it was made.';
COMMENT ON COLUMN webhook.at_position IS 'Events up to this position of the app''s feed are delivered, or in webhook_parked.';
COMMENT ON COLUMN webhook.owner IS 'The process that delivers until lease_until.';
COMMENT ON COLUMN webhook.token IS 'Raised with every change of owner: who does not hold the newest one notes nothing.';
COMMENT ON COLUMN webhook.lease_until IS 'From then on another process may go on.';
COMMENT ON COLUMN webhook.paused_until IS 'Nothing is sent before: too many failures in a row, or the receiver asked for it.';
COMMENT ON COLUMN webhook.failures IS 'Failures in a row.';
COMMENT ON COLUMN webhook.delivered IS 'Events accepted by the receiver.';
COMMENT ON COLUMN webhook.missed IS 'Positions that were kept no more when their turn came.';
COMMENT ON COLUMN webhook.delivered_at IS 'When one was accepted last.';
COMMENT ON COLUMN webhook.failed_at IS 'When one was not.';
COMMENT ON COLUMN webhook.error IS 'What was wrong then.';

CREATE TABLE webhook_parked (
  webhook_id integer NOT NULL REFERENCES webhook (id) ON DELETE CASCADE,
  pos        bigint NOT NULL,
  about      uuid,
  state      text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'dead')),
  attempts   integer NOT NULL,
  tried_at   timestamptz,
  due_at     timestamptz NOT NULL,
  error      text,
  PRIMARY KEY (webhook_id, pos)
) WITH (fillfactor = 80);
COMMENT ON TABLE webhook_parked IS 'Events that a webhook has not accepted yet, with those of the same binding behind them, and those to be sent again.';
COMMENT ON COLUMN webhook_parked.webhook_id IS 'The webhook.';
COMMENT ON COLUMN webhook_parked.pos IS 'Position in the app''s feed.';
COMMENT ON COLUMN webhook_parked.about IS 'The binding, whose events go one after the other; null = none.';
COMMENT ON COLUMN webhook_parked.state IS 'dead: given up.';
COMMENT ON COLUMN webhook_parked.attempts IS 'Times it was sent.';
COMMENT ON COLUMN webhook_parked.tried_at IS 'When it was sent first.';
COMMENT ON COLUMN webhook_parked.due_at IS 'When it is sent next, if it is the first of its binding.';
COMMENT ON COLUMN webhook_parked.error IS 'What was wrong last.';
CREATE INDEX webhook_parked_due ON webhook_parked (webhook_id, due_at) WHERE state = 'waiting';
CREATE INDEX webhook_parked_about ON webhook_parked (webhook_id, about, pos) WHERE state = 'waiting';
