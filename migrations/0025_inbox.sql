-- What the platform tells: notifications as they came, and what was made of them.
--
-- Constraints of new columns check rows of configuration only: as many as there are apps.
-- squawk-ignore-file constraint-missing-not-valid

ALTER TABLE app
  ADD COLUMN push_wsse boolean NOT NULL DEFAULT true,
  ADD COLUMN push_from text CHECK (length(push_from) BETWEEN 1 AND 1000),
  ADD COLUMN close_tone text CHECK (length(close_tone) BETWEEN 1 AND 128);
COMMENT ON COLUMN app.push_wsse IS 'Whether notifications may be signed in the older scheme, X-WSSE.';
COMMENT ON COLUMN app.push_from IS 'Networks that notifications may come from, with commas between; null = from anywhere.';
COMMENT ON COLUMN app.close_tone IS 'Voice file that a caller hears whom mode X puts through to nobody; null = none.';

CREATE TABLE inbox (
  at          timestamptz NOT NULL,
  id          uuid NOT NULL,
  app_id      integer NOT NULL,
  kind        text NOT NULL CHECK (kind IN ('event', 'cdr', 'sms', 'status', 'unreadable')),
  state       text NOT NULL CHECK (state IN ('new', 'done', 'unreadable', 'stuck')),
  received_at timestamptz NOT NULL,
  due_at      timestamptz NOT NULL,
  settled_at  timestamptz,
  error       text,
  raw_sealed  bytea NOT NULL,
  PRIMARY KEY (at, id)
) PARTITION BY RANGE (at);
COMMENT ON TABLE inbox IS 'Notifications, one row for each thing told: committed before the platform hears 200, read afterwards.';
COMMENT ON COLUMN inbox.at IS 'The thing''s own time, so that a repetition hours later meets the same key.';
COMMENT ON COLUMN inbox.id IS 'Keyed hash of what makes it this thing and no other one: the same whoever takes it in, and how often.';
COMMENT ON COLUMN inbox.app_id IS 'Whose secret signed it.';
COMMENT ON COLUMN inbox.kind IS 'What it tells of; unreadable = what could not be made out.';
COMMENT ON COLUMN inbox.state IS 'new: its effects are to come; done: they are there; unreadable, stuck: kept for a replay after a fix.';
COMMENT ON COLUMN inbox.received_at IS 'When it came.';
COMMENT ON COLUMN inbox.due_at IS 'From when on any instance takes it up: whoever received it has been silent for too long.';
COMMENT ON COLUMN inbox.settled_at IS 'When its effects were committed, in the same transaction.';
COMMENT ON COLUMN inbox.error IS 'What stopped it: the name of an error, never its words.';
COMMENT ON COLUMN inbox.raw_sealed IS 'The notification, encrypted (associated data: inbox, raw, 0, id).';
CREATE INDEX inbox_due ON inbox (due_at) WHERE state = 'new';
CREATE INDEX inbox_left ON inbox (app_id, received_at) WHERE state IN ('unreadable', 'stuck');

