-- What notifications bring about, for a whole batch in one statement each: taking them one by one cost most of a push.
-- And whom a question is about, for as many as are asked at once.

CREATE FUNCTION bound_then(p_app integer, p_line uuid, p_at timestamptz) RETURNS TABLE (bindings uuid[])
LANGUAGE sql STABLE
AS $$
  SELECT array_agg(DISTINCT h.id ORDER BY h.id)
  FROM (
    SELECT v.id, v.since, v.until, min(v.since) OVER () AS first, max(v.until) OVER () AS last
    FROM binding AS m
    -- Who stays on a line for one that has moved is there for all its time, until the line is let go of.
    CROSS JOIN LATERAL (
      SELECT coalesce(m.moves, m.id) AS id, least(m.ended_at, m.expires_at, 'infinity') AS until,
             CASE WHEN m.moves IS NULL THEN m.created_at
                  ELSE (SELECT o.created_at FROM binding AS o WHERE o.pool_id = m.pool_id AND o.id = m.moves) END AS since
    ) AS v
    WHERE m.line_id = p_line AND m.app_id = p_app AND m.state <> 'failed'
  ) AS h
  WHERE h.since < greatest(p_at + interval '1 second', h.first + interval '1 microsecond')
    AND h.until > least(p_at, h.last - interval '1 microsecond')
$$;
COMMENT ON FUNCTION bound_then IS 'As bindings_at(), but a part of the statement that asks; null = none.';

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
      session_sealed bytea, caller_sealed bytea, callee_sealed bytea, session text, call text, reason text)
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
           coalesce(c.line_id, s.line_id) AS its_line, coalesce(c.pool_id, s.pool_id) AS its_pool,
           CASE WHEN c.line_id IS NULL THEN s.found_by ELSE c.found_by END AS its_found_by,
           -- A line that is learned now, or a beginning that is earlier than was known, decides anew.
           s.line_id IS NOT NULL AND c.line_id IS NULL OR c.line_id IS NOT NULL AND s.began < c.started_at AS asks,
           c.bindings AS old_bindings, c.x AS old_x, c.extension, c.ringing_at AS rang_at, c.answered_at AS old_answered_at,
           c.ended_at AS old_ended_at, c.state_code AS old_code, c.released_by AS old_released_by,
           c.caller_key AS old_caller_key, c.caller_sealed AS old_caller, c.callee_key AS old_callee_key,
           c.callee_sealed AS old_callee, c.session_sealed AS old_session
    FROM said AS s
    LEFT JOIN LATERAL (
      SELECT o.* FROM call AS o
      WHERE o.at BETWEEN s.began - interval '2 days' AND s.began + interval '2 days' AND o.id = s.call_id AND o.app_id = s.app_id
      LIMIT 1) AS c ON true
  ),
  whole AS MATERIALIZED (
    SELECT k.*, coalesce(k.at, k.began) AS its_at, least(k.started_at, k.began) AS its_start,
           coalesce(k.x, k.old_x, CASE WHEN k.asks THEN (
             SELECT x.number FROM line AS l JOIN x_number AS x ON x.pool_id = l.pool_id AND x.x_id = l.x_id
             WHERE l.pool_id = k.its_pool AND l.id = k.its_line) END) AS its_x,
           coalesce(CASE WHEN k.asks THEN coalesce(
             (SELECT b.bindings FROM bound_then(k.app_id, k.its_line, least(k.started_at, k.began)) AS b),
             CASE WHEN k.its_line = k.line_id THEN ARRAY(SELECT e.id::uuid FROM jsonb_array_elements_text(k.bindings) AS e (id)) END)
           ELSE k.old_bindings END, '{}') AS its_bindings
    FROM known AS k
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
      CROSS JOIN LATERAL unnest(w.types, w.ats, w.codes, w.reasons) WITH ORDINALITY AS n (type, at, code, reason, place)
      CROSS JOIN LATERAL (SELECT CASE n.type WHEN 'callin' THEN 'call.started' WHEN 'alerting' THEN 'call.ringing'
                                             WHEN 'answer' THEN 'call.answered' WHEN 'disconnect' THEN 'call.ended' END AS type) AS k
      CROSS JOIN LATERAL unnest(CASE w.its_bindings WHEN '{}' THEN ARRAY[NULL::uuid] ELSE w.its_bindings END) AS b (binding)
      WHERE k.type IS NOT NULL AND n.type <> ALL (w.types[:n.place - 1])
        AND NOT coalesce(w.timeline @> jsonb_build_array(jsonb_build_object('type', n.type)), false)
        AND (SELECT a.event_days FROM app AS a WHERE a.id = w.app_id) > 0
      ORDER BY n.at, w.call_id, n.place, b.binding
    ) AS e
  )
  SELECT coalesce(sum(s.events), 0) INTO v_done FROM said AS s;
  RETURN v_done;
