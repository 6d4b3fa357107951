-- What operators do: apps, callers, keys, pools, numbers. Rare, by people: clear before fast.

-- name: apps
SELECT name, mode, app_key, base_url, auth_scheme, rate, burst, bind_rate, unbind_rate, modify_rate,
       query_rate, default_ttl_s, max_ttl_s, quarantine_s, cap, policy, heat, recording, sms, extension_digits, extensions_per_x, owner, recreate, retention_days, event_days, requests_per_s, max_live_bindings, withdraw_after_s, end_after_call_s, renew_by_call_s, longest_life_s, release_grace_s, call_back_s, sample_share, sample_factor, unreachable_after, complaint_budget, complaint_days, answer_floor, over_budget,
       event_url, cdr_url, sms_url,
       push_wsse, push_from, close_tone, channel, industry, call_script,
       CASE WHEN next_secret_sealed IS NOT NULL THEN 'staged' WHEN previous_secret_sealed IS NOT NULL THEN 'previous' END
         AS second_secret,
       state, state_reason, state_since, shadow, shadow_changed_at, created_at
FROM app WHERE $1::text IS NULL OR name = $1 ORDER BY name;

-- name: app_id
SELECT id FROM app WHERE name = $1;

-- name: app_access
SELECT id, name, mode, app_key, secret_sealed, next_secret_sealed, base_url, auth_scheme, rate, burst, extension_digits
FROM app WHERE name = $1;

-- name: add_app
INSERT INTO app (name, mode, app_key, auth_scheme, secret_sealed, base_url, rate, burst, bind_rate,
                 unbind_rate, modify_rate, query_rate, default_ttl_s, max_ttl_s, quarantine_s, cap, policy, heat, recording, sms, extension_digits, extensions_per_x, owner, recreate,
                 retention_days, event_days, requests_per_s, max_live_bindings, withdraw_after_s, end_after_call_s, renew_by_call_s, longest_life_s, release_grace_s, call_back_s, sample_share, sample_factor, unreachable_after, complaint_budget, complaint_days, answer_floor, over_budget,
       event_url, cdr_url, sms_url,
                 push_wsse, push_from, close_tone, channel, industry, call_script, shadow, shadow_changed_at)
SELECT r.name, r.mode, r.app_key, r.auth_scheme, $2, r.base_url, r.rate, r.burst, r.bind_rate,
       r.unbind_rate, r.modify_rate, r.query_rate, r.default_ttl_s, r.max_ttl_s, r.quarantine_s, r.cap, r.policy, r.heat, r.recording, r.sms, r.extension_digits, r.extensions_per_x, r.owner,
       r.recreate, r.retention_days, r.event_days, r.requests_per_s, r.max_live_bindings, r.withdraw_after_s, r.end_after_call_s, r.renew_by_call_s, r.longest_life_s, r.release_grace_s, r.call_back_s, r.sample_share, r.sample_factor, r.unreachable_after, r.complaint_budget, r.complaint_days, r.answer_floor, r.over_budget,
       r.event_url, r.cdr_url, r.sms_url,
       coalesce(r.push_wsse, true), r.push_from, r.close_tone, r.channel, r.industry, r.call_script,
       r.shadow, CASE WHEN r.shadow THEN clock_timestamp() END
FROM jsonb_populate_record(NULL::app, $1::text::jsonb) AS r
ON CONFLICT DO NOTHING
RETURNING id;

