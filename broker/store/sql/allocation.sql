-- name: histories
SELECT pool_id, party_key, x_id, counterpart_key, live, held, until_s, line_id FROM histories($1, $2);

-- name: reserve
SELECT ord, outcome, created_at FROM reserve(
  $1, make_interval(secs => $2), $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
  $21, $22, $23, $24, $25, $26, $27);

-- name: rechoose
SELECT rechoose($1, make_interval(secs => $2), $3, $4, $5, $6, make_interval(secs => $7), $8, $9::smallint,
                $10, $11, $12, $13, $14, $15, $16) AS outcome;

-- name: lines
SELECT ord, state, direction, options, joinable, changing, a_sealed, b_sealed, x_id FROM lines_of($1, $2);

-- name: join
SELECT ord, outcome, created_at, state, expires_at, subscription_id
FROM join_lines($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16);
