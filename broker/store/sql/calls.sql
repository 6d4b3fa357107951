-- name: claim
SELECT pool_id, line_id, no, token, attempt, op, app_id, x_id, number, direction, ttl_s, a_key, b_key, a_sealed,
       b_sealed, options, subscription_id, line_state, wanted, created_at, extension, callback_sealed,
       coalesce((SELECT min(b.caller_id) FROM binding AS b WHERE b.line_id = c.line_id), 0) AS caller_id
FROM claim_calls($1, make_interval(secs => $2)) AS c;

-- name: extend
SELECT ord, line_state FROM extend_calls($1, $2, $3, $4, $5, $6, $7, $8);

-- name: settle_bound
SELECT ord, line_state, confirmed_at
FROM settle_bound($1, $2, $3, $4, $5, $6, make_interval(secs => $7), $8);

-- name: settle_ended
SELECT ord, ended_at
FROM settle_ended($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: end_unbound
SELECT end_unbound($1, $2, $3, $4) AS ours;

-- name: sweep
SELECT expired, withdrawn, renewed FROM sweep_lines($1, make_interval(secs => $2));

-- name: date_back
SELECT date_back($1, $2, $3, $4);