-- name: change_app
-- What the document does not name keeps its value; null is a value.
UPDATE app AS a SET
  (base_url, rate, burst, bind_rate, unbind_rate, modify_rate, query_rate, default_ttl_s, max_ttl_s, quarantine_s, cap, policy, heat, recording, sms, extension_digits,
   extensions_per_x, owner, recreate, retention_days, event_days, requests_per_s, max_live_bindings, withdraw_after_s, end_after_call_s, renew_by_call_s, longest_life_s, release_grace_s, call_back_s, sample_share, sample_factor, unreachable_after, complaint_budget, complaint_days, answer_floor, over_budget,
       event_url, cdr_url, sms_url,
   push_wsse, push_from, close_tone, channel, industry, call_script) = (
    SELECT r.base_url, r.rate, r.burst, r.bind_rate, r.unbind_rate, r.modify_rate, r.query_rate, r.default_ttl_s, r.max_ttl_s, r.quarantine_s, r.cap, r.policy, r.heat, r.recording,
           r.sms, r.extension_digits, r.extensions_per_x, r.owner, r.recreate, r.retention_days, r.event_days, r.requests_per_s, r.max_live_bindings, r.withdraw_after_s, r.end_after_call_s, r.renew_by_call_s, r.longest_life_s, r.release_grace_s, r.call_back_s, r.sample_share, r.sample_factor, r.unreachable_after, r.complaint_budget, r.complaint_days, r.answer_floor, r.over_budget,
       r.event_url, r.cdr_url, r.sms_url,
           r.push_wsse, r.push_from, r.close_tone, r.channel, r.industry, r.call_script
    FROM jsonb_populate_record(a, $2::text::jsonb) AS r),
  secret_sealed = coalesce($3, a.secret_sealed)
WHERE a.name = $1
RETURNING a.id;

-- name: stage_secret
UPDATE app SET next_secret_sealed = $2 WHERE name = $1 AND previous_secret_sealed IS NULL RETURNING id;

-- name: promote_secret
UPDATE app SET secret_sealed = next_secret_sealed, previous_secret_sealed = secret_sealed, next_secret_sealed = NULL
WHERE name = $1 AND next_secret_sealed IS NOT NULL
RETURNING id;

-- name: drop_secret
UPDATE app SET next_secret_sealed = NULL, previous_secret_sealed = NULL
WHERE name = $1 AND (next_secret_sealed IS NOT NULL OR previous_secret_sealed IS NOT NULL)
RETURNING id;

-- name: set_app_state
UPDATE app SET state = $2, state_reason = $3, state_since = statement_timestamp() WHERE name = $1 RETURNING id;

-- name: callers
SELECT c.name, c.weight, c.requests_per_s, c.max_live_bindings, c.created_at,
       (SELECT count(*) FROM api_key AS k WHERE k.caller_id = c.id AND k.revoked_at IS NULL) AS live_keys
FROM caller AS c WHERE c.app_id = $1 AND ($2::text IS NULL OR c.name = $2) ORDER BY c.name;

-- name: caller_id
SELECT id FROM caller WHERE app_id = $1 AND name = $2;

-- name: add_caller
INSERT INTO caller (app_id, name, weight, requests_per_s, max_live_bindings) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: change_caller
UPDATE caller AS c SET (weight, requests_per_s, max_live_bindings) = (
  SELECT r.weight, r.requests_per_s, r.max_live_bindings FROM jsonb_populate_record(c, $3::text::jsonb) AS r)
WHERE c.app_id = $1 AND c.name = $2
RETURNING c.id;

-- name: keys
SELECT c.name AS caller, k.hint, k.scopes, k.created_at, k.revoked_at
FROM api_key AS k JOIN caller AS c ON c.id = k.caller_id
WHERE c.app_id = $1 AND ($2::text IS NULL OR c.name = $2) ORDER BY c.name, k.created_at;

-- name: add_key
INSERT INTO api_key (key_hash, caller_id, place, scopes, hint)
SELECT $1, $2, p.place, $3, $4 FROM (VALUES (1::smallint), (2::smallint)) AS p (place)
WHERE NOT EXISTS (
  SELECT FROM api_key AS k WHERE k.caller_id = $2 AND k.place = p.place AND k.revoked_at IS NULL
)
ORDER BY p.place LIMIT 1
ON CONFLICT DO NOTHING
RETURNING created_at;

-- name: live_keys
SELECT hint, scopes FROM api_key WHERE caller_id = $1 AND revoked_at IS NULL ORDER BY created_at;

-- name: revoke_key
UPDATE api_key SET revoked_at = clock_timestamp()
WHERE caller_id = $1 AND hint = $2 AND revoked_at IS NULL
RETURNING place;

