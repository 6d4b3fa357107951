-- name: reserve
SELECT ord, outcome, created_at, x_id, extension, chosen, first_fit, number FROM reserve_places(
  make_interval(secs => $1), $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21);

-- name: sight
SELECT ord, outcome, seen_at FROM sight_places($1, $2, $3, $4);

-- name: rechoose
SELECT outcome, x_id, extension, first_fit, number FROM rechoose_place(
  make_interval(secs => $1), $2, $3, $4, $5, make_interval(secs => $6), $7, $8::smallint, $9, $10, $11, $12, $13);

-- name: free_codes
SELECT extension FROM free_codes($1, $2::smallint, $3);

-- name: counts
SELECT pool_id, held, resting, free, not_open, not_in_use FROM count_places($1);
