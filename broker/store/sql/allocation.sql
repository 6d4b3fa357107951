-- name: histories
SELECT pool_id, party_key, x_id, counterpart_key, live, held, until_s FROM histories($1, $2);

-- name: reserve
SELECT ord, outcome, created_at FROM reserve(
  $1, make_interval(secs => $2), $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20);

-- name: rechoose
SELECT rechoose($1, make_interval(secs => $2), $3, $4, $5::smallint, $6, make_interval(secs => $7), $8, $9::smallint,
                $10, $11, $12, $13, $14, $15) AS outcome;