-- name: key_owner
SELECT a.name AS app, c.name AS caller, k.scopes, k.hint
FROM api_key AS k JOIN caller AS c ON c.id = k.caller_id JOIN app AS a ON a.id = c.app_id
WHERE k.key_hash = $1 AND k.revoked_at IS NULL;

-- name: pools
-- Of a pool of pairs there are no places. places_per_x is what its settings leave of places_per_x_unsafe.
WITH found AS MATERIALIZED (
  SELECT p.id, p.name, p.area_code, p.state, p.routing, p.typo_safe, p.low_percent, p.created_at, count(x.number) AS numbers,
         count(x.number) FILTER (WHERE x.state = 'open') AS open_numbers,
         count(x.number) FILTER (WHERE x.state = 'frozen') AS frozen_numbers,
         count(x.number) FILTER (WHERE x.state = 'suspended') AS suspended_numbers, cardinality(places_of_pool(p.id)) AS per_x,
         least(a.extensions_per_x, (10 ^ a.extension_digits)::integer - 1) AS unsafe
  FROM pool AS p JOIN app AS a ON a.id = p.app_id LEFT JOIN x_number AS x ON x.pool_id = p.id AND x.state <> 'moved'
  WHERE p.app_id = $1 AND ($2::text IS NULL OR p.name = $2)
  GROUP BY p.id, a.id
)
SELECT f.name, f.area_code, f.state, f.routing, f.typo_safe, f.created_at, f.numbers, f.open_numbers, f.frozen_numbers,
       f.suspended_numbers, f.low_percent, l.state AS level, l.left_percent,
       nullif(f.per_x, 0) AS places_per_x, CASE WHEN f.typo_safe AND f.per_x > 0 THEN f.unsafe END AS places_per_x_unsafe,
       c.held + c.resting + c.free AS places, c.held, c.resting, c.free
FROM found AS f
LEFT JOIN pool_level AS l ON l.pool_id = f.id AND f.low_percent IS NOT NULL
LEFT JOIN LATERAL (SELECT n.held, n.resting, n.free FROM count_places(ARRAY[f.id]) AS n WHERE f.per_x > 0) AS c ON true
ORDER BY f.name;

-- name: pool_ids
SELECT id, name, area_code FROM pool WHERE app_id = $1;

-- name: resting_of_pool
SELECT p.id, a.quarantine_s, a.sample_share, a.sample_factor FROM pool AS p JOIN app AS a ON a.id = p.app_id
WHERE p.app_id = $1 AND p.name = $2;

-- name: add_pool
INSERT INTO pool (app_id, name, area_code, routing, typo_safe, low_percent) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: change_pool
-- Who is behind an X would change under the feet of those who are: the routing is fixed once there are numbers.
UPDATE pool AS p
SET routing = coalesce($3, p.routing), typo_safe = coalesce($4, p.typo_safe), low_percent = CASE WHEN $5 THEN $6 ELSE p.low_percent END
WHERE p.app_id = $1 AND p.name = $2
  AND (coalesce($3, p.routing) = p.routing OR NOT EXISTS (SELECT FROM x_number AS x WHERE x.pool_id = p.id))
RETURNING p.id;

-- name: set_pool_state
UPDATE pool SET state = $3 WHERE app_id = $1 AND name = $2 RETURNING id;

