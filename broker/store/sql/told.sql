-- What the platform told: calls, records, messages.

-- name: page
SELECT told FROM told_of($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: bindings_of_order
SELECT b.id FROM binding AS b WHERE b.app_id = $1 AND b.order_id = $2 AND b.moves IS NULL ORDER BY b.id DESC LIMIT 1000;

-- name: recording
SELECT c.record_name, c.record_domain FROM cdr AS c WHERE c.at = $1 AND c.id = $2 AND c.app_id = $3;

-- name: call_over
SELECT c.ended_at IS NOT NULL AS over FROM call AS c
WHERE c.id = $1 AND c.app_id = $2 AND c.at > broker_now() - interval '2 days';

-- name: known_records
SELECT u.at, u.id FROM unnest($1::timestamptz[], $2::uuid[]) AS u (at, id)
WHERE EXISTS (SELECT FROM cdr AS c WHERE c.at = u.at AND c.id = u.id OFFSET 0)
   OR EXISTS (SELECT FROM inbox AS n WHERE n.at = u.at AND n.id = u.id OFFSET 0);

-- name: audit
INSERT INTO audit (at, who, what, app_id, subject) VALUES (broker_now(), $1, 'reveal', $2, $3);