CREATE TABLE call (
  at             timestamptz NOT NULL,
  id             uuid NOT NULL,
  app_id         integer NOT NULL,
  pool_id        integer,
  line_id        uuid,
  bindings       uuid[] NOT NULL,
  found_by       text,
  x              text,
  extension      text,
  started_at     timestamptz NOT NULL,
  ringing_at     timestamptz,
  answered_at    timestamptz,
  ended_at       timestamptz,
  state_code     integer,
  released_by    smallint,
  caller_key     bigint,
  callee_key     bigint,
  session_sealed bytea NOT NULL,
  caller_sealed  bytea,
  callee_sealed  bytea,
  timeline       jsonb NOT NULL,
  received_at    timestamptz NOT NULL,
  PRIMARY KEY (id, at)
) PARTITION BY RANGE (at);
COMMENT ON TABLE call IS 'Calls by their events, one row for each session, in whatever order these came.';
COMMENT ON COLUMN call.at IS 'Time of the event that came first; a session is looked for two days around an event.';
COMMENT ON COLUMN call.id IS 'Keyed hash of app and session.';
COMMENT ON COLUMN call.app_id IS 'Whose call: its retention_days say how long this is kept.';
COMMENT ON COLUMN call.pool_id IS 'Pool of the line; null = it is not known whose call it was.';
COMMENT ON COLUMN call.line_id IS 'The line that the call went through.';
COMMENT ON COLUMN call.bindings IS 'The bindings of the line when the call began.';
COMMENT ON COLUMN call.found_by IS 'token (ours, echoed by the platform), subscription, route (our own answer to the question) or history (X, parties, time); null = not found.';
COMMENT ON COLUMN call.x IS 'The number dialled.';
COMMENT ON COLUMN call.extension IS 'Digits that were dialled behind it.';
COMMENT ON COLUMN call.started_at IS 'Time of its earliest event.';
COMMENT ON COLUMN call.ringing_at IS 'Since when the callee''s phone rang.';
COMMENT ON COLUMN call.answered_at IS 'When it was answered.';
COMMENT ON COLUMN call.ended_at IS 'When it ended.';
COMMENT ON COLUMN call.state_code IS 'The platform''s cause of the end.';
COMMENT ON COLUMN call.released_by IS 'Who ended it, as the platform says in mode X: 1 caller, 2 callee, 0 unknown.';
COMMENT ON COLUMN call.caller_key IS 'Keyed hash of the caller; the number that it finds is compared.';
COMMENT ON COLUMN call.callee_key IS 'Keyed hash of the callee.';
COMMENT ON COLUMN call.session_sealed IS 'The platform''s id, which may hold numbers, encrypted (associated data: call, session, 0, id).';
COMMENT ON COLUMN call.caller_sealed IS 'The caller, encrypted (associated data: call, caller, 0, id).';
COMMENT ON COLUMN call.callee_sealed IS 'The callee, encrypted (associated data: call, callee, 0, id).';
COMMENT ON COLUMN call.timeline IS 'Its events: [{type, at}], sorted by time.';
COMMENT ON COLUMN call.received_at IS 'When the first one came.';
CREATE INDEX call_app ON call (app_id, at);
CREATE INDEX call_bindings ON call USING gin (bindings) WHERE bindings <> '{}';
CREATE INDEX call_x ON call (x, at) WHERE x IS NOT NULL;
CREATE INDEX call_caller ON call (caller_key) WHERE caller_key IS NOT NULL;
CREATE INDEX call_callee ON call (callee_key) WHERE callee_key IS NOT NULL;

CREATE TABLE cdr (
  at             timestamptz NOT NULL,
  id             uuid NOT NULL,
  app_id         integer NOT NULL,
  call_id        uuid,
  pool_id        integer,
  line_id        uuid,
  bindings       uuid[] NOT NULL,
  found_by       text,
  x              text,
  extension      text,
  direction      smallint,
  call_in_at     timestamptz,
  forward_at     timestamptz,
  ringing_at     timestamptz,
  answered_at    timestamptz,
  ended_at       timestamptz,
  talk_s         integer NOT NULL,
  release_code   integer,
  q850           integer,
  sip            integer,
  released_by    smallint,
  recorded       boolean NOT NULL,
  record_name    text,
  record_domain  text,
  record_at      timestamptz,
  caller_key     bigint,
  callee_key     bigint,
  session_sealed bytea,
  caller_sealed  bytea,
  callee_sealed  bytea,
  received_at    timestamptz NOT NULL,
  PRIMARY KEY (at, id)
) PARTITION BY RANGE (at);
COMMENT ON TABLE cdr IS 'Call detail records, each once.';
COMMENT ON COLUMN cdr.at IS 'Its end, or the best time that it has; part of what makes it this record.';
COMMENT ON COLUMN cdr.id IS 'Keyed hash of the platform''s id of the record, else of session and times; it holds at, so that it finds its row.';
COMMENT ON COLUMN cdr.app_id IS 'Whose record: its retention_days say how long this is kept.';
COMMENT ON COLUMN cdr.call_id IS 'The id that the call has, if its events came, too.';
COMMENT ON COLUMN cdr.pool_id IS 'Pool of the line; null = it is not known whose call it was.';
COMMENT ON COLUMN cdr.line_id IS 'The line that the call went through.';
COMMENT ON COLUMN cdr.bindings IS 'The bindings of the line when the call came in.';
COMMENT ON COLUMN cdr.found_by IS 'As in call.';
COMMENT ON COLUMN cdr.x IS 'The privacy number of the call.';
COMMENT ON COLUMN cdr.extension IS 'The extension.';
COMMENT ON COLUMN cdr.direction IS 'As the platform says: 0 to A, 1 from A, 2 abnormal.';
COMMENT ON COLUMN cdr.call_in_at IS 'When it came in.';
COMMENT ON COLUMN cdr.forward_at IS 'When the second leg began.';
COMMENT ON COLUMN cdr.ringing_at IS 'When the callee''s phone rang.';
COMMENT ON COLUMN cdr.answered_at IS 'When it was answered; null = it was not.';
COMMENT ON COLUMN cdr.ended_at IS 'When it ended, or failed.';
COMMENT ON COLUMN cdr.talk_s IS 'Seconds between answer and end.';
COMMENT ON COLUMN cdr.release_code IS 'The platform''s release point, ulFailReason.';
COMMENT ON COLUMN cdr.q850 IS 'Q.850 value of a failed forward; 0 = none.';
COMMENT ON COLUMN cdr.sip IS 'SIP status of the failure; 0 = none.';
COMMENT ON COLUMN cdr.released_by IS 'As in call.';
COMMENT ON COLUMN cdr.recorded IS 'Whether it was recorded.';
COMMENT ON COLUMN cdr.record_name IS 'What the platform calls the recording.';
COMMENT ON COLUMN cdr.record_domain IS 'Where it is.';
COMMENT ON COLUMN cdr.record_at IS 'When it began.';
COMMENT ON COLUMN cdr.caller_key IS 'Keyed hash of the caller; the number that it finds is compared.';
COMMENT ON COLUMN cdr.callee_key IS 'Keyed hash of the callee.';
COMMENT ON COLUMN cdr.session_sealed IS 'The platform''s id of the call, encrypted (associated data: cdr, session, 0, id).';
COMMENT ON COLUMN cdr.caller_sealed IS 'The caller, encrypted (associated data: cdr, caller, 0, id).';
COMMENT ON COLUMN cdr.callee_sealed IS 'The callee, encrypted (associated data: cdr, callee, 0, id).';
COMMENT ON COLUMN cdr.received_at IS 'When it was taken in.';
CREATE INDEX cdr_app ON cdr (app_id, at);
CREATE INDEX cdr_bindings ON cdr USING gin (bindings) WHERE bindings <> '{}';
CREATE INDEX cdr_x ON cdr (x, at) WHERE x IS NOT NULL;
CREATE INDEX cdr_caller ON cdr (caller_key) WHERE caller_key IS NOT NULL;
CREATE INDEX cdr_callee ON cdr (callee_key) WHERE callee_key IS NOT NULL;

