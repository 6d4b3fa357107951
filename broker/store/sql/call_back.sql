-- Last callers whom A is to reach.

-- name: take
SELECT pool_id, binding_id, call_id, caller_sealed, left_s FROM take_call_backs($1, make_interval(secs => $2));

-- name: hold
UPDATE call_back SET due_at = clock_timestamp() + make_interval(secs => $4)
WHERE pool_id = $1 AND binding_id = $2 AND call_id = $3 AND due_at IS NOT NULL RETURNING true AS held;

-- name: done
UPDATE call_back SET due_at = NULL WHERE pool_id = $1 AND binding_id = $2 AND call_id = $3;

-- name: forget
SELECT forget_call_backs($1) AS gone;
