-- What order systems may ask of us: requests a second and live bindings.

-- name: take_requests
SELECT ord, granted, remaining, wait_s FROM take_requests($1, $2, $3, $4, $5, $6);

-- name: claim_live
SELECT ord FROM claim_live($1, $2, $3, $4, $5);

-- name: drop_claims
SELECT drop_claims($1, $2, $3);

-- name: count_live
SELECT count_live($1) AS more;
