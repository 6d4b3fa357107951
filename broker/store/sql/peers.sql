-- name: add
SELECT outcome, id, line_id, no, subscription_id FROM add_peer($1, $2, $3, $4, $5, $6, $7, $8, $9, make_interval(secs => $10));

-- name: drop
SELECT line_id, no, subscription_id FROM drop_peer($1, $2, $3, make_interval(secs => $4));

-- name: settle
SELECT line_state, peer_state, seen, no, op
FROM settle_peer($1, $2, $3, $4, $5::smallint, $6, $7, $8, $9, $10::smallint, $11, make_interval(secs => $12));

-- name: of_call
SELECT pool_id, id, app_id, binding_id, line_id, state, reason, b_sealed, y, tone, ttl_s, found, created_at, expires_at, ended_at
FROM peer WHERE line_id = $1 AND call_no = $2 AND state IN ('pending', 'releasing');

-- name: one
SELECT pool_id, id, app_id, binding_id, line_id, state, reason, b_sealed, y, tone, ttl_s, found, created_at, expires_at, ended_at
FROM peer WHERE pool_id = $1 AND id = $2;

-- name: of_binding
-- The newest first: who lives comes before who has gone.
SELECT pool_id, id, app_id, binding_id, line_id, state, reason, b_sealed, y, tone, ttl_s, found, created_at, expires_at, ended_at
FROM peer WHERE pool_id = $1 AND binding_id = $2
ORDER BY state IN ('released', 'failed'), id DESC LIMIT $3;

-- name: note
SELECT note_peers($1, $2, $3, $4, $5, $6, $7, $8) AS new;

-- name: sweep
SELECT sweep_peers($1) AS gone;
