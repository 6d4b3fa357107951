-- What the hand-written service asks; every way to allocate has its own part.

-- name: pick
SELECT x.id, x.number FROM x_number AS x
WHERE x.pool = $1 AND x.live < $4 AND NOT EXISTS (
  SELECT FROM slot AS s WHERE s.x_id = x.id AND s.party IN ($2, $3) AND s.until > now())
ORDER BY x.id LIMIT 1 FOR UPDATE OF x SKIP LOCKED;

-- name: take
INSERT INTO slot (party, x_id, counterpart, until) VALUES ($1, $3, $2, 'infinity'), ($2, $3, $1, 'infinity')
ON CONFLICT (party, x_id) DO UPDATE SET counterpart = excluded.counterpart, until = 'infinity'
WHERE slot.until <= now() RETURNING party;

-- name: count
UPDATE x_number SET live = live + $2 WHERE id = $1;

-- name: add
INSERT INTO binding (id, x_id, a, b, order_id, state, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7::integer));

-- name: call
SELECT rival_bind($1, $2, $3, $4, $5, $6, $7, $8);

-- name: guess
-- Both slots or none: of one alone the division ends the statement.
WITH taken AS (
  INSERT INTO slot (party, x_id, counterpart, until) VALUES ($3, $2, $4, 'infinity'), ($4, $2, $3, 'infinity')
  ON CONFLICT (party, x_id) DO UPDATE SET counterpart = excluded.counterpart, until = 'infinity'
  WHERE slot.until <= now() RETURNING party
)
INSERT INTO binding (id, x_id, a, b, order_id, state, expires_at)
SELECT $1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7::integer) FROM (SELECT count(*) AS n FROM taken) AS t
WHERE 1 / (t.n / 2) = 1;

-- name: confirm
UPDATE binding SET state = 'active', subscription_id = $2 WHERE id = $1;

-- name: held
SELECT b.x_id, b.a, b.b, b.subscription_id, b.state FROM binding AS b WHERE b.id = $1;

-- name: end
UPDATE binding SET state = $2 WHERE id = $1 AND state IN ('pending', 'active') RETURNING id;

-- name: rest
UPDATE slot SET until = now() + make_interval(secs => $4::integer) WHERE x_id = $1 AND party IN ($2, $3);

-- name: numbers
SELECT pool, id, number FROM x_number ORDER BY id;
