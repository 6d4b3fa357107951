-- name: begin
SELECT ord, token, made_pool, made_id, same, status, location, body FROM begin_keys($1, $2, $3, $4, $5);

-- name: finish
SELECT ord FROM finish_keys($1, $2, $3, $4, $5, $6, $7);

-- name: forget
-- 429 and 5xx are not kept: the key is free for the next try, unless a binding was made under it.
UPDATE idempotency AS d
SET busy_until = broker_now(),
    -- A binding that failed is no reason to fail again.
    (pool_id, binding_id) = (
      SELECT m.pool_id, m.id FROM (VALUES (true)) AS one (it)
      LEFT JOIN binding AS m ON m.pool_id = d.pool_id AND m.id = d.binding_id AND m.state <> 'failed')
WHERE d.app_id = $1 AND d.caller_id = $2 AND d.key_hash = $3 AND d.token = $4 AND d.status IS NULL;

-- name: sweep
WITH old AS MATERIALIZED (
  SELECT app_id, caller_id, key_hash FROM idempotency
  WHERE created_at < (SELECT broker_now() - interval '25 hours') ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
DELETE FROM idempotency AS d USING old
WHERE d.app_id = old.app_id AND d.caller_id = old.caller_id AND d.key_hash = old.key_hash
RETURNING 1 AS gone;