END
$$;

CREATE OR REPLACE FUNCTION project_cdrs(p_cdrs text) RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  v_now CONSTANT timestamptz := broker_now();
  v_done integer;
BEGIN
  WITH item AS MATERIALIZED (
    SELECT r AS row, r.at, r.id, j.value -> 'told' AS told
    FROM jsonb_array_elements(p_cdrs::jsonb) AS j (value) CROSS JOIN LATERAL jsonb_populate_record(NULL::cdr, j.value) AS r
    ORDER BY r.at, r.id
  ),
  done AS (
    UPDATE inbox AS n SET state = 'done', settled_at = clock_timestamp(), error = NULL FROM item AS i
    WHERE n.at = i.at AND n.id = i.id AND n.state = 'new'
    RETURNING i.row, i.told
  ),
  whole AS MATERIALIZED (
    SELECT r AS row, d.told
    FROM done AS d
    CROSS JOIN LATERAL jsonb_populate_record(d.row, jsonb_build_object('received_at', v_now, 'bindings', coalesce(
      (SELECT b.bindings FROM bound_then((d.row).app_id, (d.row).line_id, coalesce((d.row).call_in_at, (d.row).at)) AS b),
      (d.row).bindings, '{}'))) AS r
  ),
  entered AS (
    INSERT INTO cdr SELECT (w.row).* FROM whole AS w ON CONFLICT (at, id) DO NOTHING RETURNING id
  ),
  told AS (
    INSERT INTO event (id, at, app_id, type, pool_id, binding_id, data)
    SELECT nextval('event_ids'), v_now, e.app_id, e.type, e.pool_id, e.binding, e.data
    FROM (
      SELECT (w.row).app_id, k.type, (w.row).pool_id, b.binding, k.data
      FROM whole AS w
      CROSS JOIN LATERAL (
        SELECT 1 AS place, 'cdr.created' AS type, w.told AS data
        UNION ALL
        SELECT 2, 'recording.ready', jsonb_build_object('cdr', w.told -> 'cdr', 'call', w.told -> 'call', 'at', (w.row).record_at)
        WHERE (w.row).record_name IS NOT NULL) AS k
      CROSS JOIN LATERAL unnest(CASE (w.row).bindings WHEN '{}' THEN ARRAY[NULL::uuid] ELSE (w.row).bindings END) AS b (binding)
      WHERE (w.row).id = ANY (ARRAY(SELECT n.id FROM entered AS n))
        AND (SELECT a.event_days FROM app AS a WHERE a.id = (w.row).app_id) > 0
      ORDER BY (w.row).at, (w.row).id, k.place, b.binding
    ) AS e
  )
  SELECT count(*) INTO v_done FROM whole;
  RETURN v_done;
END
$$;

CREATE OR REPLACE FUNCTION project_sms(p_sms text) RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  v_now CONSTANT timestamptz := broker_now();
  v_done integer;
