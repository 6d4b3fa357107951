-- name: histories
-- What each (pool, party) is behind, rests on and had: one row per X.
SELECT s.pool_id, s.party_key, s.x_id, s.counterpart_key, s.until = 'infinity' AS live, s.until > c.now AS held,
       CASE WHEN s.until = 'infinity' THEN 0 ELSE extract(epoch FROM s.until)::double precision END AS until_s
FROM (SELECT broker_now() AS now OFFSET 0) AS c,
     (SELECT DISTINCT u.pool_id, u.party_key FROM unnest($1::integer[], $2::bigint[]) AS u (pool_id, party_key)) AS i
JOIN slot AS s ON s.pool_id = i.pool_id AND s.party_key = i.party_key;

-- name: reserve
SELECT ord, outcome, created_at FROM reserve(
  $1, make_interval(secs => $2), $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20);

-- name: rechoose
SELECT rechoose($1, make_interval(secs => $2), $3, $4, $5::smallint, $6, make_interval(secs => $7), $8, $9::smallint,
                $10, $11, $12, $13, $14, $15) AS outcome;