-- name: numbers
WITH picked AS MATERIALIZED (
  SELECT x.pool_id, x.x_id, x.number, p.name AS pool, p.area_code, x.state, x.state_reason, x.state_since, x.closed_by,
         x.platform_status, x.platform_status_at, x.carrier, x.rent
  FROM x_number AS x JOIN pool AS p ON p.id = x.pool_id
  WHERE p.app_id = $1 AND ($2::text IS NULL OR p.name = $2) AND CASE WHEN $3::text IS NULL THEN x.state <> 'moved' ELSE x.state = $3 END
    AND ($4::text[] IS NULL OR x.number = ANY ($4))
),
-- One pass over the slots of the pools concerned: they have no index by X on purpose.
resting AS (
  SELECT s.pool_id, s.x_id, max(s.until) AS until FROM slot AS s
  WHERE s.pool_id IN (SELECT d.pool_id FROM picked AS d WHERE d.state = 'draining') AND s.until <> 'infinity'
  GROUP BY s.pool_id, s.x_id
),
counted AS (
  SELECT q.*, greatest(r.until, (
           SELECT max(h.until) FROM place AS h
           WHERE q.state = 'draining' AND h.pool_id = q.pool_id AND h.x_id = q.x_id AND h.until NOT IN ('infinity', '-infinity'))) AS until,
         (SELECT count(*) FROM line AS l WHERE l.x_key = q.pool_id::bigint * 100000 + q.x_id AND l.seat IS NOT NULL)
           AS live_lines
  FROM picked AS q LEFT JOIN resting AS r ON r.pool_id = q.pool_id AND r.x_id = q.x_id AND q.state = 'draining'
),
dated AS (SELECT broker_now() AS at)
SELECT c.number, c.pool, c.area_code, c.state, c.state_reason, c.state_since, c.closed_by, c.platform_status,
       c.platform_status_at, (
         SELECT e.state FROM evacuation AS e WHERE e.pool_id = c.pool_id AND e.x_id = c.x_id) AS evacuation,
       c.carrier, c.rent::text AS rent, c.live_lines,
       CASE WHEN c.until > d.at THEN c.until END AS resting_until,
       u.complaints, round(u.heat::numeric, 1)::double precision AS calls_per_hour,
       round((u.answered / nullif(u.calls, 0))::numeric, 3)::double precision AS answer_rate,
       array_to_string(o.why, ', ') AS over_budget, o.since AS over_budget_since,
       c.state = 'draining' AND c.live_lines = 0 AND (c.until IS NULL OR c.until <= d.at)
         AND c.state_since <= statement_timestamp() - interval '10 seconds' AS releasable
FROM counted AS c CROSS JOIN dated AS d CROSS JOIN LATERAL use_of(c.pool_id, c.x_id, d.at) AS u
LEFT JOIN over_budget AS o ON o.pool_id = c.pool_id AND o.x_id = c.x_id
ORDER BY c.pool, c.x_id;

-- name: set_number_state
-- One that the platform or a budget has closed in this very way becomes the operator's: nobody else opens it.
WITH turned AS (
  UPDATE x_number AS x
  SET state = $3, state_reason = $4, state_since = CASE WHEN x.state <> $3 THEN statement_timestamp() ELSE x.state_since END,
      closed_by = CASE WHEN $3 <> 'open' THEN 'operator' END,
      opened_at = CASE WHEN $3 = 'open' THEN clock_timestamp() ELSE x.opened_at END
  FROM pool AS p
  WHERE p.id = x.pool_id AND p.app_id = $1 AND x.number = ANY ($2::text[])
    AND ((x.state = ANY ($5::text[]) AND x.state <> $3) OR (x.state = $3 AND x.closed_by <> 'operator'))
  RETURNING x.pool_id, x.x_id, x.number
),
-- Whoever opens an X wants it tried again.
forgiven AS (
  UPDATE x_use AS u SET calls = 0, answered = 0 FROM turned AS t WHERE $3 = 'open' AND u.pool_id = t.pool_id AND u.x_id = t.x_id
)
SELECT number FROM turned;

-- name: retire_numbers
WITH due AS MATERIALIZED (
  SELECT x.pool_id, x.x_id,
         EXISTS (SELECT FROM line AS l WHERE l.x_key = x.pool_id::bigint * 100000 + x.x_id AND l.seat IS NOT NULL) AS live
  FROM x_number AS x JOIN pool AS p ON p.id = x.pool_id
  WHERE p.app_id = $1 AND x.number = ANY ($2::text[]) AND x.state IN ('draining', 'frozen')
    AND x.state_since <= statement_timestamp() - interval '10 seconds'
  FOR UPDATE OF x
)
UPDATE x_number AS x SET state = 'retired', state_reason = NULL, state_since = statement_timestamp()
FROM due
WHERE x.pool_id = due.pool_id AND x.x_id = due.x_id AND NOT due.live
  AND (SELECT count(*) FROM due WHERE NOT due.live) = $3
RETURNING x.number;