CREATE TABLE sms (
  at             timestamptz NOT NULL,
  id             uuid NOT NULL,
  app_id         integer NOT NULL,
  pool_id        integer,
  line_id        uuid,
  bindings       uuid[] NOT NULL,
  found_by       text,
  x              text,
  result         integer NOT NULL,
  segments       integer,
  direction      smallint,
  sender_key     bigint,
  receiver_key   bigint,
  sender_sealed  bytea,
  receiver_sealed bytea,
  content_sealed bytea,
  received_at    timestamptz NOT NULL,
  PRIMARY KEY (at, id)
) PARTITION BY RANGE (at);
COMMENT ON TABLE sms IS 'What became of short messages, each once.';
COMMENT ON COLUMN sms.at IS 'The platform''s time of it.';
COMMENT ON COLUMN sms.id IS 'Keyed hash of the platform''s id of the message; it holds at, so that it finds its row.';
COMMENT ON COLUMN sms.app_id IS 'Whose message: its retention_days say how long this is kept.';
COMMENT ON COLUMN sms.pool_id IS 'Pool of the line; null = it is not known whose message it was.';
COMMENT ON COLUMN sms.line_id IS 'The line that it went through.';
COMMENT ON COLUMN sms.bindings IS 'The bindings of the line at that time.';
COMMENT ON COLUMN sms.found_by IS 'As in call.';
COMMENT ON COLUMN sms.x IS 'The number that it was sent to.';
COMMENT ON COLUMN sms.result IS 'The platform''s word for what became of it: 0 = forwarded.';
COMMENT ON COLUMN sms.segments IS 'Messages that it was sent in.';
COMMENT ON COLUMN sms.direction IS 'As in cdr.';
COMMENT ON COLUMN sms.sender_key IS 'Keyed hash of the sender; the number that it finds is compared.';
COMMENT ON COLUMN sms.receiver_key IS 'Keyed hash of the receiver.';
COMMENT ON COLUMN sms.sender_sealed IS 'The sender, encrypted (associated data: sms, sender, 0, id).';
COMMENT ON COLUMN sms.receiver_sealed IS 'The receiver, encrypted (associated data: sms, receiver, 0, id).';
COMMENT ON COLUMN sms.content_sealed IS 'The words, where the platform passes them on, encrypted (associated data: sms, content, 0, id).';
COMMENT ON COLUMN sms.received_at IS 'When it was taken in.';
CREATE INDEX sms_app ON sms (app_id, at);
CREATE INDEX sms_bindings ON sms USING gin (bindings) WHERE bindings <> '{}';
CREATE INDEX sms_x ON sms (x, at) WHERE x IS NOT NULL;
CREATE INDEX sms_sender ON sms (sender_key) WHERE sender_key IS NOT NULL;
CREATE INDEX sms_receiver ON sms (receiver_key) WHERE receiver_key IS NOT NULL;

