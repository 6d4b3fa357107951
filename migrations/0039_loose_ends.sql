-- Whose a call is, where its first event cannot say; and until when a line stands that no order has any more.
--
-- What is dropped nothing has called since 0034.
-- squawk-ignore-file ban-drop-function

CREATE OR REPLACE FUNCTION project_events(p_events text) RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  v_now CONSTANT timestamptz := broker_now();
  v_items CONSTANT jsonb := p_events::jsonb;
  v_done integer;
BEGIN
  -- Events of one session wait for each other, here and in other instances: which one comes first does not matter then.
  PERFORM pg_advisory_xact_lock(k.lock) FROM (
    SELECT DISTINCT j.lock FROM jsonb_to_recordset(v_items) AS j (lock bigint) ORDER BY j.lock) AS k;
  WITH item AS MATERIALIZED (
    SELECT j.* FROM jsonb_to_recordset(v_items) AS j (
      at timestamptz, id uuid, app_id integer, call_id uuid, type text, pool_id integer, line_id uuid, found_by text,
      bindings uuid[], x text, digits text, state_code integer, released_by smallint, caller_key bigint, callee_key bigint,
      session_sealed bytea, caller_sealed bytea, callee_sealed bytea, session text, call text, reason text, subscription text)
    ORDER BY j.at, j.id
  ),
  done AS (
    UPDATE inbox AS n SET state = 'done', settled_at = clock_timestamp(), error = NULL FROM item AS i
    WHERE n.at = i.at AND n.id = i.id AND n.state = 'new'
    RETURNING i.*
  ),
  -- What this batch says of each session. Of what only one event says, the last one's word counts.
  said AS MATERIALIZED (
    SELECT d.app_id, d.call_id, count(*) AS events, min(d.at) AS began, min(d.session) AS session, min(d.call) AS call,
           min(d.at) FILTER (WHERE d.type = 'alerting') AS ringing_at, min(d.at) FILTER (WHERE d.type = 'answer') AS answered_at,
           max(d.at) FILTER (WHERE d.type = 'disconnect') AS ended_at,
           (array_agg(d.state_code ORDER BY d.at DESC, d.id) FILTER (WHERE d.type = 'disconnect' AND d.state_code IS NOT NULL))[1] AS state_code,
           (array_agg(d.released_by ORDER BY d.at DESC, d.id) FILTER (WHERE d.type = 'disconnect' AND d.released_by IS NOT NULL))[1] AS released_by,
           (array_agg(d.x ORDER BY d.at DESC, d.id) FILTER (WHERE d.x IS NOT NULL))[1] AS x,
           (array_agg(d.digits ORDER BY d.at DESC, d.id) FILTER (WHERE d.digits IS NOT NULL))[1] AS digits,
           (array_agg(d.caller_key ORDER BY d.at DESC, d.id) FILTER (WHERE d.caller_sealed IS NOT NULL))[1] AS caller_key,
           (array_agg(d.caller_sealed ORDER BY d.at DESC, d.id) FILTER (WHERE d.caller_sealed IS NOT NULL))[1] AS caller_sealed,
           (array_agg(d.callee_key ORDER BY d.at DESC, d.id) FILTER (WHERE d.callee_sealed IS NOT NULL))[1] AS callee_key,
           (array_agg(d.callee_sealed ORDER BY d.at DESC, d.id) FILTER (WHERE d.callee_sealed IS NOT NULL))[1] AS callee_sealed,
           (array_agg(d.session_sealed))[1] AS session_sealed,
           (array_agg(d.subscription ORDER BY d.at DESC, d.id) FILTER (WHERE d.subscription IS NOT NULL))[1] AS subscription,
           (array_agg(d.pool_id ORDER BY d.at, d.id) FILTER (WHERE d.line_id IS NOT NULL))[1] AS pool_id,
           (array_agg(d.line_id ORDER BY d.at, d.id) FILTER (WHERE d.line_id IS NOT NULL))[1] AS line_id,
           (array_agg(d.found_by ORDER BY d.at, d.id) FILTER (WHERE d.line_id IS NOT NULL))[1] AS found_by,
           (array_agg(to_jsonb(d.bindings) ORDER BY d.at, d.id) FILTER (WHERE d.line_id IS NOT NULL))[1] AS bindings,
           array_agg(d.type ORDER BY d.at, d.id) AS types, array_agg(d.at ORDER BY d.at, d.id) AS ats,
           array_agg(d.state_code ORDER BY d.at, d.id) AS codes, array_agg(d.reason ORDER BY d.at, d.id) AS reasons
    FROM done AS d GROUP BY d.app_id, d.call_id
  ),
  known AS (
    SELECT s.*, c.at, c.started_at, c.timeline, c.received_at,
           coalesce(c.line_id, s.line_id, t.line_id) AS its_line, coalesce(c.pool_id, s.pool_id, t.pool_id) AS its_pool,
           CASE WHEN c.line_id IS NOT NULL THEN c.found_by
                WHEN s.line_id IS NULL AND t.line_id IS NOT NULL THEN 'subscription' ELSE s.found_by END AS its_found_by,
           -- A line that is learned now, or a beginning that is earlier than was known, decides anew.
           coalesce(s.line_id, t.line_id) IS NOT NULL AND c.line_id IS NULL OR c.line_id IS NOT NULL AND s.began < c.started_at AS asks,
           c.line_id AS old_line, c.bindings AS old_bindings, c.x AS old_x, c.extension, c.ringing_at AS rang_at,
           c.answered_at AS old_answered_at,
           c.ended_at AS old_ended_at, c.state_code AS old_code, c.released_by AS old_released_by,
           c.caller_key AS old_caller_key, c.caller_sealed AS old_caller, c.callee_key AS old_callee_key,
           c.callee_sealed AS old_callee, c.session_sealed AS old_session
    FROM said AS s
    LEFT JOIN LATERAL (
      SELECT o.* FROM call AS o
      WHERE o.at BETWEEN s.began - interval '2 days' AND s.began + interval '2 days' AND o.id = s.call_id AND o.app_id = s.app_id
      LIMIT 1) AS c ON true
    -- A subscription tells the line together with X, which only the first event of a call names.
    LEFT JOIN LATERAL (
      SELECT l.pool_id, l.id AS line_id FROM x_number AS x
      JOIN line AS l ON l.x_key = x.pool_id::bigint * 100000 + x.x_id AND l.seat IS NOT NULL
      WHERE s.line_id IS NULL AND c.line_id IS NULL AND s.subscription IS NOT NULL AND x.number = coalesce(s.x, c.x)
        AND x.state <> 'moved' AND l.app_id = s.app_id AND l.subscription_id = s.subscription LIMIT 1) AS t ON true
  ),
  whole AS MATERIALIZED (
    SELECT k.*, coalesce(k.at, k.began) AS its_at, least(k.started_at, k.began) AS its_start,
           coalesce(k.x, k.old_x, CASE WHEN k.asks THEN (
             SELECT x.number FROM line AS l JOIN x_number AS x ON x.pool_id = l.pool_id AND x.x_id = l.x_id
             WHERE l.pool_id = k.its_pool AND l.id = k.its_line) END) AS its_x,
           coalesce(CASE WHEN k.asks THEN coalesce(
             (SELECT b.bindings FROM bound_then(k.app_id, k.its_line, least(k.started_at, k.began)) AS b),
             CASE WHEN k.its_line = k.line_id THEN ARRAY(SELECT e.id::uuid FROM jsonb_array_elements_text(k.bindings) AS e (id)) END)
           ELSE k.old_bindings END, '{}') AS its_bindings,
           -- Where an extension is dialled nobody can say at the beginning whose call it is: that is told once it is known,
           -- or when the call is over.
           a.mode = 'axe' AND k.its_line IS NULL AND k.old_ended_at IS NULL AND k.ended_at IS NULL AS waits,
           a.mode = 'axe' AND k.old_line IS NULL AND k.old_ended_at IS NULL AS waited
    FROM known AS k JOIN app AS a ON a.id = k.app_id
  ),
  entered AS (
    INSERT INTO call AS c (
      at, id, app_id, pool_id, line_id, bindings, found_by, x, extension, started_at, ringing_at, answered_at, ended_at, state_code,
      released_by, caller_key, callee_key, session_sealed, caller_sealed, callee_sealed, timeline, received_at)
    SELECT w.its_at, w.call_id, w.app_id, w.its_pool, w.its_line, w.its_bindings, w.its_found_by, w.its_x,
           coalesce(w.digits, w.extension), w.its_start, least(w.rang_at, w.ringing_at), least(w.old_answered_at, w.answered_at),
           greatest(w.old_ended_at, w.ended_at), coalesce(w.state_code, w.old_code), coalesce(w.released_by, w.old_released_by),
           CASE WHEN w.caller_sealed IS NULL THEN w.old_caller_key ELSE w.caller_key END,
           CASE WHEN w.callee_sealed IS NULL THEN w.old_callee_key ELSE w.callee_key END,
           coalesce(w.old_session, w.session_sealed), coalesce(w.caller_sealed, w.old_caller), coalesce(w.callee_sealed, w.old_callee),
           (SELECT jsonb_agg(t.entry ORDER BY t.entry ->> 'at', t.place)
            FROM (
              SELECT o.entry, o.place FROM jsonb_array_elements(w.timeline) WITH ORDINALITY AS o (entry, place)
              UNION ALL
              SELECT jsonb_build_object('type', n.type, 'at', to_char(n.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')), 1000 + n.place
              FROM unnest(w.types, w.ats) WITH ORDINALITY AS n (type, at, place)
            ) AS t),
           coalesce(w.received_at, v_now)
    FROM whole AS w
    ON CONFLICT (id, at) DO UPDATE SET
      pool_id = excluded.pool_id, line_id = excluded.line_id, bindings = excluded.bindings, found_by = excluded.found_by,
      x = excluded.x, extension = excluded.extension, started_at = excluded.started_at, ringing_at = excluded.ringing_at,
      answered_at = excluded.answered_at, ended_at = excluded.ended_at, state_code = excluded.state_code,
      released_by = excluded.released_by, caller_key = excluded.caller_key, callee_key = excluded.callee_key,
      caller_sealed = excluded.caller_sealed, callee_sealed = excluded.callee_sealed, timeline = excluded.timeline
  ),
  told AS (
    INSERT INTO event (id, at, app_id, type, pool_id, binding_id, data)
    -- The ids are drawn in this order, after the rows above were changed.
    SELECT nextval('event_ids'), v_now, e.app_id, e.type, e.pool_id, e.binding, e.data
    FROM (
      SELECT w.app_id, k.type, w.its_pool AS pool_id, b.binding, jsonb_strip_nulls(jsonb_build_object(
               'call', w.call, 'session_id', w.session, 'at', n.at, 'x', w.its_x, 'state_code', n.code, 'reason', n.reason,
               -- Whoever heard of a later phase before is told so.
               'late', EXISTS (SELECT FROM jsonb_array_elements(w.timeline) AS o (entry) WHERE
                 array_position(ARRAY['callin', 'alerting', 'answer', 'disconnect'], o.entry ->> 'type')
                 > array_position(ARRAY['callin', 'alerting', 'answer', 'disconnect'], n.type)) OR NULL)) AS data
      FROM whole AS w
      CROSS JOIN LATERAL (
        SELECT u.* FROM unnest(w.types, w.ats, w.codes, w.reasons) WITH ORDINALITY AS u (type, at, code, reason, place)
        WHERE u.type <> ALL (w.types[:u.place - 1]) AND NOT (u.type = 'callin' AND w.waits)
          AND NOT coalesce(w.timeline @> jsonb_build_array(jsonb_build_object('type', u.type)), false)
        UNION ALL
        SELECT 'callin', min((o.entry ->> 'at')::timestamptz), NULL, NULL, 0 FROM jsonb_array_elements(w.timeline) AS o (entry)
        WHERE w.waited AND NOT w.waits AND o.entry ->> 'type' = 'callin' HAVING count(*) > 0
      ) AS n
      CROSS JOIN LATERAL (SELECT CASE n.type WHEN 'callin' THEN 'call.started' WHEN 'alerting' THEN 'call.ringing'
                                             WHEN 'answer' THEN 'call.answered' WHEN 'disconnect' THEN 'call.ended' END AS type) AS k
      CROSS JOIN LATERAL unnest(CASE w.its_bindings WHEN '{}' THEN ARRAY[NULL::uuid] ELSE w.its_bindings END) AS b (binding)
      WHERE k.type IS NOT NULL AND (SELECT a.event_days FROM app AS a WHERE a.id = w.app_id) > 0
      ORDER BY n.at, w.call_id, n.place, b.binding
    ) AS e
  )
  SELECT coalesce(sum(s.events), 0) INTO v_done FROM said AS s;
  RETURN v_done;
END
$$;

DROP FUNCTION tell_bindings(integer, text, integer, uuid[], jsonb);
DROP FUNCTION bindings_at(integer, uuid, timestamptz);
COMMENT ON FUNCTION bound_then IS
  'The bindings that a line had at a moment; before its first one that, after its last one that. A part of the statement that asks; null = none.';

ALTER TABLE line ADD COLUMN kept_until timestamptz;
COMMENT ON COLUMN line.kept_until IS 'Its last order was released with grace: until then it stands without one, and the sweep ends it.';

CREATE OR REPLACE FUNCTION release_later(p_pool integer, p_binding uuid, p_app integer, p_grace interval) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off
AS $$
DECLARE
  v_now timestamptz;
  v_line uuid;
BEGIN
  SELECT b.line_id INTO v_line FROM binding AS b WHERE b.pool_id = p_pool AND b.id = p_binding AND b.app_id = p_app;
  PERFORM FROM line AS l
  WHERE l.pool_id = p_pool AND l.id = v_line AND l.state = 'active' AND l.confirmed_at IS NOT NULL AND NOT l.changing FOR UPDATE;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  v_now := broker_now();
  UPDATE binding AS b SET state = 'released', reason = 'released', ended_at = v_now
  WHERE b.pool_id = p_pool AND b.id = p_binding AND b.line_id = v_line AND b.state = 'active' AND NOT moves_now(b.pool_id, b.moving)
    AND NOT EXISTS (
      SELECT FROM binding AS o WHERE o.line_id = v_line AND o.id <> p_binding AND o.state IN ('pending', 'active'));
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  -- The sweep ends a line that has no binding.
  UPDATE line AS l SET sweep_at = least(v_now + p_grace, l.expires_at), kept_until = least(v_now + p_grace, l.expires_at)
  WHERE l.pool_id = p_pool AND l.id = v_line;
  RETURN true;
END
$$;
