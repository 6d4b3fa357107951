-- A clock that tests can move. Exists only under `up --test-clock`.

-- name: install
DO $install$
BEGIN
  CREATE TABLE IF NOT EXISTS test_clock (singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton), ahead interval NOT NULL);
  INSERT INTO test_clock (ahead) VALUES (interval '0') ON CONFLICT DO NOTHING;
  CREATE OR REPLACE FUNCTION broker_now() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE
  AS 'SELECT clock_timestamp() + (SELECT ahead FROM test_clock)';
END
$install$;

-- name: advance
UPDATE test_clock SET ahead = ahead + make_interval(secs => $1) RETURNING extract(epoch FROM ahead)::double precision AS ahead_s;

-- name: remove
DO $remove$
BEGIN
  CREATE OR REPLACE FUNCTION broker_now() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE
  AS 'SELECT clock_timestamp()';
  DROP TABLE IF EXISTS test_clock;
END
$remove$;