-- Each takes what no dated partition is there for: nothing is ever lost to a partition that is missing, or to an odd time.
CREATE TABLE inbox_rest PARTITION OF inbox DEFAULT;
COMMENT ON TABLE inbox_rest IS 'Rows of days without a partition of their own.';
CREATE TABLE call_rest PARTITION OF call DEFAULT;
COMMENT ON TABLE call_rest IS 'Rows of weeks without a partition of their own.';
CREATE TABLE cdr_rest PARTITION OF cdr DEFAULT;
COMMENT ON TABLE cdr_rest IS 'Rows of weeks without a partition of their own.';
CREATE TABLE sms_rest PARTITION OF sms DEFAULT;
COMMENT ON TABLE sms_rest IS 'Rows of weeks without a partition of their own.';

CREATE FUNCTION tend_notices(p_ahead integer, p_slice integer) RETURNS text
LANGUAGE plpgsql SET lock_timeout = '200ms' SET enable_seqscan = off
AS $$
DECLARE
  v_today CONSTANT date := (broker_now() AT TIME ZONE 'UTC')::date;
  v_of record;
  v_day date;
  v_name text;
  v_app record;
  v_gone bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended('tend_notices', 0)) THEN
    RETURN NULL;
  END IF;
  FOR v_of IN
    SELECT t.name, t.days, CASE t.days WHEN 1 THEN least(7, a.least_days) ELSE a.most_days END AS keep
    FROM (VALUES ('inbox', 1), ('call', 7), ('cdr', 7), ('sms', 7)) AS t (name, days)
    CROSS JOIN (SELECT coalesce(min(retention_days), 7) AS least_days, coalesce(max(retention_days), 7) AS most_days FROM app) AS a
  LOOP
    -- From the one before today's on, because what is told may be hours old. Weeks begin on Mondays.
    SELECT min(g.day)::date INTO v_day
    FROM generate_series(
      CASE v_of.days WHEN 1 THEN v_today::timestamp ELSE date_trunc('week', v_today::timestamp) END - make_interval(days => v_of.days),
      v_today + p_ahead * v_of.days, make_interval(days => v_of.days)) AS g (day)
    WHERE to_regclass(v_of.name || to_char(g.day, '_YYYYMMDD')) IS NULL
      AND g.day + make_interval(days => v_of.days) > v_today - v_of.keep;
    IF v_day IS NOT NULL THEN
      v_name := v_of.name || to_char(v_day, '_YYYYMMDD');
      EXECUTE format('LOCK TABLE %I IN SHARE ROW EXCLUSIVE MODE', v_of.name);
      EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING COMMENTS INCLUDING CONSTRAINTS) WITH (fillfactor = 70)', v_name, v_of.name);
      EXECUTE format('COMMENT ON TABLE %I IS %L', v_name, format('Rows of %s days (UTC) from this one on.', v_of.days));
      EXECUTE format(
        'WITH moved AS (DELETE FROM %4$I WHERE at >= %1$L AND at < %2$L RETURNING *) INSERT INTO %3$I SELECT * FROM moved',
        v_day || ' 00:00:00+00', v_day + v_of.days || ' 00:00:00+00', v_name, v_of.name || '_rest');
      EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', v_of.name, v_name,
                     v_day || ' 00:00:00+00', v_day + v_of.days || ' 00:00:00+00');
      RETURN 'made';
    END IF;
    SELECT min(c.relname) INTO v_name FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = v_of.name::regclass AND c.relname ~ '_[0-9]{8}$'
      AND to_date(right(c.relname, 8), 'YYYYMMDD') + v_of.days <= v_today - v_of.keep;
    IF v_name IS NOT NULL THEN
      EXECUTE format('DROP TABLE %I', v_name);
      RETURN 'dropped';
    END IF;
    IF v_of.days = 1 THEN
      -- Odd times: a row that never gets a partition goes by the time when it came.
      DELETE FROM inbox_rest AS r WHERE r.ctid = ANY (ARRAY(
        SELECT o.ctid FROM inbox_rest AS o WHERE o.received_at < v_today - v_of.keep LIMIT p_slice));
      GET DIAGNOSTICS v_gone = ROW_COUNT;
      IF v_gone > 0 THEN
        RETURN 'swept';
      END IF;
      CONTINUE;
    END IF;
    -- Of whole weeks too: what can be dropped with its partition is not deleted row by row before.
    FOR v_app IN
      SELECT a.id, date_trunc('week', (v_today - a.retention_days)::timestamp) AT TIME ZONE 'UTC' AS before FROM app AS a ORDER BY a.id
    LOOP
      EXECUTE format('SELECT tableoid::regclass::text FROM %I WHERE app_id = $1 AND at < $2 AND received_at < $2 ORDER BY at LIMIT 1', v_of.name)
      INTO v_name USING v_app.id, v_app.before;
      IF v_name IS NOT NULL THEN
        EXECUTE format('DELETE FROM %1$s WHERE ctid = ANY (ARRAY(SELECT ctid FROM %1$s WHERE app_id = $1 AND at < $2 AND received_at < $2 LIMIT $3))', v_name)
        USING v_app.id, v_app.before, p_slice;
        RETURN 'swept';
      END IF;
    END LOOP;
  END LOOP;
  RETURN NULL;
