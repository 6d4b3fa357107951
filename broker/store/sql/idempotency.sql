-- name: begin
-- One row per asked key: mine (a fresh key, or a twin that gave up), or what is stored.
WITH clock AS MATERIALIZED (SELECT broker_now() AS now),
asked AS MATERIALIZED (
  SELECT u.* FROM unnest($1::integer[], $2::integer[], $3::bytea[], $4::bytea[], $5::double precision[])
    WITH ORDINALITY AS u (app_id, caller_id, key_hash, request_hash, busy_s, ord)
),
mine AS (
  INSERT INTO idempotency AS d (app_id, caller_id, key_hash, request_hash, busy_until, created_at)
  SELECT a.app_id, a.caller_id, a.key_hash, a.request_hash, clock.now + make_interval(secs => a.busy_s), clock.now
  FROM asked AS a, clock ORDER BY a.app_id, a.caller_id, a.key_hash
  ON CONFLICT (app_id, caller_id, key_hash) DO UPDATE
    SET token = CASE WHEN d.created_at <= excluded.created_at - interval '24 hours' THEN 1 ELSE d.token END + 1,
        busy_until = excluded.busy_until,
        request_hash = excluded.request_hash,
        created_at = CASE WHEN d.created_at <= excluded.created_at - interval '24 hours' THEN excluded.created_at ELSE d.created_at END,
        pool_id = CASE WHEN d.created_at <= excluded.created_at - interval '24 hours' THEN NULL ELSE d.pool_id END,
        binding_id = CASE WHEN d.created_at <= excluded.created_at - interval '24 hours' THEN NULL ELSE d.binding_id END,
        status = NULL, location = NULL, body = NULL
    WHERE d.created_at <= excluded.created_at - interval '24 hours'
       OR (d.status IS NULL AND d.busy_until <= excluded.created_at AND d.request_hash = excluded.request_hash)
  RETURNING d.app_id, d.caller_id, d.key_hash, d.token, d.pool_id, d.binding_id
)
SELECT a.ord::integer AS ord, m.token AS token, m.pool_id AS made_pool, m.binding_id AS made_id,
       d.request_hash = a.request_hash AS same, d.status, d.location, d.body
FROM asked AS a
LEFT JOIN mine AS m ON m.app_id = a.app_id AND m.caller_id = a.caller_id AND m.key_hash = a.key_hash
LEFT JOIN idempotency AS d ON d.app_id = a.app_id AND d.caller_id = a.caller_id AND d.key_hash = a.key_hash;

-- name: finish
-- Keeps the answer, if the key is still ours. Returned = kept: only then may it be sent.
UPDATE idempotency AS d SET status = i.status, location = i.location, body = i.body
FROM unnest($1::integer[], $2::integer[], $3::bytea[], $4::integer[], $5::smallint[], $6::text[], $7::bytea[])
  WITH ORDINALITY AS i (app_id, caller_id, key_hash, token, status, location, body, ord)
WHERE d.app_id = i.app_id AND d.caller_id = i.caller_id AND d.key_hash = i.key_hash AND d.token = i.token
  AND d.status IS NULL
RETURNING i.ord::integer AS ord;

-- name: forget
-- 429 and 5xx are not kept: the key is free for the next try, unless a binding was made under it.
UPDATE idempotency AS d SET busy_until = broker_now()
WHERE d.app_id = $1 AND d.caller_id = $2 AND d.key_hash = $3 AND d.token = $4 AND d.status IS NULL;

-- name: sweep
WITH old AS MATERIALIZED (
  SELECT app_id, caller_id, key_hash FROM idempotency
  WHERE created_at < broker_now() - interval '25 hours' ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
DELETE FROM idempotency AS d USING old
WHERE d.app_id = old.app_id AND d.caller_id = old.caller_id AND d.key_hash = old.key_hash;
