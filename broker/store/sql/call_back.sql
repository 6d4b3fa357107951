-- Last callers whom A is to reach.

-- name: take
SELECT pool_id, binding_id, call_id, caller_sealed, left_s FROM take_call_backs($1, make_interval(secs => $2));

-- name: done
UPDATE call_back SET due_at = NULL WHERE pool_id = $1 AND binding_id = $2 AND call_id = $3;

-- name: forget
SELECT forget_call_backs($1) AS gone;