EXCEPTION WHEN lock_not_available THEN
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION tend_notices(integer, integer) IS
  'One step of keeping notifications and what was made of them, as tend_held(). The inbox keeps a week, or what the app that keeps least keeps.';

CREATE FUNCTION claim_due_notices(p_slice integer, p_lease_s double precision)
RETURNS TABLE (at timestamptz, id uuid, app_id integer, raw_sealed bytea)
LANGUAGE plpgsql SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := clock_timestamp();
BEGIN
  RETURN QUERY
  WITH due AS MATERIALIZED (
    SELECT d.at, d.id FROM inbox AS d WHERE d.state = 'new' AND d.due_at <= v_now ORDER BY d.due_at LIMIT p_slice
    FOR UPDATE SKIP LOCKED
  )
  UPDATE inbox AS n SET due_at = v_now + make_interval(secs => p_lease_s) FROM due
  WHERE n.at = due.at AND n.id = due.id AND n.state = 'new'
  RETURNING n.at, n.id, n.app_id, n.raw_sealed;
END
$$;
COMMENT ON FUNCTION claim_due_notices IS 'Notifications whose receiver has been silent: this instance''s for so long. Two that have the same one do no harm.';

CREATE FUNCTION settle_notice(p_at timestamptz, p_id uuid) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off
AS $$
BEGIN
  UPDATE inbox AS n SET state = 'done', settled_at = clock_timestamp(), error = NULL
  WHERE n.at = p_at AND n.id = p_id AND n.state = 'new';
  RETURN FOUND;
END
$$;
COMMENT ON FUNCTION settle_notice IS 'Whether the effects of a notification are this transaction''s to bring about; from then on nobody else''s.';

CREATE FUNCTION bindings_at(p_app integer, p_line uuid, p_at timestamptz) RETURNS uuid[]
LANGUAGE sql STABLE SET enable_seqscan = off
AS $$
  WITH held AS MATERIALIZED (
    SELECT m.id, m.created_at AS since, least(m.ended_at, m.expires_at, 'infinity') AS until FROM binding AS m
    WHERE m.line_id = p_line AND m.app_id = p_app AND m.moves IS NULL AND m.state <> 'failed'
  )
  -- The platform's times have no fractions, and its clock is not ours: what went through the line was somebody's on it.
  SELECT coalesce(array_agg(h.id ORDER BY h.id), '{}') FROM held AS h
  WHERE h.since < greatest(p_at + interval '1 second', (SELECT min(f.since) FROM held AS f) + interval '1 microsecond')
    AND h.until > least(p_at, (SELECT max(l.until) FROM held AS l) - interval '1 microsecond')
$$;
COMMENT ON FUNCTION bindings_at IS 'The bindings that a line had at a moment; before its first one that, after its last one that.';