BEGIN
  WITH item AS MATERIALIZED (
    SELECT r AS row, r.at, r.id, j.value -> 'told' AS told, (j.value ->> 'question')::boolean AS question
    FROM jsonb_array_elements(p_sms::jsonb) AS j (value) CROSS JOIN LATERAL jsonb_populate_record(NULL::sms, j.value) AS r
    ORDER BY r.at, r.id
  ),
  done AS (
    UPDATE inbox AS n SET state = 'done', settled_at = clock_timestamp(), error = NULL FROM item AS i
    WHERE n.at = i.at AND n.id = i.id AND n.state = 'new'
    RETURNING i.row, i.told, i.question
  ),
  whole AS MATERIALIZED (
    SELECT r AS row, d.told, d.question
    FROM done AS d
    CROSS JOIN LATERAL jsonb_populate_record(d.row, jsonb_build_object('received_at', v_now, 'bindings', coalesce(
      (SELECT b.bindings FROM bound_then((d.row).app_id, (d.row).line_id, (d.row).at) AS b), (d.row).bindings, '{}'))) AS r
  ),
  entered AS (
    -- Of a question: what becomes of the message is told when it has been answered.
    INSERT INTO sms SELECT (w.row).* FROM whole AS w WHERE NOT w.question ON CONFLICT (at, id) DO NOTHING RETURNING id
  ),
  told AS (
    INSERT INTO event (id, at, app_id, type, pool_id, binding_id, data)
    SELECT nextval('event_ids'), v_now, e.app_id, e.type, e.pool_id, e.binding, e.data
    FROM (
      SELECT (w.row).app_id, CASE (w.row).result WHEN 0 THEN 'sms.forwarded' ELSE 'sms.failed' END AS type, (w.row).pool_id, b.binding,
             w.told AS data
      FROM whole AS w
      CROSS JOIN LATERAL unnest(CASE (w.row).bindings WHEN '{}' THEN ARRAY[NULL::uuid] ELSE (w.row).bindings END) AS b (binding)
      WHERE (w.row).id = ANY (ARRAY(SELECT n.id FROM entered AS n))
        AND (SELECT a.event_days FROM app AS a WHERE a.id = (w.row).app_id) > 0
      ORDER BY (w.row).at, (w.row).id, b.binding
    ) AS e
  )
  SELECT count(*) INTO v_done FROM whole;
  RETURN v_done;
END
$$;

CREATE FUNCTION behind_all(p_by text[], p_pool integer[], p_x integer[], p_party bigint[])
RETURNS TABLE (ord integer, pool_id integer, line_id uuid, state text, direction text, a_sealed bytea, b_sealed bytea,
               callee_sealed bytea, callee_user_data text, options text, over boolean, live boolean, why text,
               bindings uuid[], user_data text[])
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := broker_now();
BEGIN
  RETURN QUERY
  SELECT i.ord::integer, l.pool_id, l.id, l.state, l.direction, l.a_sealed, l.b_sealed,
         CASE WHEN l.callee_until > v_now THEN l.callee_sealed END, l.callee_user_data, l.options,
         l.expires_at IS NOT NULL AND l.expires_at <= v_now, e.bindings IS NOT NULL, e.why, e.bindings, e.user_data
  FROM unnest(p_by, p_pool, p_x, p_party) WITH ORDINALITY AS i (by, pool_id, x_id, party, ord)
  -- Each by the one index that fits.
  CROSS JOIN LATERAL (
    (SELECT s.line_id FROM slot AS s
     WHERE i.by = 'pair' AND s.pool_id = i.pool_id AND s.party_key = i.party AND s.x_id = i.x_id)
    UNION ALL
    (SELECT w.id FROM line AS w
     WHERE i.by = 'whole' AND w.x_key = i.pool_id::bigint * 100000 + i.x_id AND w.seat IS NOT NULL AND w.b_key IS NULL LIMIT 2)
  ) AS f
  JOIN line AS l ON l.pool_id = i.pool_id AND l.id = f.line_id
  CROSS JOIN LATERAL (
    SELECT array_agg(b.id ORDER BY b.id) FILTER (WHERE b.lives) AS bindings,
           array_agg(b.user_data ORDER BY b.id) FILTER (WHERE b.lives) AS user_data, max(b.reason) AS why
    FROM (
      SELECT m.id, m.user_data, m.reason, m.state = 'active' AND m.created_at <= v_now AND (m.ended_at IS NULL OR m.ended_at > v_now)
          AND (m.expires_at IS NULL OR m.expires_at > v_now) AS lives
      FROM binding AS m WHERE m.line_id = l.id AND m.moves IS NULL OFFSET 0
    ) AS b
  ) AS e;
END
$$;
COMMENT ON FUNCTION behind_all IS
  'As behind() for now, by pair or whole, for many calls in mode X at once; ord says which. What is not found is not returned.';

-- A plan for arrays of any length serves as well as one for this array; making it anew took most of a small statement's time.
ALTER FUNCTION lines_told(integer[], uuid[], text[], text[]) SET plan_cache_mode = force_generic_plan;