-- name: import_numbers
WITH asked AS MATERIALIZED (
  SELECT i.*, x.pool_id AS there, x.carrier AS old_carrier, x.rent AS old_rent
  FROM unnest($1::integer[], $2::text[], $3::text[], $4::text[]::numeric[]) WITH ORDINALITY
    AS i (pool_id, number, carrier, rent, ord)
  LEFT JOIN x_number AS x ON x.number = i.number AND x.state <> 'moved'
),
elsewhere AS MATERIALIZED (
  SELECT a.ord, CASE WHEN q.app_id = r.app_id THEN 'other_pool' ELSE 'other_app' END AS outcome
  FROM asked AS a JOIN pool AS q ON q.id = a.there JOIN pool AS r ON r.id = a.pool_id
  WHERE a.there <> a.pool_id
),
details AS (
  UPDATE x_number AS x SET carrier = coalesce(a.carrier, x.carrier), rent = coalesce(a.rent, x.rent)
  FROM asked AS a
  WHERE NOT EXISTS (SELECT FROM elsewhere) AND x.number = a.number AND x.state <> 'moved'
    AND (coalesce(a.carrier, a.old_carrier), coalesce(a.rent, a.old_rent)) IS DISTINCT FROM (a.old_carrier, a.old_rent)
  RETURNING x.number
),
-- Two imports into one pool at once want the same positions: one of them fails whole and is tried again.
added AS (
  INSERT INTO x_number (pool_id, x_id, number, carrier, rent)
  SELECT a.pool_id,
         (SELECT coalesce(max(x.x_id), -1) FROM x_number AS x WHERE x.pool_id = a.pool_id)
         + row_number() OVER (PARTITION BY a.pool_id ORDER BY a.ord),
         a.number, a.carrier, a.rent
  FROM asked AS a WHERE a.there IS NULL AND NOT EXISTS (SELECT FROM elsewhere)
  RETURNING number
)
SELECT e.ord::integer AS ord, e.outcome FROM elsewhere AS e
UNION ALL
SELECT a.ord::integer,
       CASE WHEN n.number IS NOT NULL THEN 'added' WHEN d.number IS NOT NULL THEN 'changed' ELSE 'unchanged' END
FROM asked AS a LEFT JOIN added AS n ON n.number = a.number LEFT JOIN details AS d ON d.number = a.number
WHERE NOT EXISTS (SELECT FROM elsewhere)
ORDER BY ord;

-- name: any_number
SELECT x.number FROM x_number AS x JOIN pool AS p ON p.id = x.pool_id
WHERE p.app_id = $1 AND x.state NOT IN ('retired', 'moved') ORDER BY x.state <> 'open', x.pool_id, x.x_id LIMIT 1;

-- name: pools_of_numbers
SELECT number, pool_id FROM x_number WHERE number = ANY ($1::text[]) AND state <> 'moved';

-- name: standing
SELECT x.pool_id, x.state, p.name AS pool,
       x.state_since <= statement_timestamp() - interval '10 seconds' AS settled,
       (SELECT count(*) FROM line AS l WHERE l.x_key = x.pool_id::bigint * 100000 + x.x_id AND l.seat IS NOT NULL)
         AS live_lines,
       EXISTS (SELECT FROM slot AS s WHERE s.pool_id = x.pool_id AND s.x_id = x.x_id AND s.until > broker_now())
         OR EXISTS (SELECT FROM place AS h WHERE h.pool_id = x.pool_id AND h.x_id = x.x_id AND h.until > broker_now()) AS rests
FROM x_number AS x JOIN pool AS p ON p.id = x.pool_id
WHERE p.app_id = $1 AND x.number = $2 AND x.state <> 'moved';