CREATE FUNCTION lines_told(p_app integer[], p_mark uuid[], p_subscription text[], p_x text[])
RETURNS TABLE (ord integer, pool_id integer, line_id uuid, found_by text)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT i.ord::integer, coalesce(t.pool_id, p.pool_id, s.pool_id), coalesce(t.line_id, p.line_id, s.line_id),
         CASE WHEN coalesce(t.line_id, p.line_id) IS NOT NULL THEN 'token' ELSE 'subscription' END
  FROM unnest(p_app, p_mark, p_subscription, p_x) WITH ORDINALITY AS i (app_id, mark, subscription, x, ord)
  LEFT JOIN LATERAL (
    SELECT b.pool_id, b.line_id FROM binding AS b WHERE b.line_id = i.mark AND b.app_id = i.app_id LIMIT 1) AS t ON true
  -- A mark that is no line's may be that of a peer, which the platform gave a Y.
  LEFT JOIN LATERAL (
    SELECT e.pool_id, e.line_id FROM pool AS o JOIN peer AS e ON e.pool_id = o.id AND e.id = i.mark
    WHERE o.app_id = i.app_id AND t.line_id IS NULL AND i.mark IS NOT NULL LIMIT 1) AS p ON true
  LEFT JOIN LATERAL (
    SELECT l.pool_id, l.id AS line_id FROM x_number AS x
    JOIN line AS l ON l.x_key = x.pool_id::bigint * 100000 + x.x_id AND l.seat IS NOT NULL
    WHERE t.line_id IS NULL AND p.line_id IS NULL AND x.number = i.x AND x.state <> 'moved'
      AND l.app_id = i.app_id AND l.subscription_id = i.subscription LIMIT 1) AS s ON true
  WHERE coalesce(t.line_id, p.line_id, s.line_id) IS NOT NULL;
END
$$;
COMMENT ON FUNCTION lines_told IS 'Whose line a notification is about, by our mark in it, else by the subscription on an X; what is not found is not returned.';

CREATE FUNCTION tell_bindings(p_app integer, p_type text, p_pool integer, p_bindings uuid[], p_told jsonb) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
  v_binding uuid;
BEGIN
  IF p_bindings = '{}' THEN
    PERFORM emit_event(p_app, p_type, p_pool, NULL, p_told);
  END IF;
  FOREACH v_binding IN ARRAY p_bindings LOOP
    PERFORM emit_event(p_app, p_type, p_pool, v_binding, p_told);
  END LOOP;
END
$$;
COMMENT ON FUNCTION tell_bindings IS 'One event for each binding, or one that is nobody''s in particular.';

CREATE FUNCTION told_of(p_table text, p_app integer, p_from timestamptz, p_to timestamptz, p_at timestamptz, p_id uuid,
                        p_bindings uuid[], p_x text, p_party bigint, p_limit integer)
RETURNS TABLE (told text)
LANGUAGE plpgsql STABLE SET enable_seqscan = off
AS $$
BEGIN
  -- Planned anew for what is asked, so that the index of the narrowest filter is taken.
  RETURN QUERY EXECUTE format(
    'SELECT to_jsonb(t)::text FROM %I AS t WHERE t.app_id = $1 AND t.at >= $2 AND t.at < $3 AND (t.at, t.id) < ($4, $5)'
    || CASE WHEN p_bindings IS NULL THEN '' ELSE $f$ AND t.bindings && $6 AND t.bindings <> '{}'$f$ END
    || CASE WHEN p_x IS NULL THEN '' ELSE ' AND t.x = $7' END
    || CASE WHEN p_party IS NULL THEN '' WHEN p_table = 'sms' THEN ' AND (t.sender_key = $8 OR t.receiver_key = $8)'
            ELSE ' AND (t.caller_key = $8 OR t.callee_key = $8)' END
    || ' ORDER BY t.at DESC, t.id DESC LIMIT $9', p_table)
  USING p_app, p_from, p_to, p_at, p_id, p_bindings, p_x, p_party, p_limit;
END
$$;
COMMENT ON FUNCTION told_of IS 'Calls, records (cdr) or messages (sms) of an app before (p_at, p_id), newest first. The key of a party may collide: the caller compares the numbers.';

CREATE FUNCTION project_events(p_events text) RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off
AS $$
DECLARE
  v_now CONSTANT timestamptz := broker_now();
  v_items CONSTANT jsonb := p_events::jsonb;
  v_done integer := 0;
  v_call call;
  v_new boolean;
  v_began timestamptz;
  v_first boolean;
  v_type text;
  i record;
