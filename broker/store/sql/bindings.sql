-- name: show
SELECT pool_id, id, app_id, state, reason, ttl_s, created_at, expires_at, ended_at, order_id, user_data, metadata,
       line_id, x_id, number, direction, a_key, b_key, a_sealed, b_sealed, subscription_id,
       version, flipped, shared, joinable, options, wanted, change_failed, moving, as_of,
       extension, picked, callback_sealed, callee_sealed, callee_until, callee_user_data, gap_ms,
       coalesce((SELECT b.caller_id FROM binding AS b WHERE b.pool_id = s.pool_id AND b.id = s.id), 0) AS caller_id
FROM show_bindings($1, $2) AS s;

-- name: release_later
SELECT release_later($1, $2, $3, make_interval(secs => $4)) AS done;

-- name: release
SELECT ord, line_id, no, line_state, number, subscription_id
FROM release_bindings($1, $2, $3, $4, make_interval(secs => $5));
