-- What is written down before an order system is shown what the platform keeps.

-- name: audit
INSERT INTO audit (at, who, what, app_id, subject) VALUES (broker_now(), $1, 'recording', $2, $3);