BEGIN
  -- Events of one session wait for each other, here and in other instances: which one comes first does not matter then.
  PERFORM pg_advisory_xact_lock(k.lock) FROM (
    SELECT DISTINCT j.lock FROM jsonb_to_recordset(v_items) AS j (lock bigint) ORDER BY j.lock) AS k;
  FOR i IN
    SELECT j.* FROM jsonb_to_recordset(v_items) AS j (
      at timestamptz, id uuid, app_id integer, call_id uuid, type text, pool_id integer, line_id uuid, found_by text,
      bindings uuid[], x text, digits text, state_code integer, released_by smallint, caller_key bigint, callee_key bigint,
      session_sealed bytea, caller_sealed bytea, callee_sealed bytea, session text, call text, reason text)
    ORDER BY j.at, j.id
  LOOP
    CONTINUE WHEN NOT settle_notice(i.at, i.id);
    v_done := v_done + 1;
    SELECT c.* INTO v_call FROM call AS c
    WHERE c.at BETWEEN i.at - interval '2 days' AND i.at + interval '2 days' AND c.id = i.call_id AND c.app_id = i.app_id LIMIT 1;
    v_new := NOT FOUND;
    IF v_new THEN
      v_call.at := i.at; v_call.id := i.call_id; v_call.app_id := i.app_id; v_call.bindings := '{}';
      v_call.started_at := 'infinity'; v_call.timeline := '[]'; v_call.received_at := v_now;
      v_call.session_sealed := i.session_sealed;
    END IF;
    v_first := NOT v_call.timeline @> jsonb_build_array(jsonb_build_object('type', i.type));
    v_began := least(v_call.started_at, i.at);
    IF v_call.line_id IS NULL AND i.line_id IS NOT NULL THEN
      v_call.pool_id := i.pool_id; v_call.line_id := i.line_id; v_call.found_by := i.found_by; v_call.started_at := 'infinity';
      IF v_call.x IS NULL THEN
        SELECT x.number INTO v_call.x FROM line AS l JOIN x_number AS x ON x.pool_id = l.pool_id AND x.x_id = l.x_id
        WHERE l.pool_id = i.pool_id AND l.id = i.line_id;
      END IF;
    END IF;
    IF v_call.line_id IS NOT NULL AND v_began < v_call.started_at THEN
      v_call.bindings := bindings_at(i.app_id, v_call.line_id, v_began);
      IF v_call.bindings = '{}' AND v_call.line_id = i.line_id THEN
        v_call.bindings := coalesce(i.bindings, '{}');
      END IF;
    END IF;
    v_call.started_at := v_began;
    v_call.timeline := (
      SELECT jsonb_agg(t.entry ORDER BY t.entry ->> 'at', t.place) FROM jsonb_array_elements(
        v_call.timeline || jsonb_build_object('type', i.type, 'at', to_char(i.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')))
        WITH ORDINALITY AS t (entry, place));
    v_call.x := coalesce(i.x, v_call.x);
    v_call.extension := coalesce(i.digits, v_call.extension);
    CASE i.type
      WHEN 'alerting' THEN v_call.ringing_at := least(v_call.ringing_at, i.at);
      WHEN 'answer' THEN v_call.answered_at := least(v_call.answered_at, i.at);
      WHEN 'disconnect' THEN
        v_call.ended_at := greatest(v_call.ended_at, i.at);
        v_call.state_code := coalesce(i.state_code, v_call.state_code);
        v_call.released_by := coalesce(i.released_by, v_call.released_by);
      ELSE NULL;
    END CASE;
    IF i.caller_sealed IS NOT NULL THEN
      v_call.caller_key := i.caller_key; v_call.caller_sealed := i.caller_sealed;
    END IF;
    IF i.callee_sealed IS NOT NULL THEN
      v_call.callee_key := i.callee_key; v_call.callee_sealed := i.callee_sealed;
    END IF;
    IF v_new THEN
      INSERT INTO call SELECT v_call.*;
    ELSE
      UPDATE call AS c SET
        pool_id = v_call.pool_id, line_id = v_call.line_id, bindings = v_call.bindings, found_by = v_call.found_by,
        x = v_call.x, extension = v_call.extension, started_at = v_call.started_at, ringing_at = v_call.ringing_at,
        answered_at = v_call.answered_at, ended_at = v_call.ended_at, state_code = v_call.state_code,
        released_by = v_call.released_by, caller_key = v_call.caller_key, callee_key = v_call.callee_key,
        caller_sealed = v_call.caller_sealed, callee_sealed = v_call.callee_sealed, timeline = v_call.timeline
      WHERE c.at = v_call.at AND c.id = v_call.id;
    END IF;
    v_type := CASE i.type WHEN 'callin' THEN 'call.started' WHEN 'alerting' THEN 'call.ringing'
                          WHEN 'answer' THEN 'call.answered' WHEN 'disconnect' THEN 'call.ended' END;
    IF v_type IS NOT NULL AND v_first THEN
      PERFORM tell_bindings(i.app_id, v_type, v_call.pool_id, v_call.bindings, jsonb_strip_nulls(jsonb_build_object(
        'call', i.call, 'session_id', i.session, 'at', i.at, 'x', v_call.x, 'state_code', i.state_code, 'reason', i.reason)));
    END IF;
  END LOOP;
  RETURN v_done;
END
$$;
COMMENT ON FUNCTION project_events IS 'Brings about what call events mean, of those whose effects nobody has brought about yet; returns how many these were.';

CREATE FUNCTION project_cdrs(p_cdrs text) RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off
AS $$
DECLARE
  v_now CONSTANT timestamptz := broker_now();
  v_done integer := 0;
  v_cdr cdr;
  i record;
BEGIN
  FOR i IN
    SELECT jsonb_populate_record(NULL::cdr, j.value) AS row, j.value FROM jsonb_array_elements(p_cdrs::jsonb) AS j
    ORDER BY j.value ->> 'at', j.value ->> 'id'
  LOOP
    v_cdr := i.row;
    CONTINUE WHEN NOT settle_notice(v_cdr.at, v_cdr.id);
    v_done := v_done + 1;
    v_cdr.received_at := v_now;
    IF v_cdr.line_id IS NOT NULL THEN
      v_cdr.bindings := coalesce(nullif(
        bindings_at(v_cdr.app_id, v_cdr.line_id, coalesce(v_cdr.call_in_at, v_cdr.at)), '{}'), v_cdr.bindings);
    END IF;
    v_cdr.bindings := coalesce(v_cdr.bindings, '{}');
    INSERT INTO cdr SELECT v_cdr.* ON CONFLICT (at, id) DO NOTHING;
    CONTINUE WHEN NOT FOUND;
    PERFORM tell_bindings(v_cdr.app_id, 'cdr.created', v_cdr.pool_id, v_cdr.bindings, i.value -> 'told');
    IF v_cdr.record_name IS NOT NULL THEN
      PERFORM tell_bindings(v_cdr.app_id, 'recording.ready', v_cdr.pool_id, v_cdr.bindings, jsonb_build_object(
        'cdr', i.value -> 'told' -> 'cdr', 'call', i.value -> 'told' -> 'call', 'at', v_cdr.record_at));
    END IF;
  END LOOP;
  RETURN v_done;
END
$$;
COMMENT ON FUNCTION project_cdrs IS 'Enters call detail records, as project_events().';

CREATE FUNCTION project_sms(p_sms text) RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off
AS $$
DECLARE
  v_now CONSTANT timestamptz := broker_now();
  v_done integer := 0;
  v_sms sms;
  i record;
BEGIN
  FOR i IN
    SELECT jsonb_populate_record(NULL::sms, j.value) AS row, j.value FROM jsonb_array_elements(p_sms::jsonb) AS j
    ORDER BY j.value ->> 'at', j.value ->> 'id'
  LOOP
    v_sms := i.row;
    CONTINUE WHEN NOT settle_notice(v_sms.at, v_sms.id);
    v_done := v_done + 1;
    -- A question: what becomes of the message is told when it has been answered.
    CONTINUE WHEN (i.value ->> 'question')::boolean;
    v_sms.received_at := v_now;
    IF v_sms.line_id IS NOT NULL THEN
      v_sms.bindings := coalesce(nullif(bindings_at(v_sms.app_id, v_sms.line_id, v_sms.at), '{}'), v_sms.bindings);
    END IF;
    v_sms.bindings := coalesce(v_sms.bindings, '{}');
    INSERT INTO sms SELECT v_sms.* ON CONFLICT (at, id) DO NOTHING;
    CONTINUE WHEN NOT FOUND;
    PERFORM tell_bindings(v_sms.app_id, CASE v_sms.result WHEN 0 THEN 'sms.forwarded' ELSE 'sms.failed' END,
                          v_sms.pool_id, v_sms.bindings, i.value -> 'told');
  END LOOP;
  RETURN v_done;
END
$$;
COMMENT ON FUNCTION project_sms IS 'Enters what became of short messages, as project_events().';
