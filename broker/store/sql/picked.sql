-- name: claim
SELECT outcome, created_at
FROM claim_unpicked(make_interval(secs => $1), $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19);

-- name: settle
SELECT seen, line_state, confirmed_at, crowded
FROM settle_picked($1, $2, $3, $4, $5::smallint, $6, $7, make_interval(secs => $8));

-- name: unbound
SELECT number FROM unbound_numbers($1, $2, $3);