-- name: move_number
-- The old row stays for the lines of its time. What takes its place reads from `gone`, so it comes after the old row has
-- let go of the number, which only one row may hold. A number that comes back finds its old place.
WITH due AS MATERIALIZED (
  SELECT x.pool_id, x.x_id, x.state FROM x_number AS x JOIN pool AS p ON p.id = x.pool_id
  WHERE p.app_id = $1 AND x.number = $2 AND x.state IN ('frozen', 'draining', 'suspended') AND x.pool_id <> $3
    AND x.state_since <= statement_timestamp() - interval '10 seconds'
    AND NOT EXISTS (
      SELECT FROM line AS l WHERE l.x_key = x.pool_id::bigint * 100000 + x.x_id AND l.seat IS NOT NULL)
    AND NOT EXISTS (
      SELECT FROM slot AS s WHERE s.pool_id = x.pool_id AND s.x_id = x.x_id AND s.until > broker_now())
    AND NOT EXISTS (
      SELECT FROM place AS h WHERE h.pool_id = x.pool_id AND h.x_id = x.x_id AND h.until > broker_now())
  FOR UPDATE OF x
),
gone AS (
  UPDATE x_number AS x SET state = 'moved', state_since = statement_timestamp()
  FROM due WHERE x.pool_id = due.pool_id AND x.x_id = due.x_id
  RETURNING x.number, due.state, x.state_reason, x.carrier, x.rent, x.closed_by
),
back AS (
  UPDATE x_number AS o
  SET state = g.state, state_reason = g.state_reason, state_since = statement_timestamp(), carrier = g.carrier, rent = g.rent,
      closed_by = g.closed_by
  FROM gone AS g WHERE o.pool_id = $3 AND o.number = g.number
  RETURNING o.number
),
-- As with imports: who wants the same position at the same time fails whole.
added AS (
  INSERT INTO x_number (pool_id, x_id, number, state, state_reason, carrier, rent, closed_by)
  SELECT $3, (SELECT coalesce(max(o.x_id) + 1, 0) FROM x_number AS o WHERE o.pool_id = $3),
         g.number, g.state, g.state_reason, g.carrier, g.rent, g.closed_by
  FROM gone AS g WHERE NOT EXISTS (SELECT FROM x_number AS o WHERE o.pool_id = $3 AND o.number = g.number)
  RETURNING number
)
SELECT number FROM back UNION ALL SELECT number FROM added;

-- name: bindings_on_number
SELECT b.pool_id, b.id, b.state
FROM x_number AS x JOIN pool AS p ON p.id = x.pool_id
JOIN line AS l ON l.x_key = x.pool_id::bigint * 100000 + x.x_id AND l.seat IS NOT NULL
JOIN binding AS b ON b.line_id = l.id
WHERE p.app_id = $1 AND x.number = $2 AND x.state <> 'moved' AND b.state IN ('pending', 'active', 'releasing')
ORDER BY b.id;

-- name: binding_states
SELECT b.pool_id, b.id, b.state FROM unnest($1::integer[], $2::uuid[]) AS i (pool_id, id)
JOIN binding AS b ON b.pool_id = i.pool_id AND b.id = i.id;


-- name: tones
SELECT t.name, t.state, t.state_reason, t.state_since, encode(t.sha256, 'hex') AS sha256, t.size_bytes, t.duration_ms,
       t.created_at
FROM tone AS t WHERE t.app_id = $1 AND ($2::text IS NULL OR t.name = $2) AND ($3::text IS NULL OR t.state = $3)
ORDER BY t.name;

-- name: add_tone
INSERT INTO tone AS t (app_id, name, content, duration_ms)
SELECT $1, $2, $3, $4
WHERE (SELECT count(*) FROM tone AS other WHERE other.app_id = $1 AND other.name <> $2) < $5
-- A rejected file may be handed in again as it is; otherwise the same content again changes nothing.
ON CONFLICT (app_id, name) DO UPDATE
SET content = excluded.content, duration_ms = excluded.duration_ms, state = 'draft', state_reason = NULL,
    state_since = statement_timestamp()
WHERE t.content <> excluded.content OR t.state = 'rejected'
RETURNING t.name;

-- name: set_tone_state
UPDATE tone SET state = $3, state_reason = $4, state_since = statement_timestamp()
WHERE app_id = $1 AND name = $2 AND state = $5
RETURNING name;

-- name: remove_tone
DELETE FROM tone WHERE app_id = $1 AND name = $2 RETURNING name;

-- name: tone_content
SELECT content FROM tone WHERE app_id = $1 AND name = $2;
